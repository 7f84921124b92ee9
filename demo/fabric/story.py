"""The story of the fabric: each step says what it does, does it, shows what came of it, and checks what it shows."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from demo.fabric import check
from demo.fabric.stage import OWNER, Fabric, Replica
from demo.fabric.streams import Spray, Stream
from demo.show import Cell, Column, Screen

FIRST = 0.25
"""Seconds that a new source's first packet may take to all receivers."""
HEALED = 1.0
"""Seconds that receivers may get nothing when a link is cut."""
START_SECONDS = 30.0
SETTLE_SECONDS = 3.0
LEAD_SECONDS = 15.0
SLOW = 20.0
"""Packets a second of a new source: the kernel keeps the first four until their route is there, which is 0.2 s."""
STEADY = 5.0
FAST = 1000.0


@dataclass
class Report:
    """What came out so far."""

    checks: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Play:
    """A performance under way."""

    fabric: Fabric
    screen: Screen
    report: Report
    crowd_size: int = 200
    made: int = 0
    """Sources so far."""
    leader: Replica = field(init=False)
    crowd: list[Stream] = field(default_factory=list)

    def claim(self, claim: str, problems: Sequence[str]) -> None:
        """Show whether something holds; what does not ends the story after this step."""
        self.fabric.interrupts.check()
        self.screen.check(claim, problems)
        self.report.checks += 1
        self.report.problems += problems

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> list[str]:
        """Wait until something is true; the problem where it never is."""
        return [] if self.fabric.interrupts.wait_until(condition, seconds) else [f"{what}: not within {seconds:g} s"]

    def sources(self, count: int, hosts: Sequence[str] | None = None) -> list[Stream]:
        """New sources, in turn of both families, at these hosts or all."""
        streams, hosts = [], hosts or list(self.fabric.hosts)
        for _ in range(count):
            self.made += 1
            n = self.made
            group = f"ff3e::{n:x}" if n % 2 else f"232.1.{n >> 8}.{n & 255}"
            streams.append(self.fabric.stream(hosts[n // 2 % len(hosts)], group, n))
        return streams

    def flow_on(self, streams: Sequence[Stream], count: int, what: str) -> list[str]:
        """Wait until every receiver has got some more packets of each stream; the problem where that does not happen."""
        ears = self.fabric.ears
        heard = [ears.heard(host, one) for one in streams for host in check.receivers(self.fabric, one)]
        targets = [(one, len(one.numbers) + count) for one in heard]
        return self.wait(lambda: all(len(one.numbers) >= target for one, target in targets), SETTLE_SECONDS, what)

    def finish(self, spray: Spray, streams: Sequence[Stream]) -> None:
        """Stop sending, and wait for what is on its way."""
        spray.stop()
        self.fabric.interrupts.wait_until(lambda: check.complete(self.fabric, streams), SETTLE_SECONDS)

    def count(self, streams: Sequence[Stream], since: dict[int, int] | None = None) -> check.Count:
        """Count, and show it."""
        found = check.count(self.fabric, streams, since)
        columns = [Column(title, right=True) for title in ("streams", "packets", "copies due", "lost", "twice", "looped")]
        cells = (len(streams), found.sent, found.due, found.lost, found.duplicates, found.looped)
        self.screen.table(columns, [[Cell(f"{cell:,}") for cell in cells]])
        return found


Step = Callable[[Play], None]


def start(play: Play) -> None:
    """Daemons, then a controller over TLS."""
    fabric, screen = play.fabric, play.screen
    screen.step("Start a daemon in each router, and a controller outside", "mcast-controller")
    screen.say(
        "The controller reaches the routers over a network of their own, with TLS. It watches all of them for new sources, and "
        "holds a session with each."
    )
    serving: set[str] = set()

    def all_serve() -> bool:
        serving.update(name for name, daemon in fabric.daemons.items() if name not in serving and daemon.serving())
        return len(serving) == len(fabric.daemons)

    play.claim(f"{len(fabric.daemons)} daemons serve", play.wait(all_serve, START_SECONDS, "the daemons"))
    play.leader = fabric.replica("first", "--epoch", "1")
    play.claim("the controller leads all of them", play.wait(play.leader.leads, LEAD_SECONDS, "the controller"))


def first_packets(play: Play) -> None:
    """New sources, one pair after the other."""
    screen, fabric = play.screen, play.fabric
    screen.step("New sources start, one after the other", "Watch, ProgramRoutes")
    screen.say("Nobody knows them before. The first packets wait in the kernel, until the controller has built the tree.")
    streams: list[Stream] = []
    problems: list[str] = []
    for _ in range(5):
        pair = play.sources(2)
        spray = fabric.spray(pair, SLOW)
        problems += play.wait(lambda pair=pair: check.begun(fabric, pair), SETTLE_SECONDS, "first packets")  # type: ignore[misc]
        play.finish(spray, pair)
        streams += pair
    found = play.count(streams)
    late = [] if found.first < FIRST else [f"it took {found.first * 1000:.0f} ms"]
    play.claim(f"first packet at all receivers after {found.first * 1000:.0f} ms at most", problems + late)
    play.claim("nothing is lost, doubled or looped, from the first packet on", found.problems())


def cut(play: Play) -> None:
    """A link is cut under traffic, and comes back."""
    screen, fabric = play.screen, play.fabric
    host = next(iter(fabric.hosts))
    one, other = play.sources(2, [host])
    spine = check.spine_of(fabric, one)
    while check.spine_of(fabric, other) != spine:  # Both families are to be hit by the same cut.
        fabric.streams.remove(other)
        play.made += 1
        (other,) = play.sources(1, [host])
    streams, leaf = [one, other], host.replace("h", "leaf")
    screen.step("A link is cut while packets flow", f"ip link set {leaf} down")
    screen.say(f"{FAST:,.0f} packets a second in each family go from {leaf} over {spine}. Its link to {leaf} goes down.")
    begin = fabric.spray(streams, SLOW)
    problems = play.wait(lambda: check.begun(fabric, streams), SETTLE_SECONDS, "first packets")
    play.finish(begin, streams)
    since = {stream.number: stream.sent for stream in streams}
    spray = fabric.spray(streams, FAST)
    problems += play.flow_on(streams, 200, "packets before the cut")
    fabric.ears.reset_gaps()
    fabric.routers[spine].ip(f"link set dev {leaf} down")
    problems += play.flow_on(streams, 300, "packets after the cut")
    play.finish(spray, [])
    time.sleep(0.1)
    found = play.count(streams, since)
    slow = [] if found.gap < HEALED else [f"it took {found.gap:.2f} s"]
    play.claim(f"the stream goes on over the other spine after {found.gap * 1000:.0f} ms without packets", problems + slow)
    play.claim("nothing is doubled or looped", found.problems(lost=found.lost))
    since = {stream.number: stream.sent for stream in streams}
    fabric.ears.reset_gaps()
    spray = fabric.spray(streams, FAST)
    fabric.routers[spine].ip(f"link set dev {leaf} up")
    problems = play.wait(lambda: _settled(play), LEAD_SECONDS, "the link")
    problems += play.flow_on(streams, 200, "packets after the return")
    play.finish(spray, [])
    time.sleep(0.1)
    found = play.count(streams, since)
    play.claim("the link comes back, the streams stay where they are: nothing is lost", problems + found.problems())


def crowd(play: Play) -> None:
    """Many sources at once."""
    screen, fabric = play.screen, play.fabric
    screen.step(f"{play.crowd_size} sources start at the same moment", "one batch a router")
    play.crowd = play.sources(play.crowd_size)
    spray = fabric.spray(play.crowd, SLOW / 4)
    problems = play.wait(lambda: check.begun(fabric, play.crowd), SETTLE_SECONDS, "first packets")
    problems += play.wait(play.leader.leads, LEAD_SECONDS, "the controller")
    problems += play.flow_on(play.crowd, 2, "packets after the first")
    play.finish(spray, play.crowd)
    found = play.count(play.crowd)
    play.claim(f"first packet of the last one at all receivers after {found.first * 1000:.0f} ms", problems)
    play.claim("nothing is lost, doubled or looped, from the first packet on", found.problems())


def restart(play: Play) -> None:
    """The controller is killed, and started again."""
    screen = play.screen
    screen.step("The controller is killed and started again", f"kill -9 {play.leader.process.pid}")
    screen.say("All streams flow. The routers keep what they have; the new controller learns the flows from them.")
    before = check.revisions(play.fabric, OWNER)

    def kill_and_start() -> list[str]:
        play.leader.kill()
        play.leader = play.fabric.replica("again", "--epoch", "1")
        return play.wait(lambda: play.leader.leads(len(play.fabric.streams)), LEAD_SECONDS, "the new controller")

    _under_traffic(play, "it leads again", kill_and_start)
    play.claim("no route was touched", check.untouched(before, check.revisions(play.fabric, OWNER)))


def standby(play: Play) -> None:
    """A standby takes over with a higher epoch."""
    screen, fabric = play.screen, play.fabric
    screen.step("The controller is killed, a standby takes over", "epoch 2")
    term = fabric.directory / "epoch"
    other = fabric.replica("standby", "--epoch-file", str(term))
    problems = play.wait(lambda: other.metrics().get("router_connected") == len(fabric.daemons), LEAD_SECONDS, "the standby")
    play.claim("the standby watches all routers", problems)
    before = check.revisions(fabric, OWNER)

    def take_over() -> list[str]:
        play.leader.kill()
        making = term.with_suffix(".new")
        making.write_text("2")
        making.rename(term)
        return play.wait(lambda: other.leads(len(fabric.streams)), LEAD_SECONDS, "the standby")

    _under_traffic(play, "the standby leads", take_over)
    play.claim("no route was touched", check.untouched(before, check.revisions(fabric, OWNER)))
    old = fabric.replica("old", "--epoch", "1")
    problems = play.wait(lambda: old.process.poll() is not None, LEAD_SECONDS, "the old controller's end")
    if old.process.returncode != os.EX_TEMPFAIL:
        problems.append(f"its exit code is {old.process.returncode}")
    play.claim("the old controller comes back with epoch 1: it is refused, and ends", problems)
    play.leader = other


def daemons(play: Play) -> None:
    """Routers' servers die."""
    screen, fabric = play.screen, play.fabric
    victims = [fabric.leaves[0], fabric.spines[-1]]
    screen.step(f"The servers of {victims[0]} and {victims[1]} are killed", "kill -9")

    def kill() -> list[str]:
        for name in victims:
            fabric.daemons[name].kill_server()
        problems = play.wait(lambda: not play.leader.leads(), SETTLE_SECONDS, "the controller has noticed")
        return problems + play.wait(play.leader.leads, START_SECONDS, "the routers")

    _under_traffic(play, "they are back, and the controller leads them", kill)
    streams = play.sources(2)
    spray = fabric.spray(streams, SLOW)
    problems = play.wait(lambda: check.begun(fabric, streams), SETTLE_SECONDS, "first packets")
    play.finish(spray, streams)
    play.claim("new sources are served", problems + check.count(fabric, streams).problems())
    play.claim("no router has taken a packet twice, by the kernel's counters", check.accepted_once(fabric))


STEPS: Sequence[Step] = (start, first_packets, cut, crowd, restart, standby, daemons)


def _under_traffic(play: Play, claim: str, act: Callable[[], list[str]]) -> None:
    """Do something while all streams of the crowd flow, and check that nothing of them is lost."""
    since = {stream.number: stream.sent for stream in play.crowd}
    spray = play.fabric.spray(play.crowd, STEADY)
    problems = play.flow_on(play.crowd, 2, "packets")
    began = time.monotonic()
    problems += act()
    took = time.monotonic() - began
    problems += play.flow_on(play.crowd, 2, "packets")
    play.finish(spray, play.crowd)
    play.claim(f"{claim} after {took:.2f} s", problems)
    found = play.count(play.crowd, since)
    play.claim(f"not one of {found.due:,} copies is lost", found.problems())


def _settled(play: Play) -> bool:
    """Whether all links are up, and the controller has dealt with it."""
    return play.leader.metrics().get("links_down") == 0 and play.leader.leads()
