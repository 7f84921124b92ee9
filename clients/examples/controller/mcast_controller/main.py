"""The command line: reads the files, and runs one replica until a signal ends it, or another replica has taken over for good."""

import argparse
import asyncio
import logging
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from mcast.client import Lease
from mcast_controller import topology, wishes
from mcast_controller.controller import Controller, Settings
from mcast_controller.election import EPOCH_MAX, Election
from mcast_controller.metrics import Metrics

DONE = 0
FENCED = 75
"""sysexits.h, EX_TEMPFAIL: another replica leads, and this one's epoch was given once."""
BAD_FILE = 78
"""sysexits.h, EX_CONFIG."""
NO_ADDRESS = 69
"""sysexits.h, EX_UNAVAILABLE: the metrics' address cannot be had."""
SECONDS_MAX = 31_536_000
"""A year: routers take no longer hold time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    options = _parser().parse_args(arguments)
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=options.log_level.upper(), format=form, stream=sys.stderr)
    try:
        network = topology.load(options.topology)
        wishes.load(options.wishes, network)
    except topology.FileError as exc:
        return _fail(str(exc), BAD_FILE)
    metrics = Metrics()
    if options.metrics:
        try:
            metrics.serve(*options.metrics)
        except OSError as exc:
            return _fail(f"--metrics {options.metrics[0]}:{options.metrics[1]}: {exc.strerror}", NO_ADDRESS)
    lease = Lease(hold=options.hold, withdraw=options.on_expiry == "withdraw")
    settings = Settings(
        lease=lease,
        flows_max=options.flows_max,
        idle=options.idle,
        answer=options.answer,
        avoid=options.avoid,
        start=options.start,
        drain=options.drain,
        rebalance=options.rebalance,
    )
    return asyncio.run(_run(network, options, settings, metrics))


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"mcast-controller: {text}\n")
    return code


async def _run(network: topology.Topology, options: argparse.Namespace, settings: Settings, metrics: Metrics) -> int:
    controller = Controller(network, options.wishes, settings, metrics)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(controller.run(Election(options.epoch, options.epoch_file)))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGHUP, controller.reload)
    return DONE if task.cancelled() else FENCED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mcast-controller",
        description="Programs mcastd routers so that new sources reach whoever wants them, over shortest-path trees.",
        epilog="Exit codes: 0 ended by a signal, 2 command line, 69 no address for metrics, 75 another leads, 78 a bad file.",
        allow_abbrev=False,
    )
    parser.add_argument("topology", type=Path, help="routers, links, segments (TOML)")
    parser.add_argument("wishes", type=Path, help="who wants what (TOML); read again when it changes")
    term = parser.add_mutually_exclusive_group(required=True)
    term.add_argument("--epoch", type=_epoch, help="lead with this term, and end when another replica takes over")
    term.add_argument("--epoch-file", type=Path, help="file with this replica's term while it leads; 0, empty or none: stand by")
    parser.add_argument("--hold", type=_seconds, default=120.0, help="seconds that routers keep routes without us (default: 120)")
    parser.add_argument(
        "--on-expiry", choices=["withdraw", "retain"], default="withdraw", help="what becomes of them then (default: withdraw)"
    )
    parser.add_argument("--idle", type=_seconds, default=60.0, help="seconds without packets after which a flow ends; 0 = never")
    parser.add_argument("--flows-max", type=_positive, default=10_000, help="flows that are served (default: 10000)")
    parser.add_argument(
        "--answer", type=_seconds, default=0.5, help="seconds to wait for a router before others go on (default: 0.5)"
    )
    parser.add_argument(
        "--avoid", type=_seconds, default=30.0, help="seconds after which a silent router is avoided (default: 30)"
    )
    parser.add_argument("--start", type=_seconds, default=2.0, help="seconds to wait for all routers at first (default: 2)")
    parser.add_argument("--drain", type=_seconds, default=0.0, help="seconds between two steps of a change (default: 0)")
    parser.add_argument("--rebalance", action="store_true", help="move flows back when links come back (costs some packets)")
    parser.add_argument("--metrics", metavar="HOST:PORT", type=_address, help="serve metrics there")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return parser


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return int(text)


def _epoch(text: str) -> int:
    number = _positive(text)
    if number > EPOCH_MAX:
        raise argparse.ArgumentTypeError(f"{text} is above {EPOCH_MAX}")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to {SECONDS_MAX} seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
