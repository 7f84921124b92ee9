"""Containers that route: their volumes, what is in them, and a router whose daemon is one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcastd.model.address import Family
from tests.deploy.container import Container, init, stop
from tests.deploy.image import Image
from tests.deploy.manifests import configuration
from tests.e2e.keeper_bench import status_of
from tests.e2e.router import Router
from tests.testbed import Testbed


def server_of(process: "subprocess.Popen[Any]") -> int:
    """Pid of the server in a container, as seen from here."""
    pid = init(process)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"mcastd.runtime.server" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return 0


def assert_powerless(pid: int) -> None:
    """No capability, and no way to one."""
    status = status_of(pid)
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
    )
    assert status["NoNewPrivs"] == "1"


def volumes_of_docker(image: Image, directory: Path) -> dict[str, Path]:
    """Named volumes: empty ones begin as the image's directories are."""
    volumes = {}
    for name, place in (("run", "/run/mcastd"), ("state", "/var/lib/mcastd")):
        like = (image.root / place.lstrip("/")).stat()
        (directory / name).mkdir()
        os.chown(directory / name, like.st_uid, like.st_gid)
        (directory / name).chmod(like.st_mode & 0o7777)
        volumes[place] = directory / name
    return volumes


def volumes_of_node(directory: Path) -> dict[str, Path]:
    """What the kubelet makes: directories of root, and the ConfigMap."""
    for name in ("run", "state", "etc"):
        (directory / name).mkdir(mode=0o755)
    (directory / "etc/mcastd.toml").write_text(configuration())
    return {"/run/mcastd": directory / "run", "/var/lib/mcastd": directory / "state", "/etc/mcastd": directory / "etc"}


@contextmanager
def routing(testbed: Testbed, family: Family, directory: Path, container: Container) -> Iterator[Router]:
    """A router whose daemon is a container; at the end it must stop as `docker stop` asks, in time and with exit code 0."""
    with Router(testbed, family, directory=directory, prefix=container.prefix()) as made:
        yield made
        assert stop(made.daemon.process) == 0, made.daemon.log()
