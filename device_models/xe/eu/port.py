"""Where messages go: the seam between the execution units and what serves them (compute, render, the fabric's memory)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.ir import Send
from vfio_user_xe.device_models.xe.eu.messages.message import Message


class Outcome(IntEnum):
    """What became of a thread's message."""

    DONE = 0
    """Served; the response, if there is one, is in `Reply.data`."""
    PENDING = 1
    """Accepted; the response comes later by `Interpreter.complete`. Until then the thread waits."""
    RETRY = 2
    """Not accepted, nothing has happened (a page fault): the thread stops at the send, until it is resumed."""


@dataclass(frozen=True)
class Request:
    """A message of one or more threads that send it at the same place with the same descriptors."""

    send: Send
    message: Message
    """With `Surface.value` still None where it comes from a0: `surface` has it."""
    surface: int | None
    """Index or byte offset of the surface (state), wherever it came from; None for flat addresses."""
    threads: NDArray[np.int64]
    """[n]: which threads, as indices into the interpreter's threads."""
    lanes: NDArray[np.bool_]
    """[n, width]: lanes that take part; lane `k` is the thread's lane `send.first_lane + k`."""
    payload: NDArray[np.uint8]
    """[n, 64 · (length0 + length1)]: both parts of the payload, one behind the other."""
    length0: int
    """Registers of the first part."""


@dataclass(frozen=True)
class Reply:
    """The answer to a `Request`."""

    data: NDArray[np.uint8] | None = None
    """[n, 64 · response_length]; None if there is no response. Of lanes that take no part nothing is taken over."""
    outcome: NDArray[Any] | None = None
    """[n] of `Outcome`; None says that all are `DONE`."""


class MessagePort(Protocol):
    """Serves messages. Called on the interpreter's thread, with the threads' state as it is at the send."""

    def send(self, request: Request) -> Reply:
        """Serves one message of each of `request.threads`.

        Raises:
            Exception: whatever it is leaves `Interpreter.run`, with all threads at their sends.
        """
        ...
