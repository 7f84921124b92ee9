"""Desired state from elsewhere than the API: the configuration file, read and checked whole; knows no process and no message."""
