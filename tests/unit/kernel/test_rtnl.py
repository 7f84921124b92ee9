"""mcastd.kernel.rtnl: a server has of pyroute2 what decodes links, and what imports pyroute2 itself gets all of it."""

import subprocess
import sys

from tests.e2e.keeper_bench import ROOT

NOT_NEEDED = {"pyroute2.ndb", "pyroute2.iproute", "pyroute2.plan9", "pyroute2.netlink.nfnetlink", "pyroute2.netlink.rtnl.tcmsg"}


def python(program: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_server_imports_no_more_of_it_than_it_needs() -> None:
    loaded = set(python("import sys, mcastd.kernel.links; print(*sys.modules)").split())
    assert "pyroute2.netlink.rtnl.ifinfmsg" in loaded
    assert NOT_NEEDED & loaded == set()
    assert "pyroute2" not in loaded


def test_others_can_import_it_afterwards() -> None:
    assert python("import mcastd.kernel.links; from pyroute2 import IPRoute; print(IPRoute.__name__)") == "IPRoute\n"


def test_who_has_imported_it_keeps_it() -> None:
    assert python("import pyroute2, mcastd.kernel.links, sys; print(sys.modules['pyroute2'] is pyroute2)") == "True\n"
