"""`mcastd check`: exit codes, what is printed where."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcastd.cli.check import check
from mcastd.cli.mcastd import main
from tests.pki import DAY, Pki
from tests.unit.sources.broken import GOOD

MORE = """
[interface.eth1]
ttl_threshold = 3
router_discovery = false
pinned = false
[interface.eth2]
[[route]]
group = "239.2.0.0/16"
cookie = "c"
idle_timeout = 5
monitored = true
[[route]]
group = "ff3e::1"
iif = "eth0"
wildcard = "shared-tree"
join = true
"""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One that the server's user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="mcastd-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def write(directory: Path, text: str) -> str:
    path = directory / "mcastd.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_a_sound_file_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, GOOD + MORE)
    assert main(["check", path]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "files 1, routes 3, joins 1, interfaces 3, tables 1, rules 1, principals 0",
        f"file {path}",
        "route (10.0.0.1, 239.1.1.1) from eth0 to eth1, eth2 (ttl 3)",
        "route (*, 239.2.0.0/16) to nowhere, monitored, idle timeout 5 s, cookie 'c'",
        "route (*, ff3e::1) from eth0 to nowhere, join, shared tree",
        "join (*, 232.1.1.1) on eth0",
        "interface eth0: pinned in table 0",
        "interface eth1: ttl threshold 3, not pinned in table 0, router discovery off",
        "interface eth2: nothing",
        "rule from eth2 to table 100, priority 7, IPV4 and IPV6",
    ]


def test_quiet_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(write(tmp_path, GOOD), quiet=True) == 0
    assert capsys.readouterr() == ("", "")


def test_all_faults_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "[[route]]\ngroup = 3\n" * 30)
    assert check(path, quiet=False) == 78
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.partition(": ")[0] for line in lines[:3]] == [f"{path}:{number}" for number in (2, 4, 6)]
    assert (len(lines), lines[-1]) == (21, "there are more")


def test_what_the_start_alone_looks_at_is_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, '[daemon]\n\nlisten = [\n"tcp:1"]\n')
    assert check(path, quiet=False) == 78
    assert capsys.readouterr().err.startswith(f"{path}:4: daemon.listen 1")


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("/nonexistent/mcastd.toml", quiet=False) == 78
    assert "/nonexistent/mcastd.toml: the file can't be read: No such file" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    text = "".join(f'[[route]]\ngroup = "239.{n >> 8}.{n & 255}.0/24"\n' for n in range(5000))
    command = f"{sys.executable} -m mcastd.cli check {write(tmp_path, text)} | head -n 1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("files 1, routes 5000, joins 0, interfaces 0, tables 0, rules 0, principals 0\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become the server's user")
def test_what_the_servers_user_cannot_read_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no fault: the file may be given to that user later."""
    path = write(tmp_path, '[daemon]\nuser = "nobody"\n')
    Path(path).chmod(0o600)
    assert check(path, quiet=True) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"warning: {path} can't be read by the server's user nobody: Permission denied; give it to a group")


def test_principals_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
[[principal]]
name = "spiffe://lab/sdn"
access = "write"
owner = "sdn"
requests_per_second = 100
routes_max = 5000
[[principal]]
name = "eve"
"""
    assert main(["check", write(tmp_path, text)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "principal spiffe://lab/sdn: write, owner sdn, at most 100 requests a second, at most 5000 routes",
        "principal eve: view, owner eve",
    ]


@pytest.mark.parametrize(
    "spoil,words,code",
    [
        (lambda pki: pki.put_server(ends=DAY * -1, begins=DAY * -2), "has ended on", 0),
        (lambda pki: pki.server.key.write_bytes(pki.named("alice").key.read_bytes()), "the key must be the certificate's", 78),
        (lambda pki: pki.ca.unlink(), "ca.pem: No such file", 78),
        (lambda pki: pki.init(renew=True), "", 0),
    ],
    ids=["ended", "another's key", "no CA", "good"],
)
def test_certificates_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Pki], object], words: str, code: int
) -> None:
    tmp_path.chmod(0o755)
    pki = Pki(tmp_path / "tls")
    spoil(pki)
    at = pki.remote(50_051)
    text = f'[[listen]]\naddress = "{at.address}"\ncert = "{at.cert}"\nkey = "{at.key}"\nca = "{at.ca}"\n'
    capsys.readouterr()
    assert main(["check", write(tmp_path, text)]) == code
    assert words in capsys.readouterr().err
