"""mcastd.api.quotas: buckets of requests, and streams that are open."""

import asyncio

import pytest

from mcastd.api import quotas
from mcastd.api.quotas import BURST, Quotas
from mcastd.model.errors import McastdError, Reason
from mcastd.model.principal import NO_QUOTA, Quota


class Used:
    """Quotas with a clock that a test moves."""

    def __init__(self, **quota: int) -> None:
        self.now = 100.0
        self.by_name = {"alice": Quota(**quota), "bob": Quota(**quota)}
        self.quotas = Quotas(lambda name: self.by_name.get(name, NO_QUOTA), lambda: self.now)

    def spend(self, name: str = "alice") -> int:
        """Make requests until one is refused; how many were not."""
        for made in range(10_000):
            try:
                self.quotas.request(name)
            except McastdError:
                return made
        return 10_000


def test_without_a_quota_there_is_no_limit() -> None:
    used = Used()
    assert used.spend() == used.spend("nobody") == 10_000
    with used.quotas.stream("alice"), used.quotas.stream("alice"):
        assert used.quotas.streams("alice") == 2


def test_requests_come_out_of_a_bucket() -> None:
    used = Used(requests=10)
    assert used.spend() == 10 * BURST
    used.now += 0.55
    assert used.spend() == 5
    used.now += 3600
    assert used.spend() == 10 * BURST
    assert used.spend("bob") == 10 * BURST  # another one's is another bucket


def test_a_refusal_says_when_to_come_again() -> None:
    used = Used(requests=4)
    used.spend()
    with pytest.raises(McastdError) as caught:
        used.quotas.request("alice")
    assert caught.value.reason is Reason.RATE_LIMIT
    assert caught.value.problem.metadata == {"limit": "4", "retry_after": "0.250"}
    used.now += 0.25
    used.quotas.request("alice")


def test_a_limit_that_changes_holds_at_once() -> None:
    used = Used(requests=10)
    used.spend()
    used.by_name["alice"] = NO_QUOTA
    assert used.spend() == 10_000
    used.by_name["alice"] = Quota(requests=1)
    used.now += 10
    assert used.spend() == BURST


async def test_a_message_waits() -> None:
    found = Quotas(lambda _: Quota(requests=50))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(110):
        await found.message("alice")
    assert 0.15 < loop.time() - began < 5


def test_streams_are_counted_until_they_end() -> None:
    used = Used(streams=2)
    with used.quotas.stream("alice"):
        with used.quotas.stream("alice"):
            with pytest.raises(McastdError) as caught, used.quotas.stream("alice"):
                pass
            assert (caught.value.reason, caught.value.problem.metadata) == (Reason.STREAM_LIMIT, {"limit": "2"})
            with used.quotas.stream("bob"):
                pass
        with used.quotas.stream("alice"):
            assert used.quotas.streams("alice") == 2
    assert used.quotas._streams == {}


def test_a_stream_that_fails_is_not_counted_any_more() -> None:
    used = Used(streams=1)
    with pytest.raises(ZeroDivisionError), used.quotas.stream("alice"):
        raise ZeroDivisionError
    assert used.quotas.streams("alice") == 0


def test_full_buckets_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a certificate of the CA may have a bucket, under `*`: names are many."""
    monkeypatch.setattr(quotas, "BUCKETS_MAX", 3)
    now = [0.0]
    found = Quotas(lambda _: Quota(requests=1), lambda: now[0])
    for name in "abc":
        found.request(name)
    now[0] += BURST
    found.request("c")
    found.request("d")
    assert set(found._buckets) == {"c", "d"}
