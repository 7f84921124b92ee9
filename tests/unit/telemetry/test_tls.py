"""mcastd.telemetry.tls: when certificates end, read from their bytes."""

import base64
import subprocess
from calendar import timegm
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.model.certificate import not_after
from tests.unit.telemetry.certificates import make_ca, make_certificate


@pytest.mark.parametrize("days", [1, 400, 20_000])
def test_the_end_is_what_openssl_says(tmp_path: Path, days: int) -> None:
    """Beyond 2049 the time is of another type."""
    make_ca(tmp_path)
    make_certificate(tmp_path, "one", days=days)
    command = ["openssl", "x509", "-enddate", "-noout", "-in", str(tmp_path / "one.crt")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().removeprefix("notAfter=")
    expected = timegm(datetime.strptime(said, "%b %d %H:%M:%S %Y %Z").timetuple())  # noqa: DTZ007 - GMT, which timegm takes
    assert not_after((tmp_path / "one.crt").read_text()) == expected


@given(st.binary(max_size=200))
def test_garbage_is_an_error_and_no_crash(data: bytes) -> None:
    text = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(data).decode()}\n-----END CERTIFICATE-----\n"
    try:
        found = not_after(text)
    except ValueError:
        return
    assert isinstance(found, float)


def test_no_certificate_at_all() -> None:
    with pytest.raises(ValueError, match="no certificate in PEM"):
        not_after("nothing")
