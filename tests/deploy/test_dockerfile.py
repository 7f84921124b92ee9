"""The Dockerfile: pinned, small, without secrets, and in agreement with the rest of the tree."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mcastd
from mcastd.cli.flags import DEFAULT_CONFIG
from mcastd.model.settings import DEFAULT_SOCKET, DEFAULT_STATE_DIR
from tests.deploy.dockerfile import DOCKERFILE, ROOT, Stage, context, stages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONSTRAINTS = ROOT / "deploy/container/constraints.txt"
CONFIGURATION = ROOT / "deploy/container/etc/mcastd.toml"

BUILD, FINAL = stages()


def test_bases_are_one_exact_release() -> None:
    match = re.fullmatch(r"python:3\.(\d+)\.\d+-slim-[a-z]+", FINAL.base)
    assert match is not None, FINAL.base
    assert BUILD.base == FINAL.base
    assert int(match[1]) >= int(PROJECT["requires-python"].removeprefix(">=3."))


def test_labels_are_those_of_open_containers() -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in FINAL.labels().items()}
    assert labels["base.name"] == f"docker.io/library/{FINAL.base}"
    assert labels["licenses"] == PROJECT["license"]
    assert labels["title"] == PROJECT["name"]
    assert labels["description"].startswith(PROJECT["description"].split(" that ")[0].split(" for ")[0])
    assert (labels["version"], labels["revision"]) == ("$VERSION", "$REVISION")
    assert {"VERSION": mcastd.__version__}.items() <= {k: v for one in FINAL.all("ARG") for k, v in one.pairs().items()}.items()
    assert f"mcastd:{mcastd.__version__} " in DOCKERFILE.read_text("utf-8")


@pytest.mark.parametrize("stage", [BUILD, FINAL], ids=["build", "final"])
def test_there_are_no_secrets_and_nothing_is_fetched_by_address(stage: Stage) -> None:
    for one in stage.instructions:
        assert one.name != "ADD"
        assert not re.search(r"password|passwd|secret|token|https?://|api_?key", one.value, re.IGNORECASE), one


def test_last_stage_installs_nothing() -> None:
    for one in FINAL.all("RUN"):
        assert not re.search(r"\b(apt|apt-get|pip|gcc|curl|wget)\b", one.value), one
    assert [one.words()[0] for one in FINAL.all("COPY")] == ["--from=build", "deploy/container/etc"]


def test_apt_leaves_no_lists() -> None:
    for one in BUILD.all("RUN"):
        if "apt-get install" in one.value:
            assert "--no-install-recommends" in one.value
            assert one.value.endswith("rm -rf /var/lib/apt/lists/*")


def test_programs_are_executed_without_a_shell() -> None:
    """A shell as process 1 would pass no signals on."""
    command = FINAL.last("ENTRYPOINT").words() + FINAL.last("CMD").words()
    assert command == ["mcastd", "serve"]
    health = FINAL.last("HEALTHCHECK").value.partition("CMD ")[2]
    assert health.startswith('["mcastctl", "status"')
    assert {"mcastd", "mcastctl"} <= PROJECT["scripts"].keys()
    assert FINAL.last("STOPSIGNAL").value == "SIGTERM"
    assert FINAL.all("USER") == []


def test_places_are_those_of_the_program() -> None:
    run, state = str(Path(DEFAULT_SOCKET).parent), DEFAULT_STATE_DIR
    assert FINAL.last("VOLUME").words() == [state, run]
    made = FINAL.last("RUN").value
    assert f" {run}" in made
    assert f" {state}" in made
    assert FINAL.all("COPY")[-1].words()[-1] == str(Path(DEFAULT_CONFIG).parent)


def test_configuration_of_the_image_goes_with_its_user() -> None:
    content = tomllib.loads(CONFIGURATION.read_text("utf-8"))
    (listen,) = content["daemon"]["listen"]
    assert listen == f"unix:{DEFAULT_SOCKET},group=mcastd"
    assert re.search(r"groupadd --gid (\d+) mcastd .*useradd --system --uid \1 --gid mcastd", FINAL.last("RUN").value)
    (address,) = content["metrics"]["address"]
    assert FINAL.last("EXPOSE").value == f"{address.rpartition(':')[2]}/tcp"


def test_context_has_what_is_built_and_nothing_else() -> None:
    files = {path.as_posix() for path in context()}
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "clients/python/proto", "mcastd/py.typed"} <= files
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "proto").rglob("*.proto")} <= files
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "mcastd").rglob("*.py")} <= files
    assert {path.split("/")[0] for path in files} == {
        *("clients", "deploy", "docs", "mcastd", "proto"),
        *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"),
    }
    built = re.compile(r"\.(so|o|pyc|binpb)$|_pb2|egg-info|__pycache__|_native\.c$")
    assert [path for path in files if built.search(path)] == []


def pins() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.read_text("utf-8").splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def closure() -> dict[str, list[Requirement]]:
    """All that is needed at run time by name, and what is asked of it."""
    found: dict[str, list[Requirement]] = {}
    waiting = [Requirement(text) for text in PROJECT["dependencies"]]
    while waiting:
        one = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(one.name)
        if name not in found:
            waiting += [Requirement(text) for text in importlib.metadata.requires(name) or ()]
        found.setdefault(name, []).append(one)
    return found


def test_all_that_is_needed_is_pinned_to_what_goes_together() -> None:
    needed = closure()
    del needed["mcast-client"]  # of this repository
    assert pins().keys() == needed.keys()
    for one in map(Requirement, PROJECT["dependencies"]):  # What these ask for depends on their versions.
        version = pins().get(canonicalize_name(one.name))
        assert version is None or one.specifier.contains(version), (one, version)
