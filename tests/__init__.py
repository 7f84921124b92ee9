"""Tests; what several of them share stands beside them (testbed/, fakekernel.py, fakerouter.py)."""

import os

# Some tests fork: gRPC's handlers would start its threads again in a child that has closed what they wait for.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
