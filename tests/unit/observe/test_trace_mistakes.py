"""Traces of device models that make mistakes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import logs
from vfio_user_xe.emulator.observe import trace
from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.observe.trace import Tracer

MISTAKES = [ZeroDivisionError(), SystemExit(3)]


def lines_of(path: Path) -> list[str]:
    """The trace without its times."""
    return [line[13:] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("error", MISTAKES)
def test_fields_are_computed_on_the_tracers_thread_and_may_fail(error: BaseException, tmp_path: Path) -> None:
    tracer = Tracer()
    tap = tracer.tap("guc")
    threads: list[str] = []

    def fields() -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        raise error

    tracer.start(["guc"], tmp_path / "t")
    tap("pf", "bad", fields)
    tap("pf", "good")
    tracer.stop()
    assert threads == ["trace"]
    assert lines_of(tmp_path / "t") == [f"pf   guc    bad error={error!r}", "pf   guc    good"]


@pytest.mark.parametrize("error", MISTAKES)
def test_a_sampler_that_fails_is_asked_no_more_and_costs_nothing_else(
    error: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def sampler() -> None:
        asked.append(1)
        raise error

    tracer = Tracer()
    tracer.join(Tap("sensor", sampler=lambda: sampler))
    tap = tracer.tap("guc")
    tracer.start(["all"], tmp_path / "t")
    tap("pf", "good")
    tracer.stop()
    assert lines_of(tmp_path / "t") == ["pf   guc    good"]
    assert asked == [1]
    assert "what a tap samples is missing" in logs.text(caplog, trace.log)
