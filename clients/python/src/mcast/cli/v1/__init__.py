"""The options mcast.cli.v1: generated from proto/mcast/cli/v1; nothing here is written by hand."""
