"""What a container survives without losing a packet: its server's end, an upgrade of the server, a re-execution of the keeper."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mcastd.model.address import Family
from tests.deploy.container import Container, Limits, init
from tests.deploy.image import Image
from tests.deploy.manifests import added, containers, router
from tests.deploy.running import assert_powerless, routing, server_of, volumes_of_docker, volumes_of_node
from tests.e2e.router import Router
from tests.e2e.templates import template
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("container"), pytest.mark.timeout(300)]

RATE = 1000.0
"""Packets a second of each stream."""


def kill_server(made: Router) -> None:
    os.kill(server_of(made.daemon.process), signal.SIGKILL)


def upgrade(made: Router) -> None:
    os.kill(init(made.daemon.process), signal.SIGUSR2)


def reexecute(made: Router) -> None:
    before = made.daemon.log().count("re-executed")
    os.kill(init(made.daemon.process), signal.SIGUSR1)
    wait_until(lambda: made.daemon.log().count("re-executed") > before, 30, made.daemon.log)


def container_of(deployment: str, image: Image, directory: Path) -> Container:
    if deployment == "compose":
        return Container(image, Limits(tuple(router()["cap_add"]), binds=volumes_of_docker(image, directory)))
    limits = Limits(added(containers("daemonset")["mcastd"]), binds=volumes_of_node(directory), read_only=("/etc/mcastd",))
    return Container(image, limits)


@pytest.mark.parametrize("deployment", ["compose", "daemonset"])
@pytest.mark.parametrize("act", [kill_server, upgrade, reexecute])
def test_nothing_is_lost(
    testbed: Testbed, family: Family, directory: Path, image: Image, deployment: str, act: Callable[[Router], None]
) -> None:
    with routing(testbed, family, directory, container_of(deployment, image, directory)) as made:
        exact, learned = made.sender(1), made.sender(2)
        made.put(made.route(exact, "down1"), template(learned.group, "up", "down2"))
        made.check_leaves(learned, "down2", count=1)
        process, before = made.daemon.process, server_of(made.daemon.process)
        number_one, notices = init(process), made.notices()
        flows = [(sender, sender.start(RATE)) for sender in (exact, learned)]
        act(made)
        if act is not reexecute:
            wait_until(lambda: server_of(process) not in {0, before}, 30, made.daemon.log)
            wait_until(lambda: made.daemon.log().count("the server serves") == 2, 30, made.daemon.log)
        made.daemon.wait_ready()
        for sender, flow in flows:
            flow.stop()
            made.departures.wait(sender)
        assert notices.take() == 0
        assert init(process) == number_one
        assert_powerless(server_of(process))
        made.put(made.route(3, "down1"))
