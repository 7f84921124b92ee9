"""The manifests: valid in the versions that matter, closed, and in agreement with program and image."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import mcastd
from mcastd.cli.flags import DEFAULT_CONFIG
from mcastd.cli.mcastd import parser
from mcastd.keeper.ending import KILL_AFTER
from mcastd.model.settings import DEFAULT_SOCKET, DEFAULT_STATE_DIR
from tests.deploy.dockerfile import stages
from tests.deploy.manifests import KUBERNETES, VARIANTS, Object, added, configuration, containers, load, pod

VERSIONS = ("1.29", "1.33", "1.37")
"""The first in which sidecars need no feature gate, the one in which they are stable, the newest that the validator knows."""

MANIFESTS = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")
CONTAINERS = [pytest.param(variant, name, id=f"{variant}-{name}") for variant in VARIANTS for name in containers(variant)]
KEEPERS = {("daemonset", "mcastd"), ("keeper-sidecar", "keeper")}
"""Containers that hold the kernel's sockets."""
SERVERS = {("daemonset", "mcastd"), ("keeper-sidecar", "server")}

every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_container = pytest.mark.parametrize("variant,name", CONTAINERS)


def validate(version: str, *paths: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "kubernetes_validate", "-k", version, "--strict", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version: str) -> None:
    done = validate(version, *MANIFESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed ") == len(MANIFESTS)


@pytest.mark.parametrize(
    "right,wrong", [("readOnlyRootFilesystem", "readonlyRootFilesystem"), ("periodSeconds: 5", "periodSeconds: x")]
)
def test_a_wrong_manifest_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    text = (KUBERNETES / "daemonset/daemonset.yaml").read_text("utf-8")
    assert right in text
    (tmp_path / "daemonset.yaml").write_text(text.replace(right, wrong))
    assert validate(VERSIONS[0], tmp_path / "daemonset.yaml").returncode != 0


@every_variant
def test_kustomization_names_what_is_there(variant: str) -> None:
    content = load(KUBERNETES / variant / "kustomization.yaml")
    assert content["resources"] == ["../common", "daemonset.yaml"]
    assert content["images"] == [{"name": "mcastd", "newTag": mcastd.__version__}]
    common = load(KUBERNETES / "common/kustomization.yaml")
    assert sorted(common["resources"]) == sorted(path.name for path in MANIFESTS if path.parent.name == "common")
    assert {content["namespace"], common["namespace"]} == {load(KUBERNETES / "common/namespace.yaml")["metadata"]["name"]}


@every_variant
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_it(variant: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / variant)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    assert [one["kind"] for one in objects] == ["Namespace", "ConfigMap", "DaemonSet"]
    assert {one["metadata"].get("namespace", "mcastd") for one in objects} == {"mcastd"}
    assert objects[-1]["spec"]["template"]["spec"] == pod(variant)


@every_variant
def test_the_pod_has_the_hosts_network_and_nothing_else_of_it(variant: str) -> None:
    spec = pod(variant)
    assert spec["hostNetwork"] is True
    assert spec["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "hostPID" not in spec
    assert "hostIPC" not in spec
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@every_variant
def test_nothing_replaces_a_pod_but_somebody_who_means_it(variant: str) -> None:
    assert load(KUBERNETES / variant / "daemonset.yaml")["spec"]["updateStrategy"] == {"type": "OnDelete"}


@every_variant
def test_labels_select_the_pods(variant: str) -> None:
    spec = load(KUBERNETES / variant / "daemonset.yaml")["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


@every_container
def test_a_container_is_closed(variant: str, name: str) -> None:
    context = containers(variant)[name]["securityContext"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert "privileged" not in context


@every_container
def test_keepers_alone_have_capabilities_and_these_two(variant: str, name: str) -> None:
    expected = ("NET_ADMIN", "NET_RAW") if (variant, name) in KEEPERS else ()
    assert added(containers(variant)[name]) == expected


def test_the_server_of_the_sidecars_variant_is_not_root() -> None:
    context = containers("keeper-sidecar")["server"]["securityContext"]
    run = stages()[-1].last("RUN").value
    assert context["runAsNonRoot"] is True
    assert f"--uid {context['runAsUser']} " in run
    assert f"--gid {context['runAsGroup']} " in run
    command = containers("keeper-sidecar")["keeper"]["command"]
    assert command[command.index("--user") + 1] == str(context["runAsUser"])
    assert pod("keeper-sidecar")["securityContext"]["supplementalGroups"] == [context["runAsGroup"]]


def test_the_keeper_is_a_sidecar_that_starts_before_the_server_and_listens_to_nobody_else() -> None:
    keeper = containers("keeper-sidecar")["keeper"]
    assert keeper["restartPolicy"] == "Always"
    assert "ports" not in keeper
    (mount,) = keeper["volumeMounts"]
    (volume,) = [one for one in pod("keeper-sidecar")["volumes"] if one["name"] == mount["name"]]
    assert "emptyDir" in volume


@every_container
def test_commands_are_understood(variant: str, name: str) -> None:
    command = containers(variant)[name].get("command", ["mcastd", "serve"])
    if command[0] == "mcastd":
        parser().parse_args(command[1:])
    else:
        done = subprocess.run([*command[:1], "-n", "-c", command[2]], capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 0, done.stderr


@every_container
def test_the_image_is_this_version(variant: str, name: str) -> None:
    assert containers(variant)[name]["image"] == f"mcastd:{mcastd.__version__}"


def probes(container: Object) -> dict[str, Object]:
    return {name: container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe") if name in container}


@pytest.mark.parametrize("variant,name", sorted(SERVERS))
def test_probes_ask_the_metrics_listener(variant: str, name: str) -> None:
    container = containers(variant)[name]
    paths = {kind: probe["httpGet"]["path"] for kind, probe in probes(container).items()}
    liveness = {} if (variant, name) in KEEPERS else {"livenessProbe": "/healthz"}
    assert paths == {"startupProbe": "/healthz", "readinessProbe": "/readyz"} | liveness
    assert {probe["httpGet"]["port"] for probe in probes(container).values()} == {"metrics"}
    (port,) = [one["containerPort"] for one in container["ports"] if one["name"] == "metrics"]
    (address,) = tomllib.loads(configuration())["metrics"]["address"]
    assert address == f":{port}"  # the kubelet asks at the node's address, of either family
    annotations = load(KUBERNETES / variant / "daemonset.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port)


@pytest.mark.parametrize("variant,name", sorted(KEEPERS))
def test_no_probe_ends_a_keeper_that_forwards(variant: str, name: str) -> None:
    assert "livenessProbe" not in containers(variant)[name]


@pytest.mark.parametrize("variant,name", sorted(KEEPERS))
def test_no_limit_ends_or_delays_a_keeper(variant: str, name: str) -> None:
    assert "limits" not in containers(variant)[name]["resources"]


@every_container
def test_what_is_mounted_is_there(variant: str, name: str) -> None:
    volumes = {one["name"] for one in pod(variant)["volumes"]}
    assert {one["name"] for one in containers(variant)[name]["volumeMounts"]} <= volumes


@pytest.mark.parametrize("variant,name", sorted(SERVERS))
def test_places_are_those_of_the_program(variant: str, name: str) -> None:
    places = {one["mountPath"] for one in containers(variant)[name]["volumeMounts"]}
    assert {DEFAULT_STATE_DIR, str(Path(DEFAULT_SOCKET).parent), str(Path(DEFAULT_CONFIG).parent)} <= places


def test_configuration_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / Path(DEFAULT_CONFIG).name
    file.write_text(configuration(), "utf-8")
    command = [sys.executable, "-m", "mcastd.cli", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=KUBERNETES.parents[1])
    assert done.returncode == 0, done.stderr
    assert re.match(r"files 1, routes 0, ", done.stdout)


@every_variant
def test_there_is_time_for_an_orderly_end(variant: str) -> None:
    assert pod(variant)["terminationGracePeriodSeconds"] > KILL_AFTER + 5
