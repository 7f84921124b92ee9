"""The lines of the audit log, caught in the process that writes them."""

import logging
from typing import Any

import pytest

from mcastd.model.settings import AUDIT_LOGGER


class Lines(logging.Handler):
    """The lines of the log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, level: int = logging.INFO) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        logger = logging.getLogger(AUDIT_LOGGER)
        monkeypatch.setattr(logger, "handlers", [self])
        monkeypatch.setattr(logger, "level", level)
        logger.manager._clear_cache()  # type: ignore[attr-defined] # levels are remembered

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self, *names: str) -> list[tuple[Any, ...]]:
        """Some fields of each line."""
        return [tuple(getattr(one, name, None) for name in names) for one in self.records]
