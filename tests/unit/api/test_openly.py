"""mcastd.api.openly: health and reflection over TLS, for whoever has a certificate, within limits."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mcastd.api import openly
from mcastd.model.principal import Quota
from tests.api.bench import refusal
from tests.api.remote import LOOPBACK, Client, remotely
from tests.api.rig import refused

CHECK = health_pb2.HealthCheckRequest()


@pytest.fixture(params=LOOPBACK)
async def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> AsyncIterator[Client]:
    """Whom no principal names."""
    monkeypatch.setattr(openly, "QUOTA", Quota(streams=2, requests=3))
    async with remotely(tmp_path, request.param) as at, at.client("stranger") as found:
        yield found


async def test_whoever_has_a_certificate_may_ask(stranger: Client) -> None:
    health: Any = health_pb2_grpc.HealthStub(stranger.channel)
    assert (await health.Check(CHECK)).status == health_pb2.HealthCheckResponse.SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(stranger.channel)
    call = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    services = {one.name async for answer in call for one in answer.list_services_response.service}
    assert "mcast.v1.RouteService" in services
    assert await call.code() is grpc.StatusCode.OK
    assert (await refused(stranger.status())).reason == "NOT_ALLOWED"


async def test_but_not_as_often_as_he_likes(stranger: Client) -> None:
    health: Any = health_pb2_grpc.HealthStub(stranger.channel)
    for _ in range(6):
        await health.Check(CHECK)
    found = await refused(health.Check(CHECK))
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT")
    assert "fixed for health and reflection" in found.message


async def test_nor_as_many_streams(stranger: Client) -> None:
    health: Any = health_pb2_grpc.HealthStub(stranger.channel)
    streams = [health.Watch(CHECK) for _ in range(2)]
    for one in streams:
        assert (await one.read()).status == health_pb2.HealthCheckResponse.SERVING
    third = health.Watch(CHECK)
    with pytest.raises(grpc.RpcError) as caught:
        await third.read()
    assert refusal(caught.value).reason == "STREAM_LIMIT"
    for one in streams:
        one.cancel()


async def test_an_unknown_method_stays_one(stranger: Client) -> None:
    channel: Any = stranger.channel
    with pytest.raises(grpc.RpcError) as caught:
        await channel.unary_unary("/grpc.health.v1.Health/Frobnicate")(b"")
    assert refusal(caught.value).code is grpc.StatusCode.UNIMPLEMENTED
