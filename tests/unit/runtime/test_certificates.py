"""mcastd.runtime.certificates: certificates are looked at again, and the metrics tell of them."""

from pathlib import Path

import pytest
from prometheus_client import generate_latest

from mcastd.api.certificates import Certificates
from mcastd.runtime import certificates
from mcastd.runtime.tasks import cancel, spawn
from mcastd.telemetry.metrics import Metrics
from tests.api.waiting import until
from tests.pki import Pki


async def test_metrics_follow_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0.01)
    pki, metrics = Pki(tmp_path), Metrics()
    found = Certificates(pki.remote(50_051))
    looks: list[int] = []

    async def start_late() -> None:
        looks.append(1)

    tending = spawn(certificates.tend([found], metrics, start_late), "certificates")
    listener = 'listener="tcp:127.0.0.1:50051"'

    def told(name: str) -> str:
        lines = generate_latest(metrics.registry).decode().splitlines()
        return next((line.rpartition(" ")[2] for line in lines if line.startswith(f"{name}{{{listener}}}")), "")

    try:
        await until(lambda: told("mcastd_tls_files_good") == "1.0")
        assert float(told("mcastd_tls_certificate_expiry_timestamp_seconds")) == found.expires
        good = pki.server.key.read_bytes()
        pki.server.key.write_text("nonsense")
        await until(lambda: told("mcastd_tls_files_good") == "0.0")
        assert float(told("mcastd_tls_certificate_expiry_timestamp_seconds")) == found.expires
        pki.server.key.write_bytes(good)
        await until(lambda: told("mcastd_tls_files_good") == "1.0")
        assert looks
    finally:
        await cancel(tending)
