"""What tests of telemetry share."""

import socket
import subprocess

import pytest


@pytest.fixture(scope="session")
def loopback() -> None:
    """Where the suite runs in a namespace of its own (without root), its loopback is down at first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        unreachable = probe.connect_ex(("127.0.0.1", 9))
    if unreachable:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
