"""`mcastd check`: says what a configuration would put in force, or all that is wrong with it; touches nothing."""

import os
import sys
import time
from collections.abc import Iterator

from mcastd.cli.configuration import load_settings
from mcastd.cli.flags import Flags
from mcastd.cli.readable import files_of, reader_of, warnings
from mcastd.keeper.failure import EX_CONFIG, CannotRun
from mcastd.model.errors import McastdError
from mcastd.model.principal import Principal
from mcastd.model.record import InterfaceSettings
from mcastd.model.route import Oif, Route, Template
from mcastd.model.rule import Rule
from mcastd.model.settings import Settings
from mcastd.model.template import key_text
from mcastd.sources.config import Configuration, read_configuration
from mcastd.sources.faults import BadConfiguration


def check(path: str, *, quiet: bool) -> int:
    """Check a file and what it includes; the exit code. What only the server's user can't read is warned of, and no fault."""
    try:
        found = read_configuration(path)
        settings = load_settings(Flags(config=path), {})
    except BadConfiguration as exc:
        for fault in exc.faults:
            print(fault, file=sys.stderr)
        if exc.more:
            print("there are more", file=sys.stderr)
        return EX_CONFIG
    except CannotRun as exc:
        print(exc, file=sys.stderr)
        return exc.exit_code
    if not _certificates_good(settings):
        return EX_CONFIG
    if (reader := reader_of(settings)) is not None:
        for warning in warnings(reader, files_of(settings, found.files)):
            print(warning, file=sys.stderr)
    if not quiet:
        _print(found)
    return 0


def _certificates_good(settings: Settings) -> bool:
    """Whether a server could start with the files of all listeners with TLS, as far as who asks can read them.

    Of certificates that have ended, with which it does, is told too.
    """
    remotes, good = [remote for remote in settings.remotes if remote.cert], True
    if remotes:
        from mcastd.api.certificates import read_files, refused  # noqa: PLC0415 - gRPC, of which the others have no need

        for remote in remotes:
            try:
                problem = read_files(remote).problem(time.time())
            except McastdError as exc:
                if not isinstance(exc.__cause__, PermissionError):
                    print(exc, file=sys.stderr)
                    good = False
                continue
            if problem:
                print(refused(remote, problem), file=sys.stderr)
    return good


def _print(found: Configuration) -> None:
    try:
        for line in listing(found):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # a pager that was left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def listing(found: Configuration) -> Iterator[str]:
    """Counts, then a line for each thing, in the order of the files."""
    counts = {
        "files": len(found.files),
        "routes": len(found.routes),
        "joins": len(found.joins),
        "interfaces": len(found.settings),
        "tables": len(found.tables),
        "rules": len(found.rules),
        "principals": len(found.principals),
    }
    yield ", ".join(f"{name} {number}" for name, number in counts.items())
    yield from (f"file {path}" for path in found.files)
    yield from map(_route, found.routes.values())
    for join in found.joins.values():
        yield f"join {join.key}{_cookie(join.cookie)}"
    yield from map(_interface, found.settings.values())
    yield from map(_rule, found.rules)
    yield from map(_principal, found.principals.values())


def _principal(one: Principal) -> str:
    limits = (("streams", one.quota.streams), ("requests a second", one.quota.requests), ("routes", one.quota.routes))
    said = "".join(f", at most {limit} {what}" for what, limit in limits if limit)
    return f"principal {one.name}: {one.access.name.lower()}, owner {one.owner}{said}"


def _route(route: Route) -> str:
    oifs = ", ".join(map(_oif, route.paths.oifs)) or "nowhere"
    said = [name for name, is_said in (("join", route.join), ("monitored", route.monitored)) if is_said]
    iif = f" from {route.paths.iif}"
    if isinstance(route, Template):
        iif = ""  # It is in the key.
        said += ["shared tree"] if route.shared_tree else []
        said += [f"idle timeout {route.idle_timeout:g} s"] if route.idle_timeout else []
    return "".join([f"route {key_text(route.key)}{iif} to {oifs}", *(f", {one}" for one in said), _cookie(route.cookie)])


def _oif(oif: Oif) -> str:
    return f"{oif.interface} (ttl {oif.ttl_threshold})" if oif.ttl_threshold else oif.interface


def _cookie(cookie: str) -> str:
    return f", cookie {cookie!r}" if cookie else ""


def _interface(said: InterfaceSettings) -> str:
    words = [] if said.ttl_threshold is None else [f"ttl threshold {said.ttl_threshold}"]
    words += [f"{'pinned' if pin.pinned else 'not pinned'} in table {pin.table}" for pin in said.pins]
    if said.router_discovery is not None:
        words.append(f"router discovery {'on' if said.router_discovery else 'off'}")
    return f"interface {said.interface}: {', '.join(words) or 'nothing'}"


def _rule(rule: Rule) -> str:
    families = " and ".join(family.name for family in rule.families)
    return f"rule from {rule.iif} to table {rule.table}, priority {rule.priority}, {families}"
