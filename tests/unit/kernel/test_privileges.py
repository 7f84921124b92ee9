"""mcastd.kernel.privileges: in processes of their own, since nothing of it can be undone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcastd.kernel import privileges

ROOT = Path(__file__).parents[3]


def run(program: str, *prefix: str) -> str:
    """Run a program with the module imported; what it says."""
    head = "import os, signal\nfrom mcastd.kernel import privileges as p\n"
    done = subprocess.run([*prefix, sys.executable, "-c", head + program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def status(name: str) -> int:
    """A field of this thread's status, as the kernel says it."""
    line = next(line for line in Path("/proc/thread-self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1], 16)


def test_the_sets_are_those_that_the_kernel_shows() -> None:
    now = privileges.current()
    names = ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs")
    assert now == tuple(status(name) for name in names)


def test_threads_are_counted() -> None:
    assert (
        run("import threading; e=threading.Event(); t=threading.Thread(target=e.wait); t.start(); print(p.threads()); e.set()")
        == "2"
    )


def test_nothing_can_be_added_to_the_permitted_set() -> None:
    program = (
        "p.set_capabilities(0, 0)\ntry: p.set_capabilities(p.CAP_NET_RAW, 0)\nexcept PermissionError as e: print(e.strerror)"
    )
    assert run(program) == "capset: Operation not permitted"


needs_root = pytest.mark.skipif(
    privileges.current().effective & privileges.CAP_SETPCAP == 0, reason="needs CAP_SETPCAP: real root or a user namespace's"
)


@needs_root
def test_everything_is_dropped_for_good() -> None:
    assert run("p.drop_everything(); os.execl('/bin/grep', 'grep', '-E', '^Cap|NoNew', '/proc/self/status')").splitlines() == [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ]
    assert run("print(p.drop_everything(), *p.current())") == "True 0 0 0 0 0 True"


def test_a_bounding_set_that_must_stay_is_told() -> None:
    program = (
        "p.set_capabilities(0, 0); before = p.current().bounding; print(p.drop_bounding_set(), p.current().bounding == before)"
    )
    assert run(program) in {"False True", "True True"}  # True: there was nothing to drop
    if privileges.current().bounding:
        assert run(program) == "False True"


@needs_root
def test_part_of_the_sets_can_be_kept() -> None:
    program = (
        "m = p.CAP_NET_RAW; p.drop_bounding_set(m); p.set_capabilities(m, m, m); p.set_ambient(m); print(*map(int, p.current()))"
    )
    raw = privileges.CAP_NET_RAW
    assert run(program) == f"{raw} {raw} {raw} {raw} {raw} 0"
    assert (
        run("p.set_capabilities(p.CAP_NET_RAW, 0)\ntry: p.set_ambient(p.CAP_NET_RAW)\nexcept PermissionError: print('no')")
        == "no"
    )


def test_a_process_can_be_tied_to_its_parent() -> None:
    program = """
r, w = os.pipe()
ready, go = os.pipe()
middle = os.fork()
if middle == 0:
    child = os.fork()
    if child == 0:
        os.close(r)
        p.set_parent_death_signal(signal.SIGKILL)
        os.write(go, b"x")
        while True: signal.pause()
    os.read(ready, 1)
    os._exit(0)
os.close(w)
os.waitpid(middle, 0)
print(os.read(r, 1))
"""
    assert run(program) == "b''"
    assert os.getpid()


CONFINED = """
import resource, threading
def said(call):
    try: return call()
    except OSError as e: return e.strerror
p.set_no_new_privs()
print(p.confine())
"""


@pytest.mark.parametrize(
    "call",
    [
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        "signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 0)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU)",
        "__import__('fcntl').fcntl(0, __import__('fcntl').F_SETOWN, os.getpid())",
        "os.sched_setaffinity(0, {0})",
        "os.setpriority(os.PRIO_PROCESS, os.getpid(), 19)",
        "os.chroot('/')",
    ],
)
def test_confined_process_is_refused(call: str) -> None:
    assert run(CONFINED + f"print(said(lambda: {call}))").splitlines() == ["True", "Operation not permitted"]


@pytest.mark.parametrize(
    "call",
    [
        "os.kill(os.getpid(), 0)",
        "signal.raise_signal(signal.SIGURG)",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (0, 0)) and None",
        "[thread.start() or thread.join() for thread in [threading.Thread(target=int)]][0]",
        "os.waitpid(os.fork() or os._exit(0), 0)[0] and None",
        "os.pipe() and None",
    ],
)
def test_confined_process_goes_on(call: str) -> None:
    assert run(CONFINED + f"print(said(lambda: {call}))").splitlines() == ["True", "None"]


def test_confined_process_can_abort() -> None:
    """The C library and faulthandler end a process by a signal that it sends itself."""
    program = "import os\nfrom mcastd.kernel import privileges as p\np.set_no_new_privs(); p.confine(); os.abort()"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == -signal.SIGABRT


def test_files_in_proc_are_closed() -> None:
    program = "before = os.stat('/proc/self/environ').st_uid; p.close_proc(); print(before, os.stat('/proc/self/environ').st_uid)"
    own = os.getuid()
    assert run(program) in {f"{own} 0", f"{own} 65534"}  # of root, who is nobody in a user namespace
