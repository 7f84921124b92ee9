"""The configuration in force: read at the start and at each reload, checked whole, applied as one write.

What is broken changes nothing: what owner "config" has asked for before stays in force, across restarts too, since it is stored
like everything else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from mcastd.core.engine import Engine
from mcastd.model.errors import McastdError, Reason
from mcastd.model.limits import Limits
from mcastd.model.principal import Principal
from mcastd.model.rule import Rule
from mcastd.model.settings import Settings
from mcastd.model.write import Outcome, Write
from mcastd.runtime.tasks import spawn
from mcastd.sources.config import Configuration, read_configuration
from mcastd.sources.faults import BadConfiguration

ApplyRules = Callable[[Sequence[Rule]], Awaitable[None]]

_log = logging.getLogger(__name__)


class Configurator:
    """Reads the file and has the writer put it in force."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        write: Callable[[Write], Awaitable[Outcome]],
        wake: Callable[[], None],
        apply_rules: ApplyRules | None = None,
    ) -> None:
        """Nothing is read yet. `wake` tells that limits have changed; `apply_rules` makes the kernel's policy rules these."""
        self._settings = settings
        self._engine = engine
        self._write = write
        self._wake = wake
        self._apply_rules = apply_rules
        self._one_at_a_time = asyncio.Lock()
        self._asked = asyncio.Event()
        self.around_reload: Callable[[], AbstractContextManager[None]] = nullcontext
        """Entered while the configuration is being read and put in force again."""
        self.on_principals: Callable[[Mapping[str, Principal]], None] = lambda _: None
        """Called with what the configuration says of clients with certificates, whenever it is read anew."""
        self.on_reload: Callable[[], None] = lambda: None
        """Called when a configuration has been put in force again."""
        self.on_faulty: Callable[[], None] = lambda: None
        """Called when a server that follows another can't put the configuration in force: what is not stored is as before."""
        self._unstored = False
        """Whether it could not be stored at the start, nor since."""
        self.tables: frozenset[int] = frozenset()
        """Tables that the configuration describes: they are not closed though nothing uses them."""

    async def start(self, *, restarted: bool) -> None:
        """Put the configuration in force for the first time; `restarted`: an earlier server of this daemon has done it.

        McastdError if it can't be used, unless restarted: then what is stored stays in force. So it does where nothing can be
        stored: then all that never is stored is put in force, and the rest when `resume` is called.
        """
        self._unstored = False
        try:
            if self._settings.config:
                await self._apply(await self._read(), starting=True)
            elif not restarted:
                await self._forget()
        except BadConfiguration as exc:
            _tell(exc)
            if not restarted:
                raise
            self.on_faulty()
        except McastdError as exc:
            _log.error("the configuration can't be put in force", extra={"reason": exc.reason.value, "error": str(exc)})
            self._unstored = exc.reason is Reason.STORE_UNAVAILABLE
            if not restarted and not self._unstored:
                raise
            if not self._unstored:
                self.on_faulty()

    def resume(self) -> None:
        """Writes can be stored again: have `run` put in force what could not be at the start."""
        if self._unstored:
            self._asked.set()

    async def reload(self, *, validate_only: bool = False) -> Outcome:
        """Read it again and put the difference in force, whether or not the caller stays; McastdError if nothing was changed."""
        return await asyncio.shield(spawn(self._observed_reload(validate_only=validate_only), "reload"))

    def ask(self) -> None:
        """Have `run` reload it soon."""
        self._asked.set()

    async def run(self) -> None:
        """Reload when asked, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.reload()
            except McastdError as exc:
                if not isinstance(exc, BadConfiguration):  # which has been told, fault by fault
                    _log.error("the configuration was not reloaded", extra={"reason": exc.reason.value, "error": str(exc)})

    async def _observed_reload(self, *, validate_only: bool) -> Outcome:
        with nullcontext() if validate_only else self.around_reload():
            return await self._reload(validate_only=validate_only)

    async def _reload(self, *, validate_only: bool) -> Outcome:
        if not self._settings.config and self._unstored and not validate_only:
            outcome = await self._forget()
            self._unstored = False
            return outcome
        if not self._settings.config:
            text = "there is no configuration file to read: start mcastd with --config FILE"
            raise McastdError(Reason.INVALID_VALUE, text, field="config", value="")
        async with self._one_at_a_time:
            try:
                configuration = await self._read()
            except BadConfiguration as exc:
                _tell(exc)
                raise
            if validate_only:
                return await self._write(configuration.write(validate_only=True))
            outcome = await self._apply(configuration)
            self._unstored = False
            self._tell_of_restart(configuration.marks)
        self.on_reload()
        return outcome

    async def _read(self) -> Configuration:
        """In a thread: some 30 microseconds a route."""
        return await asyncio.to_thread(read_configuration, self._settings.config, self._settings.user)

    async def _forget(self) -> Outcome:
        """The daemon was started without a file: nobody else could delete what an earlier one has asked for."""
        outcome = await self._write(Configuration().write())
        if outcome.intent:
            _log.warning(
                "there is no configuration file any more: what it had asked for is removed", extra={"routes": outcome.deleted}
            )
        await self._set_rules([])
        return outcome

    async def _apply(self, configuration: Configuration, *, starting: bool = False) -> Outcome:
        """Put it in force; McastdError: nothing was, but at the start what is never stored, if that is the reason."""
        before = self._engine.limits
        self._set_limits(configuration.limits)
        try:
            outcome = await self._write(configuration.write())
        except McastdError as exc:
            if starting and exc.reason is Reason.STORE_UNAVAILABLE:
                await self._apply_unstored(configuration)
            else:
                self._set_limits(before)
            raise
        await self._apply_unstored(configuration)
        _tell_of_refused(configuration, outcome)
        return outcome

    async def _apply_unstored(self, configuration: Configuration) -> None:
        self.tables = configuration.tables
        self.on_principals(configuration.principals)
        await self._set_rules(configuration.rules)

    async def _set_rules(self, rules: Sequence[Rule]) -> None:
        if self._apply_rules is None:
            return
        try:
            await self._apply_rules(rules)
        except McastdError as exc:
            _log.error("policy rules could not be put in force", extra={"reason": exc.reason.value, "error": str(exc)})

    def _set_limits(self, limits: Limits) -> None:
        engine, before = self._engine, self._engine.limits
        if limits == before:
            return
        engine.limits, engine.routes_max = limits, limits.routes_max
        engine.joins.allow(limits.memberships_max)
        if limits.learned_max != before.learned_max:  # which the keeper has been told of with each template
            for kernel in engine.tables.values():
                kernel.unsent.update(dict.fromkeys(kernel.templates.values()))
        self._wake()

    def _tell_of_restart(self, marks: Mapping[str, int]) -> None:
        """What has changed in the file since the daemon started, and waits for its next start."""
        started_with = self._settings.marks
        changed = sorted(name for name in {*marks, *started_with} if marks.get(name) != started_with.get(name))
        if changed:
            _log.warning(
                "settings have changed that are read at the start alone: restart mcastd (systemctl restart mcastd) to use them",
                extra={"settings": ", ".join(changed)},
            )


def _tell_of_refused(configuration: Configuration, outcome: Outcome) -> None:
    """What is in force, and one line for each route that is not."""
    refused = [(change.id, change.problem) for change in outcome.changes if change.problem is not None]
    keys = list(configuration.routes) if refused else []
    for at, problem in refused:
        _log.warning(
            "a route of the configuration is refused",
            extra={"place": configuration.place(keys[at]), "reason": problem.reason.value, "error": problem.message},
        )
    _log.info(
        "the configuration is in force",
        extra={
            "files": len(configuration.files),
            "routes_added": outcome.created,
            "routes_changed": outcome.updated,
            "routes_removed": outcome.deleted,
            "routes_unchanged": outcome.unchanged,
            "routes_refused": outcome.refused,
            "joins": len(configuration.joins),
            "rules": len(configuration.rules),
        },
    )


def _tell(error: BadConfiguration) -> None:
    """One line for each fault."""
    for fault in error.faults:
        _log.error("the configuration can't be used", extra={"place": fault.place, "key": fault.key, "error": fault.message})
    if error.more:
        _log.error("the configuration has more faults", extra={"at_least": error.more})
