"""Engines that run nothing, for as long as `device_models.xe.engines` is not written: a card that can be probed.

To be removed with the first working `Engines`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from device_models.xe.engines import Context, Engines
from device_models.xe.function import XeFunction
from emulator.registers import Register


class NoEngines(Engines):
    """Takes contexts and never runs them."""

    def __init__(self) -> None:
        self.engines = []
        self.trace = None

    def register(self, context: Context) -> None: ...

    def remove(self, context: Context) -> None: ...

    def enable(self, context: Context) -> None: ...

    def kick(self, context: Context) -> None: ...

    def disable(self, context: Context, done: Callable[[], None]) -> None:
        done()

    def resume(self, context: Context, success: bool = True) -> None: ...

    def policy_changed(self, context: Context) -> None: ...

    def function_policy(self, vfid: int, *, quantum_us: int, preempt_us: int, priority: int = 0) -> None: ...

    def pause_function(self, vfid: int, done: Callable[[], None]) -> None:
        done()

    def resume_function(self, vfid: int) -> None: ...

    def reset_function(self, vfid: int) -> None: ...

    def reset(self) -> None: ...

    def invalidate(self, function: XeFunction, asid: int | None = None) -> None: ...

    def registers(self) -> list[Register]:
        return []

    def activity(self) -> dict[tuple[str, int], int]:
        return {}

    def inspect(self) -> list[dict[str, Any]]:
        return []
