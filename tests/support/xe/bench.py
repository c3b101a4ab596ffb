"""A card in this process: its executor runs, nothing is attached, and its engines may only take notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from emulator.card import Card, CardConfig
from emulator.registers import Register

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
