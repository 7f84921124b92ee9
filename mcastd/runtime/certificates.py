"""Certificates of the API's listeners: looked at again and again, and told of in the metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mcastd.api.certificates import Certificates
from mcastd.telemetry.metrics import Metrics

LOOK_SECONDS = 5.0
"""Between two looks at the files."""


async def tend(certificates: Sequence[Certificates], metrics: Metrics, start_late: Callable[[], Awaitable[None]]) -> None:
    """Read certificates again when their files change, until cancelled; `start_late` serves where there are good ones at last."""
    while True:
        for one in certificates:
            one.refresh()
            address = one.remote.address
            metrics.certificate_expiry.labels(address).set(one.expires)
            metrics.tls_files_good.labels(address).set(not one.problem)
        await start_late()
        await asyncio.sleep(LOOK_SECONDS)
