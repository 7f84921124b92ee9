"""Where settings come from, and what is refused with which words."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mcastd.cli import addresses, configuration
from mcastd.cli.addresses import split_addresses
from mcastd.cli.configuration import load_settings
from mcastd.cli.flags import Flags
from mcastd.keeper.channel import MESSAGE_MAX, Message, encode
from mcastd.keeper.failure import CannotRun
from mcastd.keeper.identity import Identity
from mcastd.model.limits import Limits
from mcastd.model.settings import Access, Listen, Settings

Load = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _fixed_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users and groups of the host do not matter here."""

    def identity(user: str | None) -> Identity:
        if user == "nobody-knows":
            raise CannotRun(78, "user 'nobody-knows' does not exist")
        return Identity(user or "mcastd", 990, 991, change=True)

    monkeypatch.setattr(configuration, "server_identity", identity)
    monkeypatch.setattr(addresses, "gid_exists_here", lambda _gid: True)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(file: str | None = None, environment: dict[str, str] | None = None, **flags: object) -> Settings:
        if file is not None:
            path = tmp_path / "mcastd.toml"
            path.write_text(file, encoding="utf-8")
            flags["config"] = str(path)
        return load_settings(Flags(**flags), environment or {})  # type: ignore[arg-type]

    return load


def refusal(load: Load, *arguments: object, **more: object) -> CannotRun:
    with pytest.raises(CannotRun) as caught:
        load(*arguments, **more)
    return caught.value


def test_defaults(load: Load) -> None:
    assert load() == Settings(
        listens=(Listen("/run/mcastd/mcastd.sock", 0o600, None, Access.ADMIN, "local"),),
        state_dir="/var/lib/mcastd",
        user="mcastd",
        uid=990,
        gid=991,
        change_user=True,
        metrics="",
        log_level="info",
        limits=Limits(1_000_000, 16_384, 16_384, 60.0, stop_unrouted=True, other_tables=frozenset()),
        tables=(),
        config="",
    )


def test_everything_from_the_file(load: Load, tmp_path: Path) -> None:
    settings = load(
        """
        [daemon]
        listen = ["unix:/run/a.sock"]
        state_dir = "/srv/mcastd"
        metrics = "[::1]:9797"
        user = "someone"
        log_level = "warning"
        routes_max = 5
        learned_max = 6
        stops_max = 7
        idle_timeout = 86400
        unrouted = "ignore"
        tables = [10, 20, 10]

        [[listen]]
        address = "unix:/run/b.sock"
        mode = "0666"
        access = "view"
        owner = "lab"
        group = "root"

        [[table]]
        number = 0
        unrouted = "stop"

        [[table]]
        number = 10
        unrouted = "ignore"

        [[table]]
        number = 20
        """
    )
    assert settings.listens == (
        Listen("/run/a.sock", 0o600, None, Access.ADMIN, "local"),
        Listen("/run/b.sock", 0o666, 0, Access.VIEW, "lab"),
    )
    assert (settings.state_dir, settings.metrics, settings.user) == ("/srv/mcastd", "[::1]:9797", "someone")
    assert (settings.log_level, settings.tables) == ("warning", (10, 20))
    assert settings.limits == Limits(5, 6, 7, 86_400.0, stop_unrouted=False, other_tables=frozenset({0}))
    assert [settings.limits.stops(table) for table in (0, 10, 20, 30)] == [True, False, False, False]
    assert settings.config == str(tmp_path / "mcastd.toml")


@pytest.mark.parametrize(
    "name,values",
    [
        ("state_dir", ["/flag", "/variable", "/file", "/var/lib/mcastd"]),
        ("metrics", ["a:1", "b:2", "c:3", ""]),
        ("user", ["one", "two", "three", "mcastd"]),
        ("log_level", ["debug", "warning", "error", "info"]),
    ],
)
def test_flag_before_environment_before_file_before_default(load: Load, name: str, values: list[str]) -> None:
    flag, variable, file, default = values
    text = f'[daemon]\n{name} = "{file}"\n'
    environment = {f"MCASTD_{name.upper()}": variable}
    assert getattr(load(text, environment, **{name: flag}), name) == flag
    assert getattr(load(text, environment), name) == variable
    assert getattr(load(text, {f"MCASTD_{name.upper()}": ""}), name) == file
    assert getattr(load(), name) == default


def test_listening_addresses_replace_each_other_as_a_whole(load: Load) -> None:
    file = '[[listen]]\naddress = "unix:/file"\n'
    environment = {"MCASTD_LISTEN": "unix:/one,mode=0666,access=view unix:/two,unix:/three,owner=x"}

    def paths(settings: Settings) -> list[str]:
        return [listen.path for listen in settings.listens]

    assert paths(load(file, environment, listen=["unix:/flag"])) == ["/flag"]
    assert paths(load(file, environment)) == ["/one", "/two", "/three"]
    assert paths(load(file)) == ["/file"]


def test_config_by_environment(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[daemon]\nroutes_max = 7\n")
    assert load(environment={"MCASTD_CONFIG": str(path)}).limits.routes_max == 7


def test_options_of_an_address(load: Load) -> None:
    (listen,) = load(listen=["unix:///run/x.sock,mode=640,access=write,owner=lab-1,group=root"]).listens
    assert listen == Listen("/run/x.sock", 0o640, 0, Access.WRITE, "lab-1")


def test_group_opens_the_socket_to_it(load: Load) -> None:
    (listen,) = load(listen=["unix:/x,group=root"]).listens
    assert listen.mode == 0o660


@pytest.mark.parametrize(
    "text,parts",
    [
        ("", []),
        (" unix:/a  unix:/b\n", ["unix:/a", "unix:/b"]),
        ("unix:/a,unix:/b", ["unix:/a", "unix:/b"]),
        ("unix:/a,mode=0600,unix:/b,owner=x", ["unix:/a,mode=0600", "unix:/b,owner=x"]),
    ],
)
def test_addresses_of_a_variable(text: str, parts: list[str]) -> None:
    assert split_addresses(text) == parts


@pytest.mark.parametrize(
    "address,says",
    [
        ("tcp:127.0.0.1:50051", "TLS"),
        ("0.0.0.0:50051", "write unix:PATH or tcp:"),
        ("[::]:50051", "write unix:PATH or tcp:"),
        ("/run/x.sock", "unix:/run/x.sock"),
        ("unix:x.sock", "absolute"),
        ("unix:/run/", "absolute"),
        ("unix:", "absolute"),
        ("unix-abstract:x", "write unix:PATH or tcp:"),
        ("tcp:0.0.0.0:50051,plain=yes", "no loopback address"),
        ("tcp:0.0.0.0:50051,cert=/a,key=/b", "ca is missing"),
        ("tcp:0.0.0.0:50051,cert=/a,key=b,ca=/c", "absolute path"),
        ("tcp:[::1]:50051,plain=yes,ca=/c", "there is no TLS"),
        ("tcp:[::1]:50051,plain=perhaps", "yes or no"),
        ("tcp:router.lab:50051,plain=yes", "tcp:ADDRESS:PORT"),
        ("tcp:127.0.0.1:0,plain=yes", "tcp:ADDRESS:PORT"),
        ("tcp:[fe80::1]:50051,plain=yes", "unique local"),
        ("tcp:[fe80::1%eth0]:50051,plain=yes", "unique local"),
        ("tcp:[::ffff:127.0.0.1]:50051,plain=yes", "write it as IPv4: tcp:127.0.0.1:50051"),
        ("tcp:127.0.0.1:50051,mode=0600", "for unix: addresses"),
        ("unix:/x/y,cert=/a", "for tcp: addresses"),
        ("tcp:0.0.0.0:1,cert=/a,key=/b,ca=/c,access=view", "[[principal]]"),
        ("unix:/" + "x" * 102, "102"),
        ("unix:/x,mode=0999", "0660"),
        ("unix:/x,mode=rw", "0660"),
        ("unix:/x,mode=01777", "0660"),
        ("unix:/x,colour=red", "mode="),
        ("unix:/x,mode", "mode="),
        ("unix:/x,mode=0600,mode=0660", "twice"),
        ("unix:/x,access=root", "view, write, admin"),
        ("unix:/x,owner=", "owner"),
        ("unix:/x,owner=kernel", "kernel"),
        ("unix:/x,owner=config", "config"),
        ("unix:/x,group=no-such-group", "groupadd"),
    ],
)
def test_refused_addresses(load: Load, address: str, says: str) -> None:
    by_flag = refusal(load, listen=[address])
    assert by_flag.exit_code == 64
    assert str(by_flag).startswith("--listen")
    assert says in str(by_flag)
    by_variable = refusal(load, environment={"MCASTD_LISTEN": address})
    assert by_variable.exit_code == 78
    assert "MCASTD_LISTEN" in str(by_variable)


@pytest.mark.parametrize(
    "text,says",
    [
        ("[demon]\n", ["demon", "daemon, listen"]),
        ("daemon = 3\n", ["daemon", "3", "a table"]),
        ("[daemon]\nuser = 3\n", ["daemon.user", "3", "a string"]),
        ("[daemon]\nroutes_max = true\n", ["daemon.routes_max", "True", "a number"]),
        ("[daemon]\nroutes_max = 0\n", ["daemon.routes_max", "0", "choose 1 to"]),
        ("[daemon]\nlearned_max = 0\n", ["daemon.learned_max", "0", "choose 1 to"]),
        ("[daemon]\nstops_max = 100000001\n", ["daemon.stops_max", "100000001", "choose 1 to 100000000"]),
        ("[daemon]\nidle_timeout = 86401\n", ["daemon.idle_timeout", "86401", "choose 1 to 86400"]),
        ("[daemon]\nidle_timeout = 1.5\n", ["daemon.idle_timeout", "1.5", "a number"]),
        ("[daemon]\nrouter_discovery_interval = 3\n", ["daemon.router_discovery_interval", "3", "choose 4 to 180"]),
        ("[daemon]\nrouter_discovery_interval = 181\n", ["daemon.router_discovery_interval", "181", "choose 4 to 180"]),
        ("[daemon]\nunrouted = 'drop'\n", ["daemon.unrouted", "'drop'", "stop", "ignore"]),
        ("table = [3]\n", ["table", "[[table]]"]),
        ("[table]\nnumber = 3\n", ["table", "a list"]),
        ("[[table]]\nunrouted = 'stop'\n", ["table 1.number is missing"]),
        ("[[table]]\nnumber = 1\n[[table]]\nnumber = -1\n", ["table 2.number", "-1", "0 to 999999999"]),
        ("[[table]]\nnumber = 1000000000\n", ["table 1.number", "1000000000"]),
        ("[[table]]\nnumber = 1\nunrouted = 'x'\n", ["table 1.unrouted", "'x'", "ignore"]),
        ("[[table]]\nnumber = 1\nname = 'x'\n", ["table 1.name", "number, unrouted"]),
        ("[daemon]\nstate = '/x'\n", ["daemon.state", "'/x'", "state_dir"]),
        ("[daemon]\nstate_dir = 'x'\n", ["daemon.state_dir", "'x'", "absolute"]),
        ("[daemon]\nmetrics = '9797'\n", ["daemon.metrics", "'9797'", "HOST:PORT"]),
        ("[daemon]\nmetrics = '::1:9797'\n", ["daemon.metrics", "[IPV6]:PORT"]),
        ("[daemon]\nmetrics = 'x:65536'\n", ["daemon.metrics", "65536"]),
        ("[daemon]\nlog_level = 'loud'\n", ["daemon.log_level", "'loud'", "debug, info"]),
        ("[daemon]\nuser = 'nobody-knows'\n", ["daemon.user", "nobody-knows"]),
        ("[daemon]\ntables = ['a']\n", ["daemon.tables", "'a'"]),
        ("[daemon]\ntables = [0]\n", ["daemon.tables", "0", "always open"]),
        ("[daemon]\ntables = [254]\n", ["daemon.tables", "254", "default table"]),
        ("[daemon]\ntables = [1000000000]\n", ["daemon.tables", "999999999"]),
        (f"[daemon]\ntables = {list(range(300, 557))}\n", ["daemon.tables", "257 tables", "256"]),
        ("[daemon]\nlisten = [3]\n", ["daemon.listen", "3", "strings"]),
        ("[daemon]\nlisten = ['unix:/a', 'unix:/a']\n", ["/a", "twice"]),
        ("[listen]\naddress = 'unix:/x'\n", ["listen", "a list"]),
        ("listen = [3]\n", ["listen", "[[listen]]"]),
        ("[[listen]]\nmode = '0660'\n", ["listen 1", "address"]),
        ("[[listen]]\naddress = 'unix:/x'\nmode = 660\n", ["listen 1.mode", "660", "a string"]),
        (
            "[[listen]]\naddress = 'unix:/x'\n[[listen]]\naddress = 'unix:/y'\nacess = 'view'\n",
            ["listen 2.acess", "'view'", "access"],
        ),
        ("[[listen]]\naddress = 'unix:/x'\naccess = 'all'\n", ["listen 1: access", "'all'"]),
        (f"[daemon]\nmetrics = '{'x' * 300}:1'\n", ["daemon.metrics", "300 characters"]),
        ("[[table]]\nnumber = 1\n" * 258, ["table", "258 tables", "256"]),
        ("[daemon\n", ["not TOML", "line 1"]),
    ],
)
def test_refused_files(load: Load, tmp_path: Path, text: str, says: list[str]) -> None:
    error = refusal(load, text)
    assert error.exit_code == 78
    for word in says:
        assert word in str(error)
    if "twice" not in says:
        assert str(tmp_path / "mcastd.toml") in str(error)


def test_file_that_is_not_there(load: Load) -> None:
    error = refusal(load, config="/nonexistent/mcastd.toml")
    assert (error.exit_code, "/nonexistent/mcastd.toml" in str(error)) == (78, True)


def test_file_that_is_not_text(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "mcastd.toml"
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in str(refusal(load, config=str(path)))


def test_group_of_others_is_refused_where_the_user_stays(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "server_identity", lambda _user: Identity("me", 1000, 1000, change=False))
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    assert "not a member" in str(refusal(load, listen=["unix:/x,group=root"]))


def test_group_that_this_namespace_has_not(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "gid_exists_here", lambda _gid: False)
    assert "user namespace" in str(refusal(load, listen=["unix:/x,group=root"]))


def test_settings_fit_into_a_message(load: Load) -> None:
    """As large as they can be, but for the path of the file and the state directory, which the kernel limits to 4095 bytes."""
    name, owner = "\u20ac" * 32, "o" * 63
    addresses = [f"unix:/{name}{n:03},mode=0660,owner={owner}" for n in range(configuration.LISTENS_MAX + 1)]
    tables = "".join(f"[[table]]\nnumber = {10**8 + n}\nunrouted = 'ignore'\n" for n in range(257))
    file = f"[daemon]\ntables = {list(range(10**8, 10**8 + 256))}\n{tables}"
    found = load(file, listen=addresses[:-1], state_dir="/" + "d" * 4094, metrics=f"{'h' * 294}:1")
    body = {"settings": found.to_json(), "sockets": 514, "started_at": 1.7e9, "started_monotonic": 1e6, "starts": 10**6}
    assert len(encode(Message.HELLO, body=body)) < MESSAGE_MAX - 4096
    error = refusal(load, file, listen=addresses)
    assert (error.exit_code, "65 sockets" in str(error), "at most 64" in str(error)) == (78, True, True)


def test_any_address_of_one_family_is_that_of_the_other(load: Load) -> None:
    """With either gRPC listens on both families."""
    tls = "cert=/a,key=/b,ca=/c"
    with pytest.raises(CannotRun, match=r"\[::\]:50051 is listened on twice"):
        load("", listen=[f"tcp:0.0.0.0:50051,{tls}", f"tcp:[::]:50051,{tls}"])


@pytest.mark.parametrize("said", ["all", "refusals", "off"])
def test_how_much_is_audited(load: Load, said: str) -> None:
    assert load(f'[daemon]\naudit = "{said}"\n').audit == said
    assert load("").audit == "all"


def test_an_unknown_audit(load: Load) -> None:
    with pytest.raises(CannotRun, match=r"daemon\.audit: 'some' can't be used: choose all, refusals, off"):
        load('[daemon]\naudit = "some"\n')
