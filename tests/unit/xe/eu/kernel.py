"""Runs assembled programs on the reference back end, with a port that tests supply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import create_autospec

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.port import MessagePort, Reply, Request
from vfio_user_xe.device_models.xe.eu.reference.interpreter import Interpreter, RunState
from vfio_user_xe.device_models.xe.eu.reference.threads import Threads

KEEP_DENORMALS = 0x4C0
"""cr0.0 as IGC sets it: the three denormal bits."""
END = "(W) send.gtwy (1|M0)  null  r112  null:0  0x0  0x02000010  {EOT}\n"


class Port:
    """Keeps requests; replies come from `answer`, which gives none by default."""

    def __init__(self, answer: Callable[[Request], Reply] = lambda request: Reply()) -> None:
        self.requests: list[Request] = []
        self._answer = answer

    def send(self, request: Request) -> Reply:
        self.requests.append(request)
        return self._answer(request)


def spec_port() -> Any:
    """A mock of a port, for programs that send nothing but the end."""
    port = create_autospec(MessagePort, instance=True)
    port.send.return_value = Reply()
    return port


def reader(code: bytes, base: int = 0) -> Callable[[int, int], bytes]:
    def read(address: int, count: int) -> bytes:
        return code[address - base : address - base + count] if address >= base else b""

    return read


def start(
    text: str,
    dispatch: Sequence[int] = (0xFFFF,),
    registers: dict[int, Any] | None = None,
    port: Any = None,
    cr0: int = KEEP_DENORMALS,
    clock: Callable[[], int] = lambda: 0,
) -> Interpreter:
    """An interpreter at the beginning of a program; `registers` are arrays by their first register, of all threads."""
    threads = Threads.create(0, list(dispatch), cr0)
    for number, values in (registers or {}).items():
        data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        threads.registers[:, number * 64 : number * 64 + len(data)] = data
    return Interpreter(reader(assemble(text)), threads, port if port is not None else spec_port(), clock)


def run(text: str, *arguments: Any, **options: Any) -> Threads:
    """Runs a program to its end, which is appended, and gives the threads."""
    interpreter = start(text + "\n" + END, *arguments, **options)
    assert interpreter.run(1_000_000) is RunState.ENDED
    return interpreter.threads


def lanes(threads: Threads, number: int, dtype: Any, count: int = 16, thread: int = 0) -> NDArray[Any]:
    """Elements of a register and those behind it."""
    size = np.dtype(dtype).itemsize
    start_byte = number * 64
    return threads.registers[thread, start_byte : start_byte + count * size].copy().view(dtype)
