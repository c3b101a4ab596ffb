"""A translated program in memory, as the handlers read it."""

from __future__ import annotations

import ctypes
import logging

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.compiled import store
from vfio_user_xe.device_models.xe.eu.compiled.image import MESSAGE_AT, OP_ARRAY, OP_AT, Image, image_of
from vfio_user_xe.device_models.xe.eu.compiled.layout import OP, KernelStruct
from vfio_user_xe.device_models.xe.eu.compiled.library import Library
from vfio_user_xe.device_models.xe.eu.compiled.memory import aligned
from vfio_user_xe.device_models.xe.eu.compiled.pixel_messages import SAMPLER_HANDLERS
from vfio_user_xe.device_models.xe.eu.compiled.translator import translate
from vfio_user_xe.device_models.xe.eu.compiled.typed_messages import TYPED_HANDLERS
from vfio_user_xe.device_models.xe.eu.decode import Reader, decode
from vfio_user_xe.device_models.xe.eu.ir import Program

_log = logging.getLogger(__name__)
_OF_IMAGES = frozenset(SAMPLER_HANDLERS + TYPED_HANDLERS)


class Kernel:
    """Ops of one program. Immutable, and may be run by any number of threads at once."""

    def __init__(self, image: Image, entry: int, library: Library) -> None:
        self.library = library
        self.entry = entry
        self.interpreted = tuple(address + entry for address in image.interpreted)
        """Addresses of instructions without handlers: the interpreter executes them."""
        self.reaches_images = not _OF_IMAGES.isdisjoint(image.handlers)
        """It has messages to the sampler, or to typed surfaces."""
        self._constants = _copy(image.constants)
        self._messages = _copy(image.messages)
        self._op_at = image.op_at.copy()
        self._ops = aligned(len(image.ops))
        self._ops[:] = image.ops
        self._found: dict[tuple[str, int], list[bytes]] = {}
        base = self._ops.ctypes.data
        ops = self._ops.view(OP_ARRAY)
        ops["handler"] = np.array([_address(library, name) for name in image.handlers], dtype=np.uint64)[ops["handler"]]
        ops["address"] += np.uint32(entry & 0xFFFF_FFFF)
        kinds, values = ops["extra"] & 3, ops["extra"] >> 2
        pointers = np.where(kinds == MESSAGE_AT, values + np.uint64(self._messages.ctypes.data), np.uint64(0))
        ops["extra"] = np.where(kinds == OP_AT, values * np.uint64(OP.size) + np.uint64(base), pointers)
        self.struct = KernelStruct(
            ops=base,
            op_at=self._op_at.ctypes.data,
            first=image.first + entry,
            last=image.last + entry,
            constants=self._constants.ctypes.data,
        )

    def messages(self, handler: str, size: int) -> list[bytes]:
        """What the ops of one handler have as their messages of `size` bytes."""
        if (handler, size) not in self._found:
            self._found[handler, size] = self._messages_of(handler, size)
        return self._found[handler, size]

    def _messages_of(self, handler: str, size: int) -> list[bytes]:
        ops, address = self._ops.view(OP_ARRAY), self.library.handler(handler)
        places = ops["extra"][ops["handler"] == np.uint64(address or 0)] - np.uint64(self._messages.ctypes.data)
        return [self._messages[place : place + size].tobytes() for place in places.tolist()]

    @property
    def address(self) -> int:
        """Of the `struct kernel`."""
        return ctypes.addressof(self.struct)


def compile_program(program: Program, library: Library) -> Kernel:
    """Make a program ready, whose first entry is where threads begin. About 30 µs an instruction; from any thread.

    Raises:
        ValueError: the program has no instructions.
    """
    if not program.instructions:
        raise ValueError("a program without instructions cannot be compiled")
    return Kernel(image_of(program, translate(program, library.handler)), program.entries[0], library)


def load_kernel(read: Reader, entry: int, library: Library) -> Kernel:
    """The kernel at `entry`: out of the user's cache folder if the same code was compiled before, and into it otherwise.

    May be called from any thread and process.

    Raises:
        ProgramTooLong: see `decode`.
        Whatever `read` raises.
    """
    return find_kernel(read, entry, library) or translate_kernel(read, entry, library)


def find_kernel(read: Reader, entry: int, library: Library) -> Kernel | None:
    """The kernel at `entry` out of the user's cache folder; None: the code was not compiled before.

    Raises:
        Whatever `read` raises.
    """
    image = store.find(read, entry)
    return None if image is None else Kernel(image, entry, library)


def translate_kernel(read: Reader, entry: int, library: Library) -> Kernel:
    """The kernel at `entry`, compiled, and kept in the user's cache folder. From any thread, as `read` allows.

    Raises:
        ProgramTooLong: see `decode`.
        Whatever `read` raises.
    """
    program = decode(read, entry)
    image = image_of(program, translate(program, library.handler))
    try:
        store.keep(read, program, image)
    except OSError as error:
        _log.warning("a compiled kernel cannot be kept: %s", error)
    return Kernel(image, entry, library)


def _address(library: Library, name: str) -> int:
    address = library.handler(name)
    if address is None:
        raise RuntimeError(f"there is no handler {name}")
    return address


def _copy(data: bytes) -> NDArray[np.uint8]:
    memory = aligned(len(data) + 64)
    memory[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return memory
