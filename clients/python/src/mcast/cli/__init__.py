"""Contracts that tell command lines how to show an API."""
