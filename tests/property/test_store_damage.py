"""A damaged database gives exactly what was committed, or is set aside and says so; never wrong routes, never another error."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcastd.model.address import exact_key
from mcastd.model.record import Intent, OwnerRecord
from mcastd.model.route import Oif, Paths, Route
from mcastd.store import codec, sqlite
from mcastd.store.sqlite import Store

FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a fresh directory is made there

Seen = dict[bytes, tuple[str, str, int]]


class Scene:
    """Files as a killed daemon left them, and every state that was true in their life; no dataclass: its repr is endless."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.history: list[Seen] = [{}]
        self.in_database = 0
        """Index of the last state that does not need the log."""
        self.starts = 0


def routes_at(random: Random, revision: int) -> list[Route]:
    """Return some routes out of 300, in both families."""
    made = []
    for _ in range(random.choice([1, 3, 40])):
        number = random.randrange(300).to_bytes(4, "big")
        key = (
            exact_key(0, b"\xe8" + number[1:], b"\x0a\0\0\1")
            if number[3] % 2
            else exact_key(0, b"\xff\x0e" + bytes(10) + number, bytes(16))
        )
        oifs = tuple(Oif(f"vlan{at}") for at in range(random.randrange(4)))
        made.append(Route(key, Paths(f"eth{random.randrange(3)}", oifs), "ctl", random.choice(["", "a cookie"]), False, revision))
    return made


def seen(routes: dict[bytes, Route]) -> Seen:
    """Return routes as values that compare by value."""
    return {key: (repr(route.paths), route.cookie, route.revision) for key, route in routes.items()}


def build(directory: Path, kind: str) -> Scene:
    """Live: commits, compactions, a checkpoint, more commits; then leave the files as they are."""
    random = Random(7)
    scene = Scene(directory / "scene")
    store = Store.open(directory / "alive")
    current: dict[bytes, Route] = {}
    scene.starts = store.begin()

    def commits(count: int) -> None:
        for _ in range(count):
            revision = len(scene.history)
            puts, deletes = routes_at(random, revision), random.sample(sorted(current), min(len(current), random.randrange(4)))
            store.commit([Intent(puts=puts, deletes=deletes, owners=[OwnerRecord("ctl", 0, revision)])])
            for key in deletes:
                del current[key]
            current.update({route.key: route for route in puts})
            scene.history.append(seen(current))

    commits(15)
    store.compact(store.mark(), list(current.values()), [OwnerRecord("ctl", 0, len(scene.history))], [])
    commits(15)
    compaction = store.compaction(store.mark(), list(current.values()), [], [])
    for _ in range(4):  # broken off: leaves records of a generation that is not in force
        next(compaction)
    compaction.close()
    commits(5)
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    scene.in_database = len(scene.history) - 1
    if kind == "no log":
        store.close()
        shutil.copytree(directory / "alive", scene.directory)
        return scene
    commits(10)
    if kind == "compaction in the log":
        store.compact(store.mark(), list(current.values()), [], [])
        commits(3)
    shutil.copytree(directory / "alive", scene.directory)
    store.close()
    return scene


@pytest.fixture(scope="module")
def scenes() -> Iterator[dict[str, Scene]]:
    """Build scenes of several pages and records."""
    with tempfile.TemporaryDirectory(prefix="mcastd-test-damage-", dir=FAST) as base:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "ROUTES_MAX", 50)
            patch.setattr(sqlite, "ROUTES_MAX", 50)
            made = {kind: build(Path(base) / kind.replace(" ", "-"), kind) for kind in ("no log", "log", "compaction in the log")}
        assert [(scene.directory / "state.db-wal").exists() for scene in made.values()] == [False, True, True]
        yield made


def damage(file: str, kind: str, where: float, change: bytes, directory: Path) -> None:
    """Truncate the file there, or change or clear bytes from there on."""
    path = directory / file
    content = path.read_bytes()
    at = int(where * len(content))
    if kind == "truncate":
        after = content[:at]
    elif kind == "flip":
        after = (
            content[:at] + bytes(old ^ new for old, new in zip(content[at:], change, strict=False)) + content[at + len(change) :]
        )
    else:
        at -= at % 512
        after = content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
    path.write_bytes(after)


def newest_pages(log: bytes) -> dict[int, bytes]:
    """Return the pages that a write-ahead log holds, by number (https://sqlite.org/fileformat2.html section 4.1)."""
    size = int.from_bytes(log[8:12], "big")
    salts = log[16:24]
    pages = {}
    for at in range(32, len(log) - size - 23, 24 + size):
        if log[at + 8 : at + 16] == salts:
            pages[int.from_bytes(log[at : at + 4], "big")] = log[at + 24 : at + 24 + size]
    return pages


def half_a_checkpoint(directory: Path, random: Random) -> None:
    """Copy some pages of the log into the database, and lose the log: a power cut on a disk that reorders and lies."""
    pages = newest_pages((directory / "state.db-wal").read_bytes())
    with (directory / "state.db").open("r+b") as database:
        for number in random.sample(sorted(pages), random.randrange(len(pages) + 1)):
            database.seek((number - 1) * len(pages[number]))
            database.write(pages[number])
    (directory / "state.db-wal").unlink()


def check(scene: Scene, prefix: bool, hurt: Callable[[Path], object]) -> str:
    """Damage a copy of the scene, open it, and judge what the store makes of it; `prefix`: the newest may be lost."""
    with tempfile.TemporaryDirectory(prefix="mcastd-test-damage-", dir=FAST) as name:
        directory = Path(name) / "state"
        shutil.copytree(scene.directory, directory)
        hurt(directory)
        left = {entry.name: entry.read_bytes() for entry in directory.iterdir()}
        store = Store.open(directory)
        try:
            found = seen(store.load().routes)
            if store.notice is None:
                assert found in (scene.history[scene.in_database :] if prefix else scene.history[-1:])
                verdict = "loaded" if found == scene.history[-1] else "a prefix"
            else:
                assert found == {}
                set_aside(directory, left, store.notice)
                verdict = "set aside"
            assert store.begin() > scene.starts
            after = routes_at(Random(1), 1000)  # and it goes on from there
            store.commit([Intent(puts=after)])
            expected = {**found, **seen({route.key: route for route in after})}
            store.compact(store.mark(), list(store.load().routes.values()), [], [])
        finally:
            store.close()
        again = Store.open(directory)
        try:
            assert again.notice is None
            assert seen(again.load().routes) == expected
        finally:
            again.close()
        return verdict


def set_aside(directory: Path, left: dict[str, bytes], notice: str) -> None:
    """Check that what was set aside is byte for byte what was found, under the name that the notice gives."""
    aside = next(Path(word) for word in notice.split() if ".corrupt-" in word or ".newer-" in word)
    assert aside.parent == directory
    for suffix in ("", "-wal"):
        if f"state.db{suffix}" in left:
            assert Path(f"{aside}{suffix}").read_bytes() == left[f"state.db{suffix}"]


fractions = st.floats(0, 1, exclude_max=True, allow_nan=False)
kinds = st.sampled_from(["truncate", "flip", "flip", "flip", "zero"])
changes = st.binary(min_size=1, max_size=4).filter(any)


@settings(max_examples=200)
@given(kinds, fractions, changes)
@example("truncate", 0.0, b"\1")
def test_damaged_database(scenes: dict[str, Scene], kind: str, where: float, change: bytes) -> None:
    check(scenes["no log"], False, partial(damage, "state.db", kind, where, change))


@settings(max_examples=200)
@given(st.sampled_from(["log", "compaction in the log"]), kinds, fractions, changes)
@example("log", "truncate", 0.0, b"\1")
def test_damaged_database_beside_a_log(scenes: dict[str, Scene], scene: str, kind: str, where: float, change: bytes) -> None:
    check(scenes[scene], False, partial(damage, "state.db", kind, where, change))


@settings(max_examples=200)
@given(st.sampled_from(["log", "compaction in the log"]), kinds, fractions, changes)
@example("log", "truncate", 0.0, b"\1")
@example("log", "flip", 0.0, b"\1")
def test_damaged_log(scenes: dict[str, Scene], scene: str, kind: str, where: float, change: bytes) -> None:
    check(scenes[scene], True, partial(damage, "state.db-wal", kind, where, change))


@settings(max_examples=100)
@given(st.sampled_from(["log", "compaction in the log"]), st.integers(0, 2**32))
def test_stale_pages(scenes: dict[str, Scene], scene: str, seed: int) -> None:
    check(scenes[scene], True, lambda directory: half_a_checkpoint(directory, Random(seed)))


@pytest.mark.parametrize("change", [b"\x01", b"\x80", b"\xff"])
def test_every_byte_of_the_header(scenes: dict[str, Scene], change: bytes) -> None:
    size = (scenes["no log"].directory / "state.db").stat().st_size
    for byte in range(100):
        check(scenes["no log"], False, partial(damage, "state.db", "flip", (byte + 0.5) / size, change))


def test_an_undamaged_scene_is_loaded(scenes: dict[str, Scene]) -> None:
    assert [check(scene, False, lambda _: None) for scene in scenes.values()] == ["loaded"] * 3


def test_all_verdicts_happen(scenes: dict[str, Scene]) -> None:
    """Otherwise the tests above would show little."""
    random = Random(3)
    verdicts = {
        check(scenes["log"], True, partial(damage, file, "flip", random.random(), b"\x10"))
        for file in ("state.db", "state.db-wal")
        for _ in range(30)
    }
    assert verdicts == {"loaded", "a prefix", "set aside"}
