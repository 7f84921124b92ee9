"""The exit codes of the program."""

ITEMS_FAILED = 1
USAGE = 2
"""A wrong command line, as click has it, or local input or output that fails: a number of its own (EX_IOERR) is an RPC status."""
CHANGES = 3
"""A dry run with --exit-code has found changes."""
RPC = 64
"""Plus the number of the gRPC status, as grpcurl has it."""
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 and the number of SIGPIPE: what a shell shows of any program whose reader has gone."""
