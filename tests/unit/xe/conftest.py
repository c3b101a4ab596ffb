"""A card in this process: its executor runs, nothing is attached, and its engines only take notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.xe.guc_driver import GucDriver
from vfio_user_xe.device_models.xe import card as battlemage
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.model.registers import Register

PRESENT_VRAM = 3


class NotingEngines:
    """Engines that run nothing: `calls` is what was asked of them. Preemption is done at once."""

    def __init__(self, gt: Any, listener: Any) -> None:
        self.gt = gt
        self.listener = listener
        self.engines: list[Any] = []
        self.calls: list[tuple[Any, ...]] = []
        self.busy: dict[tuple[str, int], int] = {}

    def registers(self) -> list[Register]:
        return []

    def activity(self) -> dict[tuple[str, int], int]:
        return dict(self.busy)

    def inspect(self) -> list[dict[str, Any]]:
        return []

    def disable(self, context: Any, done: Callable[[], None]) -> None:
        self.calls.append(("disable", context))
        done()

    def pause_function(self, vfid: int, done: Callable[[], None]) -> None:
        self.calls.append(("pause_function", vfid))
        done()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def note(*arguments: Any, **named: Any) -> None:
            self.calls.append((name, *arguments, *named.values()))

        return note


class Bench:
    """A card with helpers to play a driver."""

    def __init__(self, **options: Any) -> None:
        config = CardConfig.default("xe")
        self.card = Card(replace(config, options={**config.options, **options}))
        self.card.start()
        self.gpu = self.card.model.gpu  # type: ignore[attr-defined]

    def close(self) -> None:
        self.card.stop()

    @property
    def pf(self) -> Any:
        return self.gpu.pf

    def read(self, offset: int, vfid: int = 0) -> int:
        return int(self.gpu.functions[vfid].registers.read(offset, 4))

    def write(self, offset: int, value: int, vfid: int = 0) -> None:
        self.gpu.functions[vfid].registers.write(offset, 4, value)

    def settle(self) -> None:
        """Until the executor has done everything that is queued now."""
        for _ in range(3):
            self.card.executor.run_sync(lambda: None, timeout=10)

    def run(self, job: Callable[[], Any]) -> Any:
        return self.card.executor.run_sync(job, timeout=10)

    def map_ggtt(self, start: int, size: int, target: int, vfid: int = 0) -> None:
        """GGTT [start, start + size) leads to VRAM from `target` on."""
        entries = self.gpu.functions[vfid].ggtt.entries
        for page in range(size >> 12):
            entries[(start >> 12) + page] = target + (page << 12) | PRESENT_VRAM


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    monkeypatch.setattr(battlemage, "Engines", NotingEngines)
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
