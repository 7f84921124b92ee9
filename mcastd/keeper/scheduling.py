"""What the keeper takes of the machine: its place before other processes, and how many files it may have open."""

import gc
import logging
import os
import resource
from typing import Any

FIFO_PRIORITY = 10
"""Of 1 to 99: above no kernel thread that matters, before every ordinary process."""

FILES_MAX = 65_536
"""Open files that keeper and server may have, where the hard limit allows it."""

_log = logging.getLogger(__name__)


def take_priority() -> None:
    """Run before everything else that wants a processor, where that is allowed: a flow's first packets wait for this process.

    What it starts is made ordinary, but for the stand-in, which has the same to do. The garbage collector stays out of the way:
    nothing here makes cycles.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except OSError as exc:  # who has it from a service manager may not ask for it
        _log.debug("no real-time priority is to be had", extra={"error": exc.strerror})
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def ordinary() -> dict[str, Any]:
    """Options of os.posix_spawn with which what is started runs as usual.

    None where the priority is reset on fork anyway (systemd's CPUSchedulingResetOnFork): it may be forbidden to ask for it.
    """
    return {"scheduler": (os.SCHED_OTHER, os.sched_param(0))} if os.sched_getscheduler(0) == os.SCHED_FIFO else {}


def be_ordinary() -> None:
    """Have no priority that this process was forked with."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def raise_file_limit() -> None:
    """Each table costs two descriptors in both processes, each client one in the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
