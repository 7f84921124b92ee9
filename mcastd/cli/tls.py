"""The command line of `mcastd tls`; what it does is in cli/lab.py, which imports much."""

import argparse
from typing import Any

DAYS = 397
"""Of a certificate, by default: what browsers take at most."""

CA_DAYS = 3650
"""Of the CA."""


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """The command line of `mcastd tls`."""
    tls = commands.add_parser("tls", help="make certificates for a lab", allow_abbrev=False)
    verbs = tls.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = verbs.add_parser(
        "init",
        help="make a CA, a server's and a client's certificate",
        description="Make a CA, a certificate of this router's server and one for each client; what is there already stays. "
        "Called again with other clients it makes theirs, signed by the same CA.",
        epilog="Exit codes: 0 done, 64 command line, 71 refused by the system, 78 a file is of no use.",
        allow_abbrev=False,
    )
    init.add_argument(
        "directory", metavar="DIR", nargs="?", default="/etc/mcastd/tls", help="where to (default: /etc/mcastd/tls)"
    )
    init.add_argument(
        "--host",
        metavar="NAME",
        action="append",
        help="name or address of the server, may be repeated (default: the host's name, localhost, 127.0.0.1, ::1)",
    )
    init.add_argument(
        "--client",
        metavar="NAME",
        action="append",
        help="a client: SPIFFE id, URI or DNS name, may be repeated (default: controller)",
    )
    init.add_argument(
        "--group",
        metavar="NAME",
        default="mcastd",
        help="group that may read the server's key, where it exists (default: mcastd)",
    )
    init.add_argument("--days", metavar="N", type=int, default=DAYS, help=f"how long certificates last (default: {DAYS})")
    init.add_argument("--renew", action="store_true", help="make certificates anew that are there, with new keys; not the CA")
