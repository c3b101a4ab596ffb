"""The trace of execution units: kernels, disassembled where they are first run, what dispatches them, and threads in words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from vfio_user_xe.device_models.xe.eu.decode import ProgramTooLong, Reader, decode
from vfio_user_xe.device_models.xe.eu.disassembler import disassemble
from vfio_user_xe.device_models.xe.eu.ir import AnyInstruction, Program
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.emulator.observe.tap import Sampler, Tap

_MOST_KERNELS = 4096
"""That are remembered; then they are told anew."""


class _Told(NamedTuple):
    first: int
    code: bytes


class KernelTrace:
    """What the tap `eu` is told of one engine. Everything but the tap is used on the card's executor."""

    def __init__(self, engine: str) -> None:
        """`engine` is its name."""
        self.tap = Tap(
            "eu", "kernels that execution units run, disassembled, and threads that cannot go on", self._begins
        )
        self._engine = engine
        self._told: dict[tuple[str, int], _Told] = {}

    def _begins(self) -> Sampler:
        """A trace begins: it has no kernels yet."""
        self._told = {}
        return _nothing

    def kernel(self, function: str, what: str, base: int, entry: int, read: Reader) -> None:
        """Tell the kernel at `entry` from instruction base `base` once, and again when other code is there.

        `what` runs it: COMPUTE_WALKER, or a stage's command. `read` reads instruction memory from instruction base on. For when the tap is on.
        """
        place = base + entry
        fields: dict[str, Any] = {"engine": self._engine, "by": what, "address": place}
        told = self._told
        try:
            known = told.get((function, place))
            if known is not None and bytes(read(known.first, len(known.code))) == known.code:
                return
            program = decode(read, entry)
            first, last = program.instructions[0].address, program.instructions[-1].next
            if len(told) >= _MOST_KERNELS:
                told.clear()
            told[function, place] = _Told(first, bytes(read(first, last - first)))
        except (TranslationFault, AccessFault, ProgramTooLong) as wrong:
            self.tap(function, "kernel", fields | {"unreadable": str(wrong)})
            return
        self.tap(function, "kernel", fields | {"instructions": len(program.instructions)})
        labels = partial(_label, program, base)
        for instruction in program.instructions:
            self.tap(function, "instruction", partial(_line, instruction, base, labels))

    def walker(self, function: str, fields: Mapping[str, Any]) -> None:
        """Tell a walker that begins. For when the tap is on."""
        self.tap(function, "walker", {"engine": self._engine, **fields})

    def thread(self, function: str, text: str) -> None:
        """Tell of a thread, a line an event. Nothing while the tap is off."""
        if self.tap.on:
            for line in text.splitlines():
                self.tap(function, "thread", {"engine": self._engine, "text": line})


def _label(program: Program, base: int, address: int) -> str | None:
    return f"0x{base + address:x}" if address in program.labels else None


def _line(instruction: AnyInstruction, base: int, labels: partial[str | None]) -> Mapping[str, Any]:
    return {"address": base + instruction.address, "text": disassemble(instruction, labels)}


def _nothing() -> None:
    pass
