"""The state of a set of threads, as plain arrays: it can be saved in the middle of a program and run on elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.ir import ENDED, LANES
from vfio_user_xe.device_models.xe.eu.registers import CR0, DISPATCH_MASKS, GRF_BYTES, STORAGE_BYTES


class Status(IntEnum):
    """What a thread does."""

    RUNNING = 0
    """It can run."""
    WAITING = 1
    """For the reply to a message; `Threads.complete` brings it."""
    BARRIER = 2
    """In `sync.bar`; `Threads.notify` ends that."""
    STOPPED = 3
    """At a send that is to be sent again: after `Threads.resume`."""
    EXCEPTION = 4
    """At an instruction that raised `Threads.cause`."""
    ENDED = 5


class Cause(IntEnum):
    """Why a thread is in `Status.EXCEPTION`."""

    NONE = 0
    ILLEGAL = 1
    """An illegal opcode, or an encoding that means nothing."""
    BREAKPOINT = 2
    """Bit 30 of the instruction."""
    DESCRIPTOR = 3
    """A message whose payload or response reaches beyond the register file."""
    SOFTWARE = 4
    """The thread has set bit 29 of cr0.1, behind the instruction that did."""


_RUNNABLE_FROM = {
    "complete": frozenset({Status.WAITING}),
    "resume": frozenset({Status.STOPPED, Status.EXCEPTION}),
}


class ThreadStateError(RuntimeError):
    """A call that the state of a thread does not allow."""


@dataclass
class Threads:
    """`count` threads; every array's first index is the thread. To be used from one host thread at a time."""

    registers: NDArray[np.uint8]
    """[threads, STORAGE_BYTES]: see `registers.py`."""
    place: NDArray[np.int64]
    """[threads, 32]: address at which each lane is, or `ENDED`."""
    depth: NDArray[np.int32]
    """[threads, 32]: calls that each lane is in."""
    dispatched: NDArray[np.uint32]
    """[threads]: lanes that were there at the beginning."""
    status: NDArray[np.uint8]
    cause: NDArray[np.uint8]
    pending: NDArray[np.int64]
    """[threads]: address of the send whose reply is awaited, or -1."""
    pending_lanes: NDArray[np.uint32]
    """[threads]: lanes (bit `k`: lane `k` of the send's width) that the reply is for."""
    notifications: NDArray[np.uint32]
    """[threads]: completed barriers that `sync.bar` has not taken yet (n0.0)."""
    skip_breakpoint: NDArray[np.bool_]
    """[threads]: the next instruction does not raise a breakpoint again."""
    system_lanes: NDArray[np.uint32]
    """[threads]: lanes that are in the system routine."""
    executed: NDArray[np.int64]
    """[threads]: instructions executed."""

    @classmethod
    def create(cls, entry: int, dispatch: Sequence[int], cr0: int = 0) -> Threads:
        """New threads at `entry` with these dispatch masks (32 bits each), registers zero but for cr0 and sr0's masks.

        `cr0` is cr0.0, with cr0.1 in bits 63:32.
        """
        count = len(dispatch)
        masks = np.array(dispatch, dtype=np.uint32)
        lanes = lane_matrix(masks)
        registers = np.zeros((count, STORAGE_BYTES), dtype=np.uint8)
        registers[:, CR0 : CR0 + 8] = np.frombuffer(cr0.to_bytes(8, "little"), dtype=np.uint8)
        for at in DISPATCH_MASKS:
            registers[:, at : at + 4] = masks[:, None].view(np.uint8)
        return cls(
            registers=registers,
            place=np.where(lanes, entry, ENDED).astype(np.int64),
            depth=np.zeros((count, LANES), dtype=np.int32),
            dispatched=masks,
            status=np.full(count, Status.RUNNING, dtype=np.uint8),
            cause=np.zeros(count, dtype=np.uint8),
            pending=np.full(count, -1, dtype=np.int64),
            pending_lanes=np.zeros(count, dtype=np.uint32),
            notifications=np.zeros(count, dtype=np.uint32),
            skip_breakpoint=np.zeros(count, dtype=np.bool_),
            system_lanes=np.zeros(count, dtype=np.uint32),
            executed=np.zeros(count, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.status)

    def grf(self, thread: int, number: int, count: int = 1) -> NDArray[np.uint8]:
        """General registers `number` and on of a thread, as a view of bytes."""
        return self.registers[thread, number * GRF_BYTES : (number + count) * GRF_BYTES]

    def save(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays by name; `restore` takes them."""
        return {item.name: getattr(self, item.name).copy() for item in fields(self)}

    @classmethod
    def restore(cls, arrays: dict[str, NDArray[Any]]) -> Threads:
        """The threads that `save` was called on.

        Raises:
            KeyError: an array is missing.
            ValueError: one has another shape than the registers' first index asks for.
        """
        copies = {item.name: arrays[item.name].copy() for item in fields(cls)}
        count = len(copies["registers"])
        for name, array in copies.items():
            if len(array) != count:
                raise ValueError(f"saved array {name} is of {len(array)} threads, registers of {count}")
        if copies["registers"].shape[1] != STORAGE_BYTES:
            raise ValueError(f"saved registers have {copies['registers'].shape[1]} bytes, not {STORAGE_BYTES}")
        return cls(**copies)

    def current(self) -> NDArray[np.int64]:
        """Each thread's own place: the lowest of its deepest lanes; `ENDED` if no lane is left."""
        live = self.place != ENDED
        depth = np.where(live, self.depth, -1)
        deepest = depth == depth.max(axis=1, keepdims=True)
        current: NDArray[np.int64] = np.where(deepest & live, self.place, ENDED).min(axis=1)
        return current

    def notify(self, threads: Sequence[int]) -> None:
        """A barrier that these threads signalled is complete."""
        self.notifications[threads] += 1
        for thread in threads:
            if self.status[thread] == Status.BARRIER:
                self.status[thread] = Status.RUNNING

    def resume(self, threads: Sequence[int], skip_breakpoint: bool = False) -> None:
        """Lets stopped threads run on from the instruction that they are at.

        Raises:
            ThreadStateError: a thread is neither stopped nor in an exception.
        """
        for thread in threads:
            self.require(thread, "resume")
        self.status[threads] = Status.RUNNING
        self.cause[threads] = Cause.NONE
        self.skip_breakpoint[threads] = skip_breakpoint

    def require(self, thread: int, call: str) -> None:
        """Check that the thread's status allows `call`.

        Raises:
            ThreadStateError: it does not.
        """
        status = Status(int(self.status[thread]))
        if status not in _RUNNABLE_FROM[call]:
            allowed = ", ".join(sorted(state.name.lower() for state in _RUNNABLE_FROM[call]))
            raise ThreadStateError(f"thread {thread} is {status.name.lower()}; {call} needs {allowed}")


def lane_matrix(masks: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Bits of masks as [threads, 32] booleans."""
    return (masks[:, None] >> np.arange(LANES, dtype=np.uint32) & 1).astype(np.bool_)


def lane_bits(lanes: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """[threads, lanes] booleans as masks."""
    weights = np.uint32(1) << np.arange(lanes.shape[1], dtype=np.uint32)
    masks: NDArray[np.uint32] = (lanes * weights).sum(axis=1, dtype=np.uint64).astype(np.uint32)
    return masks
