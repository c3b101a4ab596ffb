"""Which back end kernels run on while the handlers are built, and where they cannot be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from tests.support.logs import messages
from vfio_user_xe.device_models.xe.compute import back_end
from vfio_user_xe.device_models.xe.compute.compiled_units import CompiledUnits
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.eu.compiled import build


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module as in a new process."""

    def forget() -> None:
        back_end._preparation.cache_clear()
        back_end._loaded.cache_clear()
        back_end._prepared.clear()

    forget()
    yield
    forget()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> CompiledUnits:
    """What the compiled back end is, without a compiler."""
    units: CompiledUnits = create_autospec(CompiledUnits, instance=True)
    monkeypatch.setattr(back_end, "CompiledUnits", create_autospec(CompiledUnits, return_value=units))
    monkeypatch.setattr(back_end, "load", create_autospec(back_end.load))
    return units


def test_kernels_run_on_the_reference_back_end_until_the_handlers_are_built(
    monkeypatch: pytest.MonkeyPatch, compiled: CompiledUnits
) -> None:
    may_end = threading.Event()

    def library() -> Path:
        may_end.wait(30)
        return Path("handlers.so")

    monkeypatch.setattr(build, "is_built", lambda: False)
    monkeypatch.setattr(build, "library", library)
    back_end.prepare()
    assert isinstance(back_end.units(), ReferenceUnits)
    may_end.set()
    thread = back_end._preparation()
    assert thread is not None
    thread.join(30)
    assert back_end.units() is compiled


def test_handlers_that_are_there_are_not_built_again(monkeypatch: pytest.MonkeyPatch, compiled: CompiledUnits) -> None:
    monkeypatch.setattr(build, "is_built", lambda: True)
    monkeypatch.setattr(build, "library", create_autospec(build.library, side_effect=AssertionError))
    back_end.prepare()
    assert back_end.units() is compiled


def test_handlers_that_cannot_be_built_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = create_autospec(build.library, side_effect=build.NoCompiler("no compiler is there"))
    monkeypatch.setattr(build, "is_built", lambda: False)
    monkeypatch.setattr(build, "library", failing)
    monkeypatch.setattr(back_end, "load", create_autospec(back_end.load, side_effect=build.NoCompiler("none is there")))
    back_end.prepare()
    thread = back_end._preparation()
    assert thread is not None
    thread.join(30)
    assert isinstance(back_end.units(), ReferenceUnits)
    assert isinstance(back_end.units(), ReferenceUnits)
    assert [line for line in messages(caplog, back_end.log) if "none is there" in line] == [
        "kernels run on the reference back end, which is slow: none is there"
    ]
