"""What a module has logged while a test ran.

`caplog` collects from every logger, so a line from another test's thread would be counted too: a test names the logger
of the module that it tests.
"""

from __future__ import annotations

import logging

import pytest


def records(caplog: pytest.LogCaptureFixture, logger: logging.Logger) -> list[logging.LogRecord]:
    """The records of `logger` alone, in order."""
    return [record for record in caplog.records if record.name == logger.name]


def messages(caplog: pytest.LogCaptureFixture, logger: logging.Logger) -> list[str]:
    """The messages of `logger` alone, in order."""
    return [record.getMessage() for record in records(caplog, logger)]


def text(caplog: pytest.LogCaptureFixture, logger: logging.Logger) -> str:
    """What `logger` alone has written, tracebacks included."""
    return "\n".join(caplog.handler.format(record) for record in records(caplog, logger))
