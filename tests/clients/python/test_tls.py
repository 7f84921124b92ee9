"""Clients over TLS: certificates that are wrong, that change while streams are open, and files that are of no use."""

import asyncio
import logging
from pathlib import Path

import pytest

from mcast.client import Backoff, Client, ConfigurationError, Disconnected, NotAllowed, Synced, Tls, Unavailable, View, route
from mcastd.model.settings import Access
from tests.api.remote import LOOPBACK, Remotely, flow, remotely
from tests.pki import Credentials, Pki

QUICK = Backoff(0.02, 0.2)


def tls(found: Remotely, who: Credentials | None, ca: Path | None = None) -> Tls:
    """Files of somebody."""
    return Tls(ca or found.pki.ca, who.cert if who else "", who.key if who else "")


def give(to: Credentials, what: Credentials) -> None:
    """Replace files, the certificate first: for a moment they do not fit."""
    to.cert.write_bytes(what.cert.read_bytes())
    to.key.write_bytes(what.key.read_bytes())


@pytest.mark.parametrize("family", [4, 6])
async def test_who_has_a_good_certificate_is_served(tmp_path: Path, family: int) -> None:
    async with (
        remotely(tmp_path, family) as found,
        Client(found.remote.target, tls(found, found.pki.named("alice")), backoff=QUICK) as client,
    ):
        assert (await client.put(flow(1))).created == 1
        async with client.program(epoch=1) as session:
            await session.put(flow(2))
            assert await session.flush() == []
            assert session.opened.owner == "alice"


async def test_without_a_certificate_the_reason_is_told(tmp_path: Path) -> None:
    async with remotely(tmp_path) as found:
        async with Client(found.remote.target, tls(found, None), timeout=2, backoff=QUICK) as client:
            with pytest.raises(Unavailable, match=r"no daemon answers at 127\.0\.0\.1"):
                await client.status()
        async with Client(found.remote.target, tls(found, None), wait_for_ready=False) as client:
            with pytest.raises(Unavailable):
                await asyncio.wait_for(client.status(), 5)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(anext(client.watch("route")), 5)


async def test_the_daemon_of_another_ca_is_not_spoken_to(tmp_path: Path) -> None:
    async with remotely(tmp_path) as found, remotely(tmp_path / "other") as other:
        files = tls(found, found.pki.named("alice"), other.pki.ca)
        client = Client(found.remote.target, files, wait_for_ready=False)
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await client.status()
        await client.close()


async def test_a_role_that_does_not_suffice_ends_watch_and_session(tmp_path: Path) -> None:
    async with remotely(tmp_path) as found:
        async with Client(found.remote.target, tls(found, found.pki.named("eve")), backoff=QUICK) as client:
            with pytest.raises(NotAllowed) as caught:
                async with client.program():
                    pass
            assert caught.value.reason == "NOT_ALLOWED"
            async with client.view("route") as view:
                await view.ready()
                found.principals(alice=Access.WRITE)
                with pytest.raises(NotAllowed):
                    await asyncio.wait_for(until_it_ends(view), 10)
                assert view.error is not None
        async with Client(found.remote.target, tls(found, found.pki.named("nobody")), backoff=QUICK) as client:
            with pytest.raises(NotAllowed):
                await anext(client.watch("route"))


async def until_it_ends(view: View) -> None:
    """Wait for what ends a view."""
    while True:
        await view.changed(view.version)


async def test_new_certificates_are_taken_and_open_streams_go_on(tmp_path: Path) -> None:
    async with remotely(tmp_path) as found:
        mine = found.pki.client("mine")
        give(mine, found.pki.named("alice"))
        files = tls(found, mine)
        async with Client(found.remote.target, files, backoff=QUICK) as client:
            assert (await client.put(flow(1))).created == 1
            watch = client.watch("route")
            seen = [await anext(watch), await anext(watch), await anext(watch)]
            assert isinstance(seen[-1], Synced)
            give(mine, found.pki.named("root"))
            async with asyncio.timeout(20):
                while not await is_root(client):  # noqa: ASYNC110 - the files are looked at by the clock
                    await asyncio.sleep(0.05)
            await client.put(flow(2))
            event = await asyncio.wait_for(anext(watch), 5)
            assert not isinstance(event, Disconnected)
            await watch.aclose()


async def is_root(client: Client) -> bool:
    """Whether the daemon takes this client for root: who may act for others."""
    try:
        await client.put(flow(3), owner="someone", validate_only=True)
    except NotAllowed:
        return False
    return True


async def test_bad_files_leave_the_last_good_ones_in_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with remotely(tmp_path) as found:
        mine = found.pki.client("mine")
        give(mine, found.pki.named("alice"))
        async with Client(found.remote.target, tls(found, mine), backoff=QUICK) as client:
            await client.status()
            mine.cert.write_text("rubbish")
            with caplog.at_level(logging.WARNING, "mcast.client"):
                async with asyncio.timeout(20):
                    while "going on with the last good files" not in caplog.text:
                        await client.status()
                        await asyncio.sleep(0.05)
            assert str(mine.cert) in caplog.text


async def test_files_of_no_use_are_told_before_anything_is_sent(tmp_path: Path) -> None:
    missing = Tls(tmp_path / "ca.pem")
    async with Client("127.0.0.1:1", missing) as client:
        with pytest.raises(ConfigurationError, match=r"ca\.pem: No such file"):
            await client.status()
    (tmp_path / "ca.pem").write_text("rubbish")
    async with Client("127.0.0.1:1", missing) as client:
        with pytest.raises(ConfigurationError, match=r"ca\.pem has no certificates"):
            await client.status()


@pytest.mark.parametrize(
    "address,files,said",
    [
        ("router", None, "is no address"),
        ("unix:", None, "names no socket"),
        ("10.0.0.1:50051", None, "give tls"),
        ("unix:/run/x", Tls("ca"), "takes no TLS"),
        ("[::1]:99999", None, "is no address"),
        ("127.example.net:50051", None, "give tls"),
        ("localhost.example.net:50051", None, "give tls"),
    ],
)
def test_bad_targets_are_refused(address: str, files: Tls | None, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Client(address, files)


def test_a_bundle_with_comments_of_all_languages_is_used(tmp_path: Path) -> None:
    ca = Pki(tmp_path / "pki").ca
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# Tanúsítvány\n{ca.read_text()}", "utf-8")
    assert Tls(bundle).read()[0] == bundle.read_bytes()


def test_a_path_is_a_socket_and_loopback_needs_no_tls() -> None:
    assert Client("/run/x").address == "unix:/run/x"
    assert [Client(f"{host}:1").address for host in (LOOPBACK[4], "[::1]", "localhost")]
    assert route("239.1.1.1").group
