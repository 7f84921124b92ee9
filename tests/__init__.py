"""Tests; what several of them share stands beside them (testbed/, fakekernel.py, fakerouter.py)."""
