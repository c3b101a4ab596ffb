"""A card in this process: its executor runs, nothing is attached, and its engines only take notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.xe.bench import Bench, noting_engines
from tests.support.xe.guc_driver import GucDriver
from vfio_user_xe.device_models.xe import gpu as composition


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    monkeypatch.setattr(composition, "Engines", noting_engines)
    benches: list[Bench] = []

    def make(**options: Any) -> Bench:
        bench = Bench(**options)
        benches.append(bench)
        return bench

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(vfs=2)


@pytest.fixture
def driver(bench: Bench) -> GucDriver:
    """The PF's driver, with firmware and CT buffers running."""
    bench.map_ggtt(0x1000000, 1 << 20, 0x10000000)
    driver = GucDriver(bench)
    driver.boot()
    driver.start_ct()
    return driver
