"""Containers of the image, with what the deployment files give them and nothing more, forward packets."""

import os
import re
import signal
from pathlib import Path
from urllib.request import urlopen

import pytest

from mcastd.model.address import Family
from tests.deploy.container import Container, Limits, init, mask
from tests.deploy.image import Image
from tests.deploy.manifests import Object, added, containers, router
from tests.deploy.running import assert_powerless, routing, server_of, volumes_of_docker, volumes_of_node
from tests.e2e.keeper_bench import status_of
from tests.e2e.router import Router
from tests.e2e.templates import template
from tests.testbed import Testbed

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("container"), pytest.mark.timeout(300)]


def forward(made: Router) -> None:
    """An exact route and a template, whose stream begins slowly: four packets may wait for the answer to the first."""
    exact, learned = made.sender(1), made.sender(2)
    made.put(made.route(exact, "down1"), template(learned.group, "up", "down2"))
    made.check_leaves(exact, "down1")
    made.check_leaves(learned, "down2", count=1)
    made.check_leaves(learned, "down2")


def test_as_compose_runs_it(testbed: Testbed, family: Family, directory: Path, image: Image) -> None:
    service = router()
    limits = Limits(tuple(service["cap_add"]), binds=volumes_of_docker(image, directory))
    container = Container(image, limits)
    with routing(testbed, family, directory, container) as made:
        forward(made)
        process = made.daemon.process
        keeper = status_of(init(process))
        assert keeper["NSpid"].split()[1:] == ["1"]
        assert int(keeper["CapEff"], 16) == int(keeper["CapBnd"], 16) == mask(limits.capabilities)
        assert_powerless(server_of(process))
        user = re.search(r"^mcastd:x:(\d+):", (image.root / "etc/passwd").read_text(), re.MULTILINE)
        assert user is not None
        assert set(status_of(server_of(process))["Uid"].split()) == {user[1]}
        health = container.execute(process, *service["healthcheck"]["test"][1:])
        assert health.returncode == 0, health.stderr


def test_health_tells_when_there_is_no_server(testbed: Testbed, directory: Path, image: Image) -> None:
    container = Container(image, Limits(tuple(router()["cap_add"]), binds=volumes_of_docker(image, directory)))
    with routing(testbed, Family.IPV4, directory, container) as made:
        process = made.daemon.process
        health = router()["healthcheck"]["test"][1:]
        os.kill(server_of(process), signal.SIGSTOP)
        try:
            assert container.execute(process, "timeout", "2", *health).returncode != 0
        finally:
            os.kill(server_of(process), signal.SIGCONT)
        assert container.execute(process, *health).returncode == 0


def test_as_the_daemonset_runs_it(testbed: Testbed, family: Family, directory: Path, image: Image) -> None:
    spec = containers("daemonset")["mcastd"]
    limits = Limits(added(spec), binds=volumes_of_node(directory), read_only=("/etc/mcastd",))
    with routing(testbed, family, directory, Container(image, limits)) as made:
        forward(made)
        process = made.daemon.process
        keeper = status_of(init(process))
        assert int(keeper["CapEff"], 16) == int(keeper["CapBnd"], 16) == mask(("NET_ADMIN", "NET_RAW"))
        assert_powerless(server_of(process))
        assert "the server will be root, though without capabilities" in made.daemon.log()
        for probe in ("startupProbe", "readinessProbe"):
            assert ask(made, spec, spec[probe]) == 200


def ask(made: Router, container: Object, probe: Object) -> int:
    """What the kubelet gets: it asks the node's address, here one of an interface."""
    (port,) = [one["containerPort"] for one in container["ports"] if one["name"] == probe["httpGet"]["port"]]
    address = made.star.uplink.address(made.family)
    host = f"[{address}]" if made.family is Family.IPV6 else address
    url = f"http://{host}:{port}{probe['httpGet']['path']}"

    def inside() -> int:
        with urlopen(url, timeout=5) as answer:
            status: int = answer.status
            return status

    return made.namespace.run(inside)


def test_what_the_container_can_write(testbed: Testbed, directory: Path, image: Image) -> None:
    container = Container(image, Limits(("NET_ADMIN", "NET_RAW"), binds=volumes_of_node(directory)))
    with routing(testbed, Family.IPV4, directory, container) as made:
        tried = "for each in / /etc /opt/mcastd /usr /proc/sys/net /var/lib/mcastd /run/mcastd /tmp; do"
        tried += " touch $each/tried 2>/dev/null && echo $each; done; true"
        done = container.execute(made.daemon.process, "sh", "-c", tried)
        assert done.stdout.split() == ["/var/lib/mcastd", "/run/mcastd", "/tmp"]  # noqa: S108 - of the container


def test_the_image_has_no_sources_and_accepts_its_own_configuration(testbed: Testbed, directory: Path, image: Image) -> None:
    container = Container(image, Limits(tuple(router()["cap_add"]), binds=volumes_of_docker(image, directory)))
    with routing(testbed, Family.IPV4, directory, container) as made:
        process = made.daemon.process
        done = container.execute(process, "mcastd", "check")
        assert done.returncode == 0, done.stderr
        where = (
            "import mcastd, mcastd.kernel._native, mcast; print(mcastd.__file__, mcastd.kernel._native.__file__, *mcast.__path__)"
        )
        done = container.execute(process, "python", "-P", "-c", where)
        assert done.returncode == 0, done.stderr
        assert all(path.startswith("/opt/mcastd/lib/python3.") for path in done.stdout.split()), done.stdout
        assert not (image.root / "src").exists()
        assert not (image.root / "wheels").exists()
