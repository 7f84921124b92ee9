"""ReloadConfiguration over gRPC, on a kernel in memory: what is broken changes nothing, and says where."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.errors import McastdError, Reason
from mcastd.model.limits import Limits
from mcastd.model.rule import Rule
from mcastd.model.settings import Access, Settings
from mcastd.runtime.configuration import Configurator
from mcastd.sources.faults import BadConfiguration
from tests.api.rig import Rig, refused, running
from tests.unit.sources.broken import BROKEN, GOOD

ROUTE = '[[route]]\ngroup = "239.1.1.{}"\nsource = "10.0.0.1"\niif = "up"\noifs = ["down1"]\n'


class Configured:
    """A rig with a configuration file, and the rules that it was told of."""

    def __init__(self, rig: Rig, directory: Path, **settings: Any) -> None:
        self.rig = rig
        self.path = directory / "mcastd.toml"
        self.rules: list[list[Rule]] = []
        self.rules_refused = False
        place = Settings(listens=(), state_dir="/", user="me", uid=0, gid=0, change_user=False, config=str(self.path))
        self.settings = Settings(**{name: getattr(place, name) for name in place.__slots__} | settings)
        daemon = rig.daemon
        self.configurator = Configurator(self.settings, rig.engine, daemon.write, daemon.executor.wake, self._apply)
        daemon.configuration = self.configurator

    async def _apply(self, rules: Any) -> None:
        if self.rules_refused:
            raise McastdError(Reason.KERNEL_ERROR, "no rules here")
        self.rules.append(list(rules))

    async def reload(self, text: str | None = None, **fields: bool) -> sv.ReloadConfigurationResponse:
        """Write the file, and reload."""
        if text is not None:
            self.path.write_text(text, "utf-8")
        answer: sv.ReloadConfigurationResponse = await self.rig.status.ReloadConfiguration(
            sv.ReloadConfigurationRequest(**fields), timeout=20
        )
        return answer


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Configured]:
    async with running(Rig(tmp_path)) as rig:
        yield Configured(rig, tmp_path)


async def test_every_broken_file_changes_nothing_and_is_named(made: Configured) -> None:
    await made.reload(GOOD + ROUTE.format(7))
    rig, desired = made.rig, made.rig.engine.desired
    kernel, rules = rig.entries(), list(made.rules)
    before = (dict(desired.routes), dict(desired.joins), dict(desired.settings), rig.engine.limits, rig.engine.revision)
    for name, (text, line, key, _) in BROKEN.items():
        found = await refused(made.reload(text))
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE"), name
        assert (found.metadata["line"], found.metadata["key"]) == (str(line), key), name
        assert found.metadata["file"].endswith(".toml")
        assert rig.entries() == kernel
        now = (dict(desired.routes), dict(desired.joins), dict(desired.settings), rig.engine.limits, rig.engine.revision)
        assert now == before
        assert made.rules == rules
    made.path.unlink()
    assert "can't be read" in (await refused(made.reload())).message


async def test_what_a_reload_answers(made: Configured) -> None:
    answer = await made.reload(GOOD + ROUTE.format(7))
    assert (answer.result.created, answer.joins_changed, answer.interfaces_changed) == (2, 1, 1)
    assert made.rules == [[Rule(100, "eth2", 7)]]
    assert made.configurator.tables == {100}
    assert [one.status.owner for one in await made.rig.listed()] == ["config", "config"]
    changed = GOOD.replace("232.1.1.1", "232.1.1.2").replace("pinned = true", "pinned = false") + ROUTE.format(7)
    for fields in ({"validate_only": True}, {}):
        answer = await made.reload(changed, **fields)
        result = answer.result
        assert (result.created, result.updated, result.deleted, result.unchanged) == (0, 0, 0, 2)
        assert (answer.joins_changed, answer.interfaces_changed) == (2, 1)
    assert len(made.rules) == 2
    answer = await made.reload("")
    assert (answer.result.deleted, answer.joins_changed, answer.interfaces_changed) == (2, 1, 1)
    assert made.rig.entries() == {}


async def test_limits_hold_at_once(made: Configured) -> None:
    template = t.Route(group="239.2.0.0/16", oifs=[t.Oif(interface="down1")])
    await made.rig.put(template)
    await made.rig.daemon.executor.quiet()
    told = len(made.rig.keeper.templates)
    await made.reload('[daemon]\nidle_timeout = 7\nunrouted = "ignore"\nlearned_max = 3\nroutes_max = 2\n')
    await made.rig.daemon.executor.quiet()
    assert made.rig.engine.limits == Limits(routes_max=2, learned_max=3, idle_timeout=7.0, stop_unrouted=False)
    assert [change.cap for change in made.rig.keeper.templates[told:]] == [3]
    # More than the new limit allows: neither the routes nor the limit.
    found = await refused(made.reload("[daemon]\nroutes_max = 1\n" + "".join(map(ROUTE.format, range(3)))))
    assert found.reason == "ROUTE_LIMIT"
    assert made.rig.engine.routes_max == made.rig.engine.limits.routes_max == 2


async def test_what_waits_for_a_restart_is_told(made: Configured, caplog: pytest.LogCaptureFixture) -> None:
    await made.reload('[daemon]\nuser = "a"\nidle_timeout = 9\n[metrics]\nflows_top = 3\n')
    (record,) = [record for record in caplog.records if "read at the start alone" in record.message]
    assert record.settings == "daemon.user, metrics.flows_top"  # type: ignore[attr-defined]


async def test_rules_that_are_refused_do_not_undo_the_rest(made: Configured, caplog: pytest.LogCaptureFixture) -> None:
    made.rules_refused = True
    assert (await made.reload(GOOD)).result.created == 1
    assert "policy rules could not be put in force" in caplog.text


async def test_a_route_of_another_owner_is_refused_with_its_place(made: Configured, caplog: pytest.LogCaptureFixture) -> None:
    await made.rig.put(t.Route(group="239.1.1.3", source="10.0.0.1", iif="up"))
    answer = await made.reload("".join(map(ROUTE.format, range(2, 5))))
    assert (answer.result.created, answer.result.failed) == (2, 1)
    (record,) = [record for record in caplog.records if "is refused" in record.message]
    assert (record.place, record.reason) == (f"{made.path}:6", "OWNED_BY_OTHER")  # type: ignore[attr-defined]


async def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path) -> None:
    async with running(Rig(tmp_path)) as rig:
        made = Configured(rig, tmp_path, config="")
        assert "--config" in (await refused(made.reload())).message
        rig.daemon.configuration = None
        assert "no configuration file" in (await refused(made.reload())).message


async def test_reload_needs_admin_access(tmp_path: Path) -> None:
    async with running(Rig(tmp_path, access=Access.WRITE)) as rig:
        assert (await refused(Configured(rig, tmp_path).reload(""))).reason == "NOT_ALLOWED"


async def test_the_first_start_needs_a_sound_file_and_a_restart_does_not(made: Configured) -> None:
    made.path.write_text("x = 1\n")
    with pytest.raises(BadConfiguration):
        await made.configurator.start(restarted=False)
    await made.configurator.start(restarted=True)
    made.path.write_text(ROUTE.format(1))
    await made.configurator.start(restarted=True)
    assert len(made.rig.entries()) == 1


async def test_a_start_without_a_file_forgets_what_one_has_said(made: Configured, tmp_path: Path) -> None:
    await made.reload(GOOD + ROUTE.format(7))
    without = Configured(made.rig, tmp_path, config="")
    await without.configurator.start(restarted=True)
    assert len(made.rig.engine.desired.routes) == 2
    await without.configurator.start(restarted=False)
    assert (made.rig.engine.desired.routes, made.rig.engine.desired.joins, made.rig.entries()) == ({}, {}, {})
    assert without.rules == [[]]
