"""A card in this process: its executor runs, nothing is attached, and its engines may only take notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import getmembers, isfunction, signature
from typing import Any
from unittest.mock import NonCallableMock, create_autospec

from vfio_user_xe.device_models.xe.engines import engine_regs
from vfio_user_xe.device_models.xe.engines.command_tables import TABLES
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.engines import Engines
from vfio_user_xe.device_models.xe.engines.types import EngineListener
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace
from vfio_user_xe.emulator.model.card import Card, CardConfig

PRESENT_VRAM = 3


_ANSWERED = ("registers", "activity", "inspect", "has_work")


def noting_engines(gt: Any, listener: EngineListener, pipelines: Any = None) -> Any:
    """Engines that run nothing, with the methods and signatures of `Engines`. Preemption is done at once.

    `calls` is what was asked of them, `busy` is what their activity says.
    """
    engines = create_autospec(Engines, instance=True)
    engines.gt, engines.listener, engines.engines = gt, listener, []
    engines.calls, engines.busy = [], {}

    def noted(name: str, positions: Sequence[str]) -> Callable[..., None]:
        def note(*arguments: Any, **named: Any) -> None:
            values = dict(zip(positions, arguments, strict=False)) | named
            done = values.pop("done", None)
            engines.calls.append((name, *values.values()))
            if done is not None:
                done()

        return note

    for name, function in getmembers(Engines, isfunction):
        if not name.startswith("_") and name not in _ANSWERED:
            getattr(engines, name).side_effect = noted(name, list(signature(function).parameters)[1:])
    engines.registers.return_value = [one for info in gt.infos for one in engine_regs.declare(info, {})]
    engines.inspect.return_value = []
    engines.contexts = set()
    engines.has_work.return_value = False
    engines.activity.side_effect = lambda: dict(engines.busy)
    return engines


def mock_engine(gt: Gt, name: str = "", **attributes: Any) -> Any:
    """An engine of `gt`, its first without a name, that runs nothing. It has the attributes of `Engine` and no others."""
    info = next(info for info in gt.infos if name in ("", info.name))
    listener = create_autospec(EngineListener, instance=True)
    real = Engine(info, listener, gt.gpu.pf.registers, gt.gpu.vram, TABLES, gt.gpu.card.clock)
    shown = {"lrc": None, "live": real.live, "registers": real.registers}
    return NonCallableMock(spec_set=real, info=info, **(shown | attributes))


class OnExecutor:
    """A function's GGTT space, touched on the card's executor."""

    def __init__(self, bench: Bench, space: AddressSpace) -> None:
        self._run, self._space = bench.run, space

    def read(self, address: int, length: int) -> bytes:
        return bytes(self._run(lambda: self._space.read(address, length)))

    def write(self, address: int, data: bytes) -> None:
        self._run(lambda: self._space.write(address, data))


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

    def ggtt(self, vfid: int) -> OnExecutor:
        return OnExecutor(self, self.gpu.functions[vfid].ggtt_space)

    def settle(self) -> None:
        """Until the executor has done everything that is queued now."""
        for _ in range(3):
            self.card.executor.run_sync(lambda: None, timeout=200)

    def run(self, job: Callable[[], Any]) -> Any:
        return self.card.executor.run_sync(job, timeout=200)

    def map_ggtt(self, start: int, size: int, target: int, vfid: int = 0) -> None:
        """GGTT [start, start + size) leads to VRAM from `target` on."""
        entries = self.gpu.functions[vfid].ggtt.entries
        for page in range(size >> 12):
            entries[(start >> 12) + page] = target + (page << 12) | PRESENT_VRAM
