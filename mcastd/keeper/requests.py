"""What the server asks of the keeper: the closed list of the channel, each with its answer in the outbox."""

import logging
from collections.abc import Callable, Mapping

from mcastd.keeper.actions import Actions
from mcastd.keeper.channel import (
    ChannelError,
    Frame,
    Message,
    discard,
    encode,
    error_values,
    take_family,
    take_int,
    take_vif_entries,
)
from mcastd.keeper.controls import KINDS, Controls
from mcastd.keeper.held import Held, take_name, take_request
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.rules import PolicyRules
from mcastd.keeper.tables import MrouteSocket, Tables
from mcastd.keeper.templates import TOLD_MAX, read_learned, read_templates, told_values
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.router_discovery import CONTROL_NUMBER_MAX
from mcastd.model.settings import TABLE_MAX

_Do = Callable[[Frame], tuple[dict[str, object], tuple[int, ...]]]
"""Does what a frame asks: values and descriptors of the reply, or a McastdError."""

_log = logging.getLogger(__name__)


class Requests:
    """Answers frames from the server."""

    def __init__(
        self,
        tables: Tables,
        outbox: Outbox,
        on_ready: Callable[[], None],
        on_shutdown: Callable[[bool], None],
        on_word: Callable[[Frame], None] = lambda _: None,
    ) -> None:
        """Work on these; the callables take the messages that are the loop's own. `on_word` hears PONG and NOTIFY."""
        self._tables = tables
        self._outbox = outbox
        self._on_ready = on_ready
        self._on_shutdown = on_shutdown
        self._on_word = on_word
        self.remember: Callable[[Message, bytes], None] = lambda _message, _body: None
        """Called with what a server has said, once it is so and before that is answered."""
        self.controls = Controls()
        """Control sockets that servers have asked for."""
        self.held = Held()
        """Descriptors that are kept for servers to come."""
        self.rules = PolicyRules()
        """Policy rules that servers have asked for."""
        self.actions = Actions()
        """What runs the action script."""
        self._answered: Mapping[Message, _Do] = {
            Message.VIF_MAP: self._set_vif_map,
            Message.OPEN_TABLE: self._open_table,
            Message.CLOSE_TABLE: self._close_table,
            Message.TEMPLATES: self._set_templates,
            Message.OPEN_CONTROL: self._open_control,
            Message.STORE_FD: self._store_fd,
            Message.RULE: self._change_rule,
            Message.TELL_TEMPLATES: self._tell_templates,
        }

    def handle(self, frame: Frame) -> None:
        """Do what one frame asks; ChannelError if it is not something a server may say."""
        if frame.fds and frame.message is not Message.STORE_FD:
            discard(frame.fds)
            raise ChannelError(f"{frame.message.name} has descriptors")
        do = self._answered.get(frame.message)
        if do is not None:
            self._answer(frame, do)
            return
        match frame.message:
            case Message.READY:
                self._on_ready()
            case Message.SHUTDOWN:
                self._on_shutdown(frame.values().get("keep_forwarding") is True)
            case Message.PONG | Message.NOTIFY:
                self._on_word(frame)
            case Message.PREPARED:
                pass  # It was started alone, and has its HELLO already.
            case Message.LEARNED:
                self._set_learned(frame)
                self.remember(frame.message, frame.body)
            case Message.RUN_ACTION:
                self.actions.run(frame.body)
            case Message.DROP_FD:
                self.held.drop(take_name(frame.values()))
                self.remember(frame.message, frame.body)
            case _:
                msg = f"{frame.message.name} is not for a server to say"
                raise ChannelError(msg)

    def _answer(self, frame: Frame, do: _Do) -> None:
        try:
            values, fds = do(frame)
            self.remember(frame.message, frame.body)
        except McastdError as exc:
            _log.warning("a request of the server is refused", extra={"request": frame.message.name, "error": str(exc)})
            values, fds = error_values(exc), ()
        self._outbox.add_message(encode(Message.REPLY, frame.request, values), fds)

    def _set_vif_map(self, frame: Frame) -> tuple[dict[str, object], tuple[int, ...]]:
        """Keep the map, and move all queued upcalls ahead of the reply: none that comes later names a number left out."""
        values = frame.values()
        entries = take_vif_entries(values)
        one = self._open_socket(take_int(values, "table", 0, TABLE_MAX), take_family(values))
        one.vif_map = entries
        self._tables.drain(one)
        return {}, ()

    def _open_table(self, frame: Frame) -> tuple[dict[str, object], tuple[int, ...]]:
        sockets = self._tables.open(take_int(frame.values(), "table", 0, TABLE_MAX))
        return {}, tuple(one.sock.fileno() for one in sockets)

    def _close_table(self, frame: Frame) -> tuple[dict[str, object], tuple[int, ...]]:
        self._tables.close(take_int(frame.values(), "table", 1, TABLE_MAX))
        return {}, ()

    def _set_templates(self, frame: Frame) -> tuple[dict[str, object], tuple[int, ...]]:
        """Put templates in force; records of what older ones answered are ahead of the reply."""
        body = read_templates(frame.body)
        self._tables.take(self._open_socket(body.table, body.family), body.flags, body.templates)
        return {}, ()

    def _tell_templates(self, frame: Frame) -> tuple[dict[str, object], tuple[int, ...]]:
        """A few at a time: between two of these messages upcalls have their turn."""
        values = frame.values()
        one = self._open_socket(take_int(values, "table", 0, TABLE_MAX), take_family(values))
        told = one.fastpath.tell(take_int(values, "first", 0, 2**32), TOLD_MAX)
        return told_values(one.table, one.family, told, len(one.fastpath)), ()

    def _set_learned(self, frame: Frame) -> None:
        table, family, counts = read_learned(frame.body)
        one = self._tables.get(table, family)
        if one is not None:
            one.fastpath.correct(counts)

    def _open_control(self, frame: Frame) -> tuple[dict[str, object], tuple[int, ...]]:
        values = frame.values()
        kind = values.get("kind")
        if kind not in KINDS:
            raise ChannelError(f"there is no control socket of kind {kind!r}")
        sock = self.controls.open(kind, take_family(values), take_int(values, "number", 0, CONTROL_NUMBER_MAX))
        return {}, (sock.fileno(),)

    def _store_fd(self, frame: Frame) -> tuple[dict[str, object], tuple[int, ...]]:
        try:
            request = take_request(frame.values())
        except ChannelError:
            discard(frame.fds)
            raise
        try:
            self.held.store(request, frame.fds)
        except McastdError as exc:
            if exc.reason is Reason.INVALID_VALUE:  # No server sends such a thing, unless it is in strange hands.
                raise ChannelError(str(exc)) from exc
            raise
        return {}, ()

    def _change_rule(self, frame: Frame) -> tuple[dict[str, object], tuple[int, ...]]:
        self.rules.change(frame.values())
        return {}, ()

    def _open_socket(self, table: int, family: Family) -> MrouteSocket:
        one = self._tables.get(table, family)
        if one is None:
            message = f"table {table} is not open in {family.name}: open it first"
            raise McastdError(Reason.NOT_FOUND, message, table=table, family=family.name)
        return one
