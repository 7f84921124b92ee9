"""What the databases of earlier schema versions hold that stand in fixtures/: made by the code of their time, read by today's.

Made by `PYTHONPATH=<a checkout of that time> python tests/unit/store/versions.py fixtures/`, for version 1 at commit 796286b.
There are three: all in the journal; half in a snapshot; and one whose process was killed, with its log beside it.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from mcastd.model.address import Family, exact_key
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.record import Intent, InterfaceSettings, OwnerRecord, Pin
from mcastd.model.route import Oif, Paths, Route, Template
from mcastd.model.template import TemplateKey
from mcastd.store.sqlite import Store

STARTS = 3
GROUPS = {Family.IPV4: b"\xe8\0\0", Family.IPV6: b"\xff\x3e" + bytes(13)}
SOURCES = {Family.IPV4: b"\x0a\0\0\1", Family.IPV6: b"\xfd" + bytes(14) + b"\1"}
REVISION = 3 << 40


def routes(family: Family) -> list[Route]:
    """Exact routes, templates and a shared tree of one family."""
    group, source, bits = GROUPS[family], SOURCES[family], 8 * len(SOURCES[family])
    none = bytes(len(source))
    plain, globbed = Paths("eth0", (Oif("eth1"), Oif("eth2", 7))), Paths("vlan*", (Oif("!vlan9"), Oif("vlan*")))
    made: list[Route] = [
        Route(
            exact_key(at % 2, group + bytes((at,)), source), plain, "sdn", f"flow-{at}" if at % 3 else "", at == 5, REVISION + at
        )
        for at in range(1, 21)
    ]
    made.append(Route(exact_key(0, group + b"\xc8", source), Paths("eth0", ()), "lab", "", False, REVISION + 30, join=True))
    prefix = TemplateKey(0, family, group + b"\0", bits - 8, none, 0, "vlan*")
    wide = TemplateKey(7, family, group + b"\0", bits - 4, source, bits, "eth0")
    tree = TemplateKey(0, family, group + b"\xfa", bits, none, 0, "eth0")
    made.append(Template(prefix.pack(), globbed, "sdn", "all", False, REVISION + 31, 30.5))
    made.append(Template(wide.pack(), plain, "config", "", True, REVISION + 32, 0.0, shared_tree=False, join=True))
    made.append(Template(tree.pack(), plain, "lab", "tree", False, REVISION + 33, 0.0, shared_tree=True))
    return made


def joins(family: Family) -> list[JoinRecord]:
    """Joins of a group from any source and from one, and of a prefix."""
    group, source, bits = GROUPS[family], SOURCES[family], 8 * len(SOURCES[family])
    return [
        JoinRecord(JoinKey("sdn", "eth0", group + b"\1", bits, b"", 0), "", REVISION + 40),
        JoinRecord(JoinKey("lab", "vlan*", group + b"\2", bits, source, bits), "why", REVISION + 41),
        JoinRecord(JoinKey("config", "eth1", group + b"\x10", bits - 4, b"", 0), "", REVISION + 42),
    ]


def all_routes() -> list[Route]:
    """Of both families."""
    return [route for family in Family for route in routes(family)]


def all_joins() -> list[JoinRecord]:
    """Of both families."""
    return [record for family in Family for record in joins(family)]


OWNERS = [OwnerRecord("sdn", 41, REVISION + 31), OwnerRecord("lab", 0, REVISION + 41), OwnerRecord("config", 0, REVISION + 42)]
SETTINGS = [
    InterfaceSettings("eth0", "sdn", 5, REVISION + 50, (Pin(0, True, REVISION + 51), Pin(7, False, REVISION + 52))),
    InterfaceSettings("eth1", "config", None, 0, (), True, REVISION + 53),
]


def main(directory: Path) -> None:
    """Make the databases."""
    made, joined = all_routes(), all_joins()
    gone = Route(exact_key(0, GROUPS[Family.IPV4] + b"\xff", SOURCES[Family.IPV4]), Paths("eth0", ()), "sdn")
    half = len(made) // 2
    for kind in ("journal", "snapshot", "killed"):
        with tempfile.TemporaryDirectory() as scratch:
            store = Store.open(Path(scratch))
            for _ in range(STARTS):
                store.begin()
            first = Intent(puts=[*made[:half], gone], owners=OWNERS[:1], settings=SETTINGS[:1], join_puts=joined[:2])
            store.commit([first])
            if kind == "snapshot":
                store.compact(store.mark(), first.puts, first.owners, first.settings, first.join_puts)
            store.commit([Intent(puts=made[half:], owners=OWNERS[1:], settings=SETTINGS[1:], join_puts=joined[2:])])
            store.commit([Intent(deletes=[gone.key])])
            if kind != "killed":
                store.close()
            for path in Path(scratch).iterdir():
                shutil.copyfile(path, directory / path.name.replace("state.db", f"v1-{kind}.db"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
