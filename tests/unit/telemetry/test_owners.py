"""mcastd.telemetry.owners: what is told of owners while their sessions come and go."""

from mcastd.model.record import Lease, OnExpiry
from mcastd.model.write import BeginSync, EndSession, OpenSession, Program, PutRoutes, Write, WriteOptions
from mcastd.telemetry.owners import owner_families
from tests.fakerouter import Router, route, sg

SDN = WriteOptions("sdn")


def told(router: Router) -> dict[str, float]:
    """Samples by name, without the prefix, and owner."""
    return {
        " ".join([sample.name.removeprefix("mcastd_"), *sample.labels.values()]): sample.value
        for family in owner_families(router.engine.desired)
        for sample in family.samples
    }


def write(router: Router, *writes: Write) -> dict[str, float]:
    """Carry out writes; what is told then."""
    for one in writes:
        router.write(one)
    return told(router)


def test_owners_and_their_sessions() -> None:
    router = Router("up", "down")
    assert told(router) == {"sessions": 0}
    assert write(router, PutRoutes(WriteOptions("alice"), [route(sg(1), "up", "down")])) == {
        "sessions": 0,
        "owner_routes alice": 1,
        "owner_stale_routes alice": 0,
        "owner_connected alice": 0,
        "owner_hold_until_timestamp_seconds alice": 0,
    }
    ops: list[tuple[int, object]] = [(n, route(sg(n), "up", "down", owner="sdn")) for n in (2, 3)]
    opened = OpenSession(SDN, 1, Lease(120.0, OnExpiry.WITHDRAW))
    now = write(router, opened, Program(SDN, 1, ops))  # type: ignore[arg-type] # Lists do not vary.
    assert (now["sessions"], now["owner_routes sdn"], now["owner_stale_routes sdn"], now["owner_connected sdn"]) == (1, 2, 0, 1)
    now = write(router, BeginSync(SDN, 1))
    assert (now["owner_stale_routes sdn"], now["owner_hold_until_timestamp_seconds sdn"]) == (2, 0)
    now = write(router, EndSession(SDN, 1, 1000.0))
    assert (now["sessions"], now["owner_connected sdn"], now["owner_stale_routes sdn"]) == (0, 0, 2)
    assert now["owner_hold_until_timestamp_seconds sdn"] == 1120.0
