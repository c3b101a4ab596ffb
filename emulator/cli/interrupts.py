"""SIGTERM and SIGHUP, which end a command as Ctrl-C does, where Ctrl-C itself is ignored, too."""

from __future__ import annotations

import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TypeVar

import trio

ResultT = TypeVar("ResultT")
Handler = Callable[[int, FrameType | None], object]

_of_trio: list[Handler] = []
"""trio's handler of SIGINT, while trio runs and SIGINT is ignored. It chooses a moment for a KeyboardInterrupt."""


def end_as_ctrl_c_does() -> None:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does, unless they are ignored or handled already."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _as_ctrl_c)


def run(function: Callable[..., Awaitable[ResultT]], *arguments: object) -> ResultT:
    """`trio.run`, which such a signal ends in an orderly way in a shell script's background job, too.

    There SIGINT is ignored, and trio has no handler of it: a KeyboardInterrupt would come out of trio's own loop, with all
    tasks abandoned. So trio is given SIGINT while it begins, and keeps its handler for us; SIGINT stays ignored.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ):
        return trio.run(function, *arguments)

    async def ignoring() -> ResultT:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        if callable(handler):
            _of_trio.append(handler)
        return await function(*arguments)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return trio.run(ignoring)
    finally:
        _of_trio.clear()
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # trio's own handler chooses a moment for it.
        signal.raise_signal(signal.SIGINT)
    elif _of_trio:
        _of_trio[0](signal.SIGINT, frame)
    else:  # a shell script's background job
        raise KeyboardInterrupt
