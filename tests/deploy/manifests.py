"""What the deployment files say, as tests want it."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose.yml"
KUBERNETES = ROOT / "deploy/kubernetes"
VARIANTS = ("daemonset", "keeper-sidecar")

Object = dict[str, Any]


def load(path: Path) -> Object:
    """A YAML file of one document."""
    content: Object = yaml.safe_load(path.read_text("utf-8"))
    return content


def router() -> Object:
    """The service of the compose file."""
    service: Object = load(COMPOSE)["services"]["router"]
    return service


def pod(variant: str) -> Object:
    """The specification of a variant's pods."""
    found: Object = load(KUBERNETES / variant / "daemonset.yaml")["spec"]["template"]["spec"]
    return found


def containers(variant: str) -> dict[str, Object]:
    """All containers of a variant's pods by name, those of the start first."""
    spec = pod(variant)
    return {one["name"]: one for one in [*spec.get("initContainers", []), *spec["containers"]]}


def added(container: Object) -> tuple[str, ...]:
    """The capabilities that a container has."""
    return tuple(container["securityContext"]["capabilities"].get("add", ()))


def configuration() -> str:
    """The configuration file of the ConfigMap."""
    text: str = load(KUBERNETES / "common/configmap.yaml")["data"]["mcastd.toml"]
    return text
