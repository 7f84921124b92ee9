"""One session: a reader that turns messages into writes, ahead of the answers, and answers in the order of the messages.

What is under way is bounded: beyond it nothing is read, which the client's gRPC feels. Tasks end with the call.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcastd.api import fields, present
from mcastd.api.acks import acks, all_refused, exceptions, in_order
from mcastd.api.entry import Entry
from mcastd.api.ops import OpReader, check_batch
from mcastd.api.ports import Context, DaemonPort
from mcastd.model.effect import BATCH
from mcastd.model.errors import McastdError, Reason
from mcastd.model.write import BeginSync, Change, EndSync, Outcome, Program, Write, WriteOptions

WRITES_MAX = 16
"""Writes of one session that are under way: what the disk takes in one transaction, and no more than a share of the queue."""

OPS_MAX = 64_000
"""Operations of one session that are under way."""

PATIENCE = 30.0
"""Seconds that an answer may wait for its reader."""

LAST_PATIENCE = 1.0
"""The same, once the session is ending."""

_ENDS = frozenset({Reason.SUPERSEDED, Reason.STALE_EPOCH, Reason.SHUTTING_DOWN})
"""What ends the session; any other refusal concerns one write."""

_Result = Outcome | McastdError


@dataclass(slots=True)
class _Step:
    """What a message asks for, and what is to be answered."""

    kind: type[Program] | type[BeginSync] | type[EndSync]
    task: "asyncio.Task[_Result] | None" = None
    """None = there is nothing to try."""
    ids: tuple[int, ...] = ()
    """Of the operations that are tried."""
    refused: tuple[Change, ...] | list[Change] = ()
    """Operations that are not."""
    through: int = 0
    """The last id that this and what came before has."""


class Session:
    """A session that was opened, until its stream ends."""

    def __init__(
        self, daemon: DaemonPort, options: WriteOptions, number: int, ops: OpReader, context: Context, entry: Entry | None = None
    ) -> None:
        """Its number is the one it was opened with; what it writes is noted in the entry."""
        self.owner = options.owner
        self.number = number
        self._daemon = daemon
        self._options = options
        self._ops = ops
        self._context = context
        if entry is None:
            entry = Entry()
            entry.routes_max = options.owner_routes_max
        self._entry = entry
        self._tasks = asyncio.TaskGroup()
        self._reader: asyncio.Task[None] | None = None
        self._steps: asyncio.Queue[_Step | None] = asyncio.Queue()
        self._under_way = self._ops_under_way = 0
        self._answered = asyncio.Event()
        self._last_id = 0
        self._syncing = False
        self._sync_failure: McastdError | None = None
        """What was refused as a whole since the replay began: it has not refreshed what it should have."""
        self._why: McastdError | None = None
        """Why it ends, if not because the client has closed."""
        self._sending: asyncio.Timeout | None = None

    def stop(self, why: McastdError) -> None:
        """End it: nothing more is read, what was read is answered if that can be done soon."""
        if self._why is None:
            self._why = why
        if self._reader is not None:
            self._reader.cancel()
        if self._sending is not None:
            self._sending.reschedule(asyncio.get_running_loop().time() + LAST_PATIENCE)

    async def run(self, messages: AsyncIterator[rs.ProgramRoutesRequest], revision: int) -> None:
        """Carry it out until the client closes, and all is answered; McastdError if anything else ends it."""
        desired = self._daemon.engine.desired
        opened = rs.ProgramRoutesResponse.Opened(
            owner=self.owner,
            epoch=desired.owners[self.owner].epoch,
            instance_id=self._daemon.info.instance_id,
            entries=desired.entries.get(self.owner, 0),
            revision=revision,
        )
        if await self._send(rs.ProgramRoutesResponse(opened=opened)) and self._why is None:
            async with self._tasks:
                self._reader = self._tasks.create_task(self._read(messages))
                self._reader.add_done_callback(lambda _: self._steps.put_nowait(None))
                await self._answer()
                self._reader.cancel()
        if self._why is not None:
            raise self._why

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, messages: AsyncIterator[rs.ProgramRoutesRequest]) -> None:
        try:
            async for message in messages:
                await self._read_one(message)
        except McastdError as exc:
            self._why = self._why or exc

    async def _read_one(self, message: rs.ProgramRoutesRequest) -> None:
        self._daemon.write_coming()
        match message.WhichOneof("request"):
            case "batch":
                await self._read_batch(message.batch)
            case "sync_begin":
                self._syncing = True
                await self._try(_Step(BeginSync), BeginSync(self._options, self.number))
            case "sync_end":
                await self._end_sync(message.sync_end.max_deletions)
            case "open":
                text = "the session is open already: owner, epoch and lease hold until it ends; open another one to change them"
                raise fields.invalid(Reason.INVALID_VALUE, "request", "open", text)
            case _:
                raise fields.invalid(Reason.INVALID_VALUE, "request", "nothing", "say one of batch, sync_begin and sync_end")

    async def _read_batch(self, message: rs.ProgramRoutesRequest.Batch) -> None:
        """Try a batch in slices, which are in force one after the other."""
        batch = check_batch(message, self._last_id)
        ids = batch.ids
        if not ids:
            await self._try(_Step(Program, through=self._last_id), None)
        at = 0
        while at < len(ids):
            read = self._ops.read(batch, at, min(at + BATCH, len(ids)))
            if read.end == at:
                await self._settle()
                self._ops.settled()
                continue
            at = read.end
            self._last_id = ids[at - 1]
            step = _Step(Program, None, tuple([number for number, _ in read.ops]), read.refused, self._last_id)
            if read.refused:
                self._entry.refused(len(read.refused), read.refused[0].problem)
            await self._try(step, Program(self._options_now(), self.number, read.ops) if read.ops else None)
            await asyncio.sleep(0)

    def _options_now(self) -> WriteOptions:
        """Its options, with the limit of routes that the configuration has now."""
        if self._options.owner_routes_max != self._entry.routes_max:
            self._options = replace(self._options, owner_routes_max=self._entry.routes_max)
        return self._options

    async def _end_sync(self, max_deletions: int) -> None:
        """End a replay once all before it is done: what was refused as a whole must not be taken for what is not wanted."""
        if not self._syncing:
            text = "there is no replay to end: send sync_begin first"
            raise McastdError(Reason.NO_SESSION, text, field="request", value="sync_end")
        await self._settle()
        step = _Step(EndSync)
        await self._try(step, EndSync(self._options, self.number, max_deletions) if self._sync_failure is None else None)
        await self._settle()

    async def _try(self, step: _Step, write: Write | None) -> None:
        """Begin a write, in its turn; wait while too much is under way."""
        while self._under_way >= WRITES_MAX or self._ops_under_way + len(step.ids) > max(OPS_MAX, len(step.ids)):
            await self._wait_answered()
        if write is not None:
            step.task = self._tasks.create_task(self._write(write))
        self._under_way += 1
        self._ops_under_way += len(step.ids)
        self._steps.put_nowait(step)

    async def _write(self, write: Write) -> _Result:
        try:
            outcome = await self._daemon.write(write)
        except McastdError as exc:
            self._entry.refused(len(write.ops) if isinstance(write, Program) else 1, exc.problem)
            return exc
        self._entry.wrote(outcome)
        return outcome

    async def _settle(self) -> None:
        """Wait until all that was begun is answered."""
        while self._under_way:
            await self._wait_answered()

    async def _wait_answered(self) -> None:
        self._answered.clear()
        await self._answered.wait()

    # --- answering ---------------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        while (step := await self._steps.get()) is not None:
            result = await step.task if step.task is not None else None
            if isinstance(result, McastdError) and result.reason in _ENDS:
                self._why = self._ended_by(result)
                return
            async for answer in self._answers(step, result):
                if not await self._send(answer):
                    return
            self._under_way -= 1
            self._ops_under_way -= len(step.ids)
            self._answered.set()

    def _ended_by(self, error: McastdError) -> McastdError:
        """Why the session ends, in the words of whoever ends it; an epoch that was overtaken means another leader."""
        if self._why is not None or error.reason is not Reason.STALE_EPOCH:
            return self._why or error
        highest = error.problem.metadata.get("highest", "")
        text = f"a leader of owner {self.owner} with epoch {highest} has written: this session's epoch is {self._options.epoch}"
        return McastdError(Reason.SUPERSEDED, text, by=highest, owner=self.owner)

    async def _answers(self, step: _Step, result: _Result | None) -> AsyncIterator[rs.ProgramRoutesResponse]:
        engine = self._daemon.engine
        if step.kind is EndSync:
            yield self._synced(result if result is not None else self._sync_failure)
            return
        failure = result if isinstance(result, McastdError) else None
        if step.kind is BeginSync:
            self._sync_failure = failure
            return
        self._sync_failure = self._sync_failure or failure
        if isinstance(result, Outcome):
            found, revision = await exceptions(engine, result), result.revision
        else:
            found, revision = all_refused(step.ids, result.problem) if result is not None else [], engine.visible_revision
        if step.refused:
            found = in_order([*found, *step.refused])
        async for answer in acks(engine, step.through, found, revision):
            yield answer

    def _synced(self, result: _Result | None) -> rs.ProgramRoutesResponse:
        synced = rs.ProgramRoutesResponse.Synced(entries=self._daemon.engine.desired.entries.get(self.owner, 0))
        if isinstance(result, McastdError):
            synced.error.CopyFrom(present.error(result.problem))
        elif result is not None:
            synced.deleted = result.deleted
            self._syncing = False
        return rs.ProgramRoutesResponse(synced=synced)

    async def _send(self, answer: rs.ProgramRoutesResponse) -> bool:
        """Whether it is on its way; if not, the session ends: the client has left, or does not read."""
        patience = PATIENCE if self._why is None else LAST_PATIENCE
        try:
            async with asyncio.timeout(patience) as self._sending:
                await self._context.write(answer)
        except TimeoutError:
            text = f"an answer has waited {patience:g} s for its reader: read while you write, and open a session again"
            self._why = self._why or McastdError(Reason.SLOW_CONSUMER, text, seconds=f"{patience:g}")
            return False
        except grpc.aio.BaseError:
            return False
        finally:
            self._sending = None
        return True
