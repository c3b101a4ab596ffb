"""A translated program in memory, as the handlers read it."""

from __future__ import annotations

import ctypes

import numpy as np

from vfio_user_xe.device_models.xe.eu.compiled.emit import pack
from vfio_user_xe.device_models.xe.eu.compiled.layout import OP, KernelStruct
from vfio_user_xe.device_models.xe.eu.compiled.library import Library
from vfio_user_xe.device_models.xe.eu.compiled.memory import aligned
from vfio_user_xe.device_models.xe.eu.compiled.translator import Translation, translate
from vfio_user_xe.device_models.xe.eu.ir import AnyInstruction, Program


class Kernel:
    """Ops of one program. Immutable, and may be run by any number of threads at once."""

    def __init__(self, program: Program, library: Library, translation: Translation) -> None:
        self.program = program
        self.library = library
        self.interpreted: tuple[AnyInstruction, ...] = tuple(translation.interpreted)
        """Instructions without handlers: the interpreter executes them."""
        self._constants = _copy(bytes(translation.constants.data))
        self._messages = _copy(bytes(translation.messages))
        self._ops = aligned(OP.size * len(translation.ops))
        first = program.instructions[0].address
        last = program.instructions[-1].next
        self._op_at = np.full(max(1, (last - first) // 8), -1, dtype=np.int32)
        index_of: dict[int, int] = {}
        for index, (_, address, begins) in enumerate(translation.ops):
            if begins:
                index_of.setdefault(address, index)
        for address, index in index_of.items():
            if address < last:
                self._op_at[(address - first) // 8] = index
        base = self._ops.ctypes.data
        packed = bytearray()
        for op, address, begins in translation.ops:
            extra = 0
            if op.message is not None:
                extra = self._messages.ctypes.data + op.message
            elif op.target is not None:
                extra = base + OP.size * index_of[op.target]
            handler = library.handler(op.handler)
            assert handler is not None
            packed += pack(op, handler, address, begins, extra)
        self._ops[:] = np.frombuffer(packed, dtype=np.uint8)
        self.struct = KernelStruct(
            ops=base,
            op_at=self._op_at.ctypes.data,
            first=first,
            last=last,
            constants=self._constants.ctypes.data,
        )

    @property
    def address(self) -> int:
        """Of the `struct kernel`."""
        return ctypes.addressof(self.struct)


def compile_program(program: Program, library: Library, stateless_base: int = 0) -> Kernel:
    """Make a program ready; `stateless_base` is general state base, which stateless messages start from.

    Takes about 20 µs an instruction. May be called from any thread.

    Raises:
        ValueError: the program has no instructions.
    """
    if not program.instructions:
        raise ValueError("a program without instructions cannot be compiled")
    return Kernel(program, library, translate(program, library.handler, stateless_base))


def _copy(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    memory = aligned(max(64, len(data) + 64))
    memory[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return memory
