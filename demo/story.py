"""The story that the demo tells: each step says what it does, does it, shows what came of it, and checks what it shows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from demo import calls, check, views
from demo.show import Screen
from demo.stage import Stage
from demo.traffic import Count

BURST = 100
"""Packets of each stream that are sent at once."""

RATE = 1000.0
"""Packets a second of each stream under which the server is killed."""

FLOWING = 200
"""Packets that every receiver has to get before the server is killed, and after the next one serves."""

START_SECONDS = 20.0
END_SECONDS = 10.0


@dataclass
class Report:
    """What came out so far."""

    checks: int = 0
    due: int = 0
    """Packets that had to arrive."""
    arrived: int = 0
    """Those that did."""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Play:
    """A performance under way."""

    stage: Stage
    screen: Screen
    report: Report

    def check(self, claim: str, problems: Sequence[str]) -> bool:
        """Show whether something holds, and return it; what does not ends the story after this step."""
        self.stage.interrupts.check()
        self.screen.check(claim, problems)
        self.report.checks += 1
        self.report.problems += problems
        return not problems

    def look(self, stopped: tuple[str, str] | None = None) -> list[Count]:
        """Wait for the packets, count them and show the count."""
        counts = self.stage.traffic.look(self.stage.routes)
        self.report.due += sum(count.due for count in counts)
        self.report.arrived += sum(count.arrived for count in counts)
        self.screen.table(*views.counts(counts, stopped))
        return counts


Step = Callable[[Play], None]


def start(play: Play) -> None:
    """The daemon has been started with the stage; wait until it serves."""
    stage, screen = play.stage, play.screen
    screen.step("Start the daemon in the router", "mcastd serve")
    screen.say(
        "mcastd is two small processes: the keeper holds the kernel's multicast routing sockets, "
        "the server answers gRPC and has no privilege left."
    )
    serves = stage.interrupts.wait_until(stage.mcastd.serving, START_SECONDS)
    if not play.check("it serves on a Unix socket of its own", [] if serves else [f"not within {START_SECONDS:g} s"]):
        return
    running = stage.processes()
    screen.table(*views.processes(running))
    play.check("the server has no capability", check.powerless(running[1]))


def add_routes(play: Play) -> None:
    """Two routes in each family."""
    stage, screen = play.stage, play.screen
    wanted = list(stage.routes.values())
    screen.step("Add routes in both families", "mcastctl route add")
    screen.say(
        "Packets of a source to a group come in at the iif and leave at every oif (-O). "
        "MCASTD_ADDRESS tells mcastctl where its daemon is."
    )
    written = [_write(play, calls.add(route)) for route in wanted]
    problems = [problem for one in written for problem in one.exceptions]
    created = sum(one.created for one in written)
    if created != len(wanted):
        problems.append(f"{created} of {len(wanted)} routes were created")
    play.check(f"{len(wanted)} routes are created", problems)
    play.check("the kernel has them, as `ip mroute` shows", check.entries(stage.kernel_entries(), stage.routes))


def send(play: Play) -> None:
    """What arrives is what the routes say."""
    stage, screen = play.stage, play.screen
    screen.step(f"Send {BURST} packets to each group", "UDP from the source")
    screen.say("Every receiver has joined every group: the routes decide who gets what.")
    stage.traffic.burst(BURST)
    counts = play.look()
    play.check(f"all {sum(count.due for count in counts):,} copies came, and none where no route leads", check.arrivals(counts))


def list_routes(play: Play) -> None:
    """The kernel's counters agree with what was sent."""
    play.screen.step("List the routes with the kernel's counters", "mcastctl route list")
    play.screen.say("The state and the counters are the kernel's, read now.")
    found = _list(play)
    play.check("all are in the kernel exactly as asked", check.routes(found, play.stage.routes))
    play.check("the kernel counted what was sent", check.counters(found, play.stage.traffic.sent()))


def remove_oif(play: Play) -> None:
    """One receiver of one stream is cut off; nobody else notices."""
    stage, screen = play.stage, play.screen
    oif, receiver, group = "down2", "receiver2", "232.1.1.2"
    screen.step(f"Take {oif} off {group}, then send again", "mcastctl route patch")
    screen.say("A patch names what changes and nothing else, so two programs never undo each other's work.")
    written = _write(play, calls.remove_oif(stage.routes[group], oif))
    problems = list(written.exceptions) if written.updated == 1 else ["the route was not updated", *written.exceptions]
    before = stage.routes[group]
    stage.routes[group] = replace(before, oifs=tuple(one for one in before.oifs if one != oif))
    stage.traffic.burst(BURST)
    counts = play.look((group, receiver))
    found = _list(play)
    play.check(f"{receiver} gets no more of {group}", check.silence(counts, group, receiver))
    play.check(f"all else came: {receiver} still gets IPv6, the others get both", check.arrivals(counts))
    play.check(f"{oif} is off the route, and nothing else has changed", problems + check.routes(found, stage.routes))
    play.check("the route was changed in place: its counters went on", check.counters(found, stage.traffic.sent()))


def kill_server(play: Play) -> None:
    """The control plane dies under traffic, and no packet is lost."""
    stage, screen = play.stage, play.screen
    pid = stage.mcastd.server_pid()
    screen.step("Kill the server while packets flow", f"kill -9 {pid}")
    screen.say(
        f"{RATE:,.0f} packets a second flow in each stream. When the server dies, the keeper still holds "
        "the kernel's sockets, so the kernel goes on forwarding; and it starts the next server."
    )
    stage.traffic.start(RATE)
    stage.traffic.flow_on(stage.routes, FLOWING)
    stage.mcastd.kill_server()
    killed, before = time.perf_counter(), stage.traffic.received()
    serves = stage.interrupts.wait_until(
        lambda: stage.mcastd.server_pid() not in {0, pid} and stage.mcastd.serving(), START_SECONDS
    )
    away, meanwhile = time.perf_counter() - killed, stage.traffic.received() - before
    stage.traffic.flow_on(stage.routes, FLOWING)
    stage.traffic.stop()
    counts = play.look()
    play.check(
        f"server {stage.mcastd.server_pid()} serves after {away:.2f} s; meanwhile {meanwhile:,} packets came",
        [] if serves else ["no new server serves"],
    )
    play.check(f"not one of {sum(count.due for count in counts):,} packets is lost", check.arrivals(counts))
    found = _list(play)
    play.check("the new server knows all routes", check.routes(found, stage.routes))
    play.check("the counters went on: no entry was ever gone", check.counters(found, stage.traffic.sent()))


def stop(play: Play) -> None:
    """An orderly end leaves nothing in the kernel."""
    stage, screen = play.stage, play.screen
    screen.step("Stop the daemon", "mcastctl shutdown")
    screen.say("An orderly end takes everything out of the kernel.")
    before = len(stage.kernel_entries())
    screen.command(calls.shown(calls.SHUTDOWN))
    stage.controller.text(calls.SHUTDOWN)
    process = stage.mcastd.process
    stage.interrupts.wait_until(lambda: process.poll() is not None, END_SECONDS)
    play.check("it ended in order", [] if process.returncode == 0 else [f"its exit code is {process.returncode}"])
    left = stage.kernel_entries()
    play.check(f"of {before} entries the kernel has {len(left) or 'none'} left", check.entries(left, {}))


STEPS: Sequence[Step] = (start, add_routes, send, list_routes, remove_oif, kill_server, stop)


def _list(play: Play) -> list[calls.Route]:
    """What mcastctl lists, shown as it prints it."""
    play.screen.command(calls.shown(calls.LIST))
    play.screen.output(play.stage.controller.text(calls.LIST))
    return play.stage.controller.routes()


def _write(play: Play, command: calls.Command) -> calls.Written:
    """Run a command that changes routes, and show it with its summary."""
    play.screen.command(calls.shown(command))
    written = play.stage.controller.write(command)
    play.screen.output(written.summary)
    play.stage.interrupts.check()
    return written
