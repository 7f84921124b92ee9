"""Durable state: what was acknowledged survives a crash, a full disk and a damaged file; knows the model only."""
