"""Opening the tables of a start, with patience where the server of a killed daemon still has them."""

import logging
import select
import time

from mcastd.keeper.failure import EX_NOPERM, EX_OSERR, EX_UNAVAILABLE, CannotRun
from mcastd.keeper.signals import ENDING, Signals
from mcastd.keeper.tables import Tables
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Settings

PATIENCE = 5.0
"""Seconds that a table may be taken at the start: the server of a killed keeper needs up to 3 to end its calls."""

_RETRY = 0.1

_EXIT_CODES = {Reason.MROUTE_SOCKET_BUSY: EX_UNAVAILABLE, Reason.NOT_ALLOWED: EX_NOPERM}

_log = logging.getLogger(__name__)


def open_tables(tables: Tables, settings: Settings, signals: Signals) -> bool:
    """Open all tables of the start that are not open yet; False if asked to end while they were taken."""
    give_up_at, waiting = time.monotonic() + PATIENCE, False
    while True:
        try:
            tables.open_default()
            for table in settings.tables:
                tables.open(table)
        except McastdError as exc:
            if exc.reason is not Reason.MROUTE_SOCKET_BUSY or time.monotonic() >= give_up_at:
                raise CannotRun(_EXIT_CODES.get(exc.reason, EX_OSERR), str(exc)) from exc
            if not waiting:
                _log.warning(
                    "waiting for whoever holds the table to end, such as the server of a killed daemon",
                    extra={**exc.problem.metadata, "seconds": PATIENCE},
                )
            waiting = True
        else:
            return True
        select.select([signals], [], [], _RETRY)
        for number in signals.take():
            if number not in ENDING:
                continue  # The configuration will be read, and the program is the newest, in a moment.
            _log.info("asked to end before the start", extra={"signal": number.name})
            return False
