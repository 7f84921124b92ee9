"""The compose file of one router: valid, closed, and in agreement with the image."""

import subprocess
import sys
from pathlib import Path

import mcastd
from mcastd.cli.flags import DEFAULT_CONFIG
from mcastd.keeper.ending import KILL_AFTER
from mcastd.model.settings import DEFAULT_SOCKET, DEFAULT_STATE_DIR
from tests.deploy.dockerfile import DOCKERFILE, stages
from tests.deploy.manifests import COMPOSE, load, router


def test_it_is_valid() -> None:
    # The schema of github.com/compose-spec/compose-spec comes with the package; nothing is fetched.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_is_closed() -> None:
    service = router()
    assert service["cap_drop"] == ["ALL"]
    assert service["cap_add"] == ["NET_ADMIN", "NET_RAW", "SETUID", "SETGID", "KILL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service


def test_it_routes_between_the_interfaces_of_the_host() -> None:
    service = router()
    assert service["network_mode"] == "host"
    assert "ports" not in service


def test_it_builds_and_runs_this_version() -> None:
    service = router()
    build = {name: COMPOSE.parent / service["build"][name] for name in ("context",)}
    assert build["context"].resolve() / service["build"]["dockerfile"] == DOCKERFILE
    assert service["image"] == f"mcastd:{mcastd.__version__}"


def test_volumes_are_where_the_program_looks() -> None:
    mounted = {}
    for text in router()["volumes"]:
        source, place, *options = text.split(":")
        mounted[place] = (source, options)
    assert set(mounted) == {DEFAULT_STATE_DIR, str(Path(DEFAULT_SOCKET).parent), str(Path(DEFAULT_CONFIG).parent)}
    source, options = mounted.pop(str(Path(DEFAULT_CONFIG).parent))
    assert (COMPOSE.parent / source / Path(DEFAULT_CONFIG).name).is_file()
    assert options == ["ro"]
    assert {name for name, _ in mounted.values()} == load(COMPOSE)["volumes"].keys()


def test_health_is_asked_as_the_image_does() -> None:
    image = stages()[-1].last("HEALTHCHECK").value
    health = router()["healthcheck"]
    assert health["test"][0] == "CMD"
    assert health["test"][1:] == ["mcastctl", "status", "--output", "name"]
    for word in health["test"][1:]:
        assert f'"{word}"' in image
    for name in ("interval", "timeout", "start_period", "retries"):
        assert f"--{name.replace('_', '-')}={health[name]}" in image


def test_there_is_time_for_an_orderly_end() -> None:
    assert float(router()["stop_grace_period"].removesuffix("s")) > KILL_AFTER + 5
