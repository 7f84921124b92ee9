"""What a server is told first of all: HELLO, the sockets, and the descriptors that are held for it."""

from mcastd.keeper.channel import Message, encode, vif_map_values
from mcastd.keeper.memory import Memory
from mcastd.keeper.outbox import Outbox
from mcastd.model.settings import Settings


def say_hello(outbox: Outbox, settings: Settings, memory: Memory) -> None:
    """Have the outbox tell the next server, which is counted, before anything else."""
    run, sockets, held = memory.started_server(), memory.parts.tables.sockets(), memory.parts.held
    values = {
        "settings": settings.to_json(),
        "sockets": len(sockets),
        "stored": len(held),
        "started_at": run.started_at,
        "started_monotonic": run.started_monotonic,
        "starts": run.starts,
        "kept": memory.keeps,
    }
    outbox.add_message(encode(Message.HELLO, body=values), first=True)
    for one in sockets:
        body = vif_map_values(one.table, one.family, one.vif_map)
        outbox.add_message(encode(Message.SOCKET, body=body), (one.sock.fileno(),), first=True)
    outbox.add_borrowed(held.messages())
