"""Settings as they travel over the channel."""

import json

import pytest

from mcastd.model.errors import McastdError, Reason
from mcastd.model.limits import Limits
from mcastd.model.settings import Access, Listen, Settings, metrics_host_port

SETTINGS = Settings(
    listens=(Listen("/a", 0o666, 5, Access.VIEW, "lab"), Listen("/b"), Listen("/c", gid=3), Listen("/d", gid=5)),
    state_dir="/state",
    user="mcastd",
    uid=990,
    gid=991,
    change_user=True,
    metrics="[::1]:1",
    limits=Limits(1, 2, 3, 4.5, stop_unrouted=False, other_tables=frozenset({9, 7})),
    tables=(7, 8),
    config="/etc/mcastd.toml",
)


def test_settings_come_back() -> None:
    assert Settings.from_json(json.loads(json.dumps(SETTINGS.to_json()))) == SETTINGS


@pytest.mark.parametrize(
    "change",
    [
        {"listens": [{"path": "/a", "access": 9}]},
        {"listens": 3},
        {"tables": ["x"]},
        {"listens": [{}]},
        {"limits": {}},
        {"limits": 3},
    ],
)
def test_other_values_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(McastdError) as caught:
        Settings.from_json(SETTINGS.to_json() | change)
    assert caught.value.reason is Reason.INVALID_VALUE


def test_missing_values_are_refused() -> None:
    with pytest.raises(McastdError):
        Settings.from_json({})


def test_groups_of_sockets_are_each_named_once() -> None:
    assert SETTINGS.socket_gids() == (3, 5)


def test_address_as_grpc_writes_it() -> None:
    assert SETTINGS.listens[0].address == "unix:/a"


@pytest.mark.parametrize("text,pair", [("127.0.0.1:9797", ("127.0.0.1", 9797)), ("[::1]:0", ("::1", 0)), (":9797", ("", 9797))])
def test_metrics_addresses(text: str, pair: tuple[str, int]) -> None:
    assert metrics_host_port(text) == pair


@pytest.mark.parametrize("text", ["", "9797", "host:", "host:x", "host:65536", "::1:9797", "host:-1", "host:²"])
def test_what_is_no_metrics_address(text: str) -> None:
    with pytest.raises(ValueError):
        metrics_host_port(text)
