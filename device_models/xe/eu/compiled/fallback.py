"""Single instructions of compiled threads in the interpreter: those without handlers, and modes that handlers do not have.

One of them takes a thousand times what a compiled one does, so each is told to whoever counts them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot
from vfio_user_xe.device_models.xe.eu.decode import Reader
from vfio_user_xe.device_models.xe.eu.kinds import describe_kind
from vfio_user_xe.device_models.xe.eu.port import MessagePort
from vfio_user_xe.device_models.xe.eu.reference import exceptions
from vfio_user_xe.device_models.xe.eu.reference.interpreter import Interpreter
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, Threads

_ROUTINE_SLICE = 64
"""Instructions of the system routine at once."""


class Fallback:
    """Steps threads of slots on their own storage. One host thread at a time.

    `read` reads the instructions that the slots' kernel was compiled from, `port` serves messages, `tell` takes the kind of
    each instruction that is executed here.
    """

    def __init__(
        self,
        read: Reader,
        port: MessagePort,
        clock: Callable[[], int] = lambda: 0,
        tell: Callable[[str], None] = lambda kind: None,
    ) -> None:
        self._nobody = Threads.create(0, [])
        self._interpreter = Interpreter(read, self._nobody, port, clock)
        self._tell = tell
        self._held: dict[tuple[int, int], Threads] = {}

    def step(self, slot: Slot, thread: int) -> Status:
        """Execute the instruction that `thread` is at, after `Slot.run` came back with INTERPRET for it.

        RUNNING and ENDED need nothing more. In WAITING, STOPPED and EXCEPTION the thread is set aside in its slot: see
        `complete` and `resume`.

        Raises:
            Whatever the port and `read` raise; the thread is then at the instruction still.
        """
        view = self._view(slot, thread)
        self._interpreter.threads = view
        try:
            instruction = self._interpreter.instruction(0)
            if instruction is not None and not view.system_lanes[0]:
                self._tell(describe_kind(instruction))
            # The system routine is not compiled.
            self._interpreter.run(_ROUTINE_SLICE if view.system_lanes[0] else 1)
        finally:
            self._interpreter.threads = self._nobody
        return self._settle(slot, thread, view)

    def complete(self, slot: Slot, thread: int, data: NDArray[np.uint8] | None = None) -> Status:
        """Bring the response that `thread` (WAITING) waits for.

        Raises:
            ThreadStateError: it waits for none.
        """
        view = self._view(slot, thread)
        self._interpreter.threads = view
        try:
            self._interpreter.complete(0, data)
        finally:
            self._interpreter.threads = self._nobody
        return self._settle(slot, thread, view)

    def resume(self, slot: Slot, thread: int, skip_breakpoint: bool = False) -> Status:
        """Let `thread` (STOPPED or EXCEPTION) go on at the instruction that it is at.

        Raises:
            ThreadStateError: it is in neither.
        """
        view = self._view(slot, thread)
        view.resume([0], skip_breakpoint)
        return self._settle(slot, thread, view)

    def in_routine(self, slot: Slot, thread: int) -> int:
        """The lanes of a thread that are in the system routine."""
        held = self._held.get((id(slot), thread))
        return int(held.system_lanes[0]) if held is not None else 0

    def put_in_routine(self, slot: Slot, thread: int, lanes: int) -> None:
        """These lanes of a thread that was saved elsewhere are in the system routine."""
        view = self._view(slot, thread)
        view.system_lanes[0] = lanes
        self._held[id(slot), thread] = view

    def handle(self, slot: Slot, thread: int, routine: int) -> bool:
        """Bring a thread in EXCEPTION to the system routine, or behind what it is at (`exceptions.handle`); False: it cannot go on."""
        view = self._view(slot, thread)
        if not exceptions.handle(view, 0, routine):
            return False
        self._settle(slot, thread, view)
        return True

    def cause(self, slot: Slot, thread: int) -> Cause:
        """Why a thread is in EXCEPTION."""
        return Cause(int(self._view(slot, thread).cause[0]))

    def _view(self, slot: Slot, thread: int) -> Threads:
        held = self._held.get((id(slot), thread))
        if held is not None:
            held.notifications[0] = slot.threads[thread].notifications
            return held
        part = slice(thread, thread + 1)
        view = Threads.create(0, [0])
        view.registers = slot.registers[part]
        view.place = slot.places[part]
        view.depth = slot.depths[part]
        view.status[0] = Status.RUNNING
        view.notifications[0] = slot.threads[thread].notifications
        return view

    def _settle(self, slot: Slot, thread: int, view: Threads) -> Status:
        status = Status(int(view.status[0]))
        slot.threads[thread].notifications = int(view.notifications[0])
        key = (id(slot), thread)
        if status is Status.RUNNING and not view.skip_breakpoint[0] and not view.system_lanes[0]:
            self._held.pop(key, None)
            slot.resume(thread)
        elif status is Status.RUNNING:
            self._held[key] = view
            slot.resume(thread)
        elif status is Status.ENDED:
            self._held.pop(key, None)
            slot.end(thread)
        else:
            self._held[key] = view
            slot.set_aside(thread)
        return status
