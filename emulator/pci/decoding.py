"""Which bus addresses the functions of a card decode: their BARs, as a switch above them would route by."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from vfio_user_xe.emulator.pci.bars import BAR0_OFFSET, BARS, Bar
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MEMORY
from vfio_user_xe.emulator.pci.function import Function
from vfio_user_xe.emulator.pci.sriov import CONTROL

_ADDRESS_MASK = ~0xF


class Decoded(NamedTuple):
    """BAR `number` of `function` answers at bus addresses `[base, end)`."""

    base: int
    end: int
    function: Function
    number: int
    bar: Bar


class BusDecoder:
    """The BARs that are decoded now: memory enabled (VFs: VF Enable and VF MSE of their PF), in D0, at an address."""

    def __init__(self, functions: Sequence[Function]) -> None:
        self._functions = functions
        self._changes = 0
        self._known: tuple[int, list[Decoded]] = (-1, [])
        self.on_change: list[Callable[[], None]] = []
        """Called after any BAR was switched on or off, or moved; on the thread that did it, often inside an access."""
        for function in functions:
            function.on_reset.append(self._changed)
            function.on_power.append(self._changed)
            function.config.watch(COMMAND, 2, self._changed)
            for index in range(BARS):
                function.config.watch(BAR0_OFFSET + 4 * index, 4, self._changed)
            if function.sriov is not None:
                function.sriov.on_enable.append(self._changed)
                function.sriov.on_disable.append(self._changed)
                function.config.watch(function.sriov.offset + CONTROL, 2, self._changed)

    def decoded(self) -> list[Decoded]:
        """By address. Do not change it."""
        changes, known = self._known
        if changes != self._changes:
            # A change in between makes this result out of date by its number, on every thread that stores it.
            changes = self._changes
            known = sorted(self._look(), key=lambda decoded: decoded.base)
            self._known = changes, known
        return known

    def at(self, address: int) -> Decoded | None:
        """The BAR that `address` falls into."""
        known = self.decoded()
        found = bisect.bisect_right(known, address, key=lambda decoded: decoded.base) - 1
        return known[found] if found >= 0 and address < known[found].end else None

    def _changed(self, *_: object) -> None:
        self._changes += 1
        for callback in self.on_change:
            callback()

    def _look(self) -> Iterator[Decoded]:
        sriov = self._functions[0].sriov if self._functions else None
        for function in self._functions:
            if function.power_state:
                continue  # only configuration space answers in D3hot (PCI Power Management 1.2, 5.4.1)
            for index, bar in function.bars.items():
                base = 0
                if function.is_vf:
                    if sriov is not None and sriov.memory_enabled and function.index in sriov.enabled_vfs:
                        base = sriov.bar_address(index, function.index)
                elif function.config.peek(COMMAND, 2) & COMMAND_MEMORY:
                    base = function.config.peek(BAR0_OFFSET + 4 * index, 8 if bar.is_64bit else 4) & _ADDRESS_MASK
                if base:
                    yield Decoded(base, base + bar.size, function, index, bar)
