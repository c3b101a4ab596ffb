"""The reference back end: runs threads until each has ended or waits, or a slice is used up.

    threads = Threads.create(entry, dispatch=[0xFFFF] * 8, cr0=0x4C0)
    interpreter = Interpreter(read, threads, port, clock)
    while interpreter.run(10_000) is RunState.SLICE_USED: ...

Threads that are at the same place execute together. Those furthest behind in the code go first, since others meet them
there; a thread that has fallen more than `UNFAIR` instructions behind another goes before all, so that each makes progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.decode import Reader, decode
from vfio_user_xe.device_models.xe.eu.ir import (
    ENDED,
    LANES,
    Alu,
    AnyInstruction,
    Branch,
    Dpas,
    Illegal,
    Program,
    Register,
    Send,
    Sync,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid, SyncFunction
from vfio_user_xe.device_models.xe.eu.port import MessagePort, Outcome
from vfio_user_xe.device_models.xe.eu.reference import exceptions, sends
from vfio_user_xe.device_models.xe.eu.reference.alu import AluStep
from vfio_user_xe.device_models.xe.eu.reference.control import branch
from vfio_user_xe.device_models.xe.eu.reference.operands import Rows, predicate
from vfio_user_xe.device_models.xe.eu.reference.systolic import DpasStep
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, Threads, lane_bits
from vfio_user_xe.device_models.xe.eu.registers import CE0, CR0, IP, N0, TM0, Arf

Lanes = NDArray[np.bool_]
Clock = Callable[[], int]
"""Ticks of the timestamp counter, for tm0."""
UNFAIR = 1024


class RunState(Enum):
    """Why `Interpreter.run` came back."""

    ENDED = "all threads have ended"
    WAITING = "no thread can run: each has ended, waits, is stopped or in an exception"
    SLICE_USED = "the slice is used up"


class Interpreter:
    """Runs `threads` over the code that `read` gives. One host thread at a time."""

    def __init__(self, read: Reader, threads: Threads, port: MessagePort, clock: Clock = lambda: 0) -> None:
        self.threads = threads
        self._read = read
        self._port = port
        self._clock = clock
        self._program = Program((), ())
        self._steps: dict[int, AluStep | DpasStep] = {}

    def run(self, instructions: int) -> RunState:
        """Executes about this many instructions, each counted once for each thread.

        Raises:
            Whatever `read` and the port raise; all threads are then at an instruction that they have not executed.
        """
        threads = self.threads
        left = instructions
        while left > 0:
            running = threads.status == Status.RUNNING
            if not running.any():
                ended = bool((threads.status == Status.ENDED).all())
                return RunState.ENDED if ended else RunState.WAITING
            places = threads.current()
            rows = self._choose(np.nonzero(running)[0], places)
            left -= self._run_block(rows, int(places[rows[0]]), left)
        return RunState.SLICE_USED

    def complete(self, thread: int, data: NDArray[np.uint8] | None = None) -> None:
        """Brings the response (64 · response_length bytes) that `thread` waits for; the thread can run then.

        Raises:
            ThreadStateError: the thread waits for none.
            ValueError: the response has another length.
        """
        threads = self.threads
        threads.require(thread, "complete")
        send = self._instruction(int(threads.pending[thread]))
        assert isinstance(send, Send)
        rows = np.array([thread])
        if data is not None:
            bits = int(threads.pending_lanes[thread])
            lanes = np.array([[bool(bits >> lane & 1) for lane in range(send.width)]])
            found = sends.descriptors(send, threads.registers, rows)[0][0]
            sends.write_response(send, found.message, threads.registers, rows, lanes, data.reshape(1, -1))
        threads.pending[thread] = -1
        ended = bool((threads.place[thread] == ENDED).all())
        threads.status[thread] = Status.ENDED if ended else Status.RUNNING

    def instruction(self, thread: int) -> AnyInstruction | None:
        """What `thread` is at; None if it has ended."""
        place = int(self.threads.current()[thread])
        return None if place == ENDED else self._instruction(place)

    def enter_system_routine(self, threads: Sequence[int], address: int) -> None:
        """Moves threads that are in an exception to the system routine (execution.md 3.6)."""
        exceptions.enter(self.threads, threads, address)

    def _choose(self, running: Rows, places: NDArray[np.int64]) -> Rows:
        executed = self.threads.executed[running]
        gone = places[running] == ENDED
        if gone.any():
            # Every lane has left without an end-of-thread message: nothing can bring them back.
            return np.asarray(running[gone][:1])
        if executed.max() - executed.min() > UNFAIR:
            place = places[running[executed.argmin()]]
        else:
            place = places[running].min()
        return np.asarray(running[places[running] == place])

    def _instruction(self, address: int) -> AnyInstruction:
        found = self._program.by_address.get(address)
        if found is None:
            self._program = decode(self._read, address, known=self._program)
            found = self._program.by_address[address]
        return found

    def _run_block(self, rows: Rows, address: int, most: int) -> int:
        """Executes instructions of `rows` from `address` on until lanes may move; returns how many, over all threads."""
        threads = self.threads
        if address == ENDED:
            threads.status[rows] = Status.ENDED
            return len(rows)
        depth = threads.depth[rows]
        here = threads.place[rows] == address
        deepest = np.where(here, depth, -1).max(axis=1, keepdims=True)
        active = here & (depth == deepest)
        count = 0
        try:
            while True:
                instruction = self._instruction(address)
                if not self._step(instruction, rows, active, count):
                    return (count + 1) * len(rows)
                count += 1
                address = instruction.next
                if address in self._program.labels or count * len(rows) >= most:
                    break
        except BaseException:
            self._arrive(rows, active, address, count)
            raise
        self._arrive(rows, active, address, count)
        return count * len(rows)

    def _arrive(self, rows: Rows, active: Lanes, address: int, count: int) -> None:
        self.threads.place[rows] = np.where(active, address, self.threads.place[rows])
        self.threads.executed[rows] += count

    def _step(self, instruction: AnyInstruction, rows: Rows, active: Lanes, count: int) -> bool:
        """Executes one instruction; False if it moved lanes or stopped threads itself, and has settled their places."""
        threads = self.threads
        if instruction.breakpoint or isinstance(instruction, Illegal):
            raised = exceptions.raised(threads, rows, instruction)
            if raised.any():
                self._arrive(rows, active, instruction.address, count)
                threads.cause[rows[raised]] = Cause.ILLEGAL if isinstance(instruction, Illegal) else Cause.BREAKPOINT
                threads.status[rows[raised]] = Status.EXCEPTION
                return False
            threads.skip_breakpoint[rows] = False
        match instruction:
            case Branch():
                self._arrive(rows, active, instruction.address, count + 1)
                branch(instruction, threads, rows, active)
                return False
            case Send():
                self._arrive(rows, active, instruction.address, count)
                self._send(instruction, rows, active)
                return False
            case Sync():
                if instruction.function is SyncFunction.BAR:
                    self._arrive(rows, active, instruction.address, count)
                    self._barrier(instruction, rows, active)
                    return False
            case Alu() | Dpas():
                self._compute(instruction, rows, active)
                if _writes_control(instruction):
                    self._arrive(rows, active, instruction.next, count + 1)
                    exceptions.leave(threads, rows)
                    exceptions.software(threads, rows)
                    return False
        return True

    def _lanes(self, instruction: AnyInstruction, active: Lanes) -> Lanes:
        """[threads, width]: the lanes of an instruction, before its predicate."""
        width, first = instruction.width, instruction.first_lane
        if instruction.no_mask:
            return np.ones((len(active), width), dtype=np.bool_)
        lanes = np.zeros((len(active), width), dtype=np.bool_)
        count = min(width, LANES - first)
        lanes[:, :count] = active[:, first : first + count]
        return lanes

    def _compute(self, instruction: Alu | Dpas, rows: Rows, active: Lanes) -> None:
        step = self._steps.get(instruction.address)
        if step is None or step.instruction is not instruction:
            step = AluStep(instruction) if isinstance(instruction, Alu) else DpasStep(instruction)
            self._steps[instruction.address] = step
        if any(isinstance(source, Register) and source.is_live for source in instruction.sources):
            self._refresh(instruction, rows, active)
        step(self.threads.registers, rows, self._lanes(instruction, active))

    def _refresh(self, instruction: Alu | Dpas, rows: Rows, active: Lanes) -> None:
        """Brings ip, tm0, n0 and ce0 up to date in storage. ce0 has the lanes that are here, also for an instruction that masks none."""
        registers = self.threads.registers
        kinds = {source.number >> 4 for source in instruction.sources if isinstance(source, Register) and source.arf}
        if Arf.IP in kinds:
            registers[rows, IP : IP + 4] = _bytes(instruction.address, 4)
        if Arf.TM in kinds:
            registers[rows, TM0 : TM0 + 8] = _bytes(self._clock() & (1 << 64) - 1, 8)
        if Arf.N in kinds:
            registers[rows, N0 : N0 + 4] = self.threads.notifications[rows][:, None].view(np.uint8)
        if Arf.CE in kinds:
            registers[rows, CE0 : CE0 + 4] = np.packbits(active, axis=1, bitorder="little")

    def _barrier(self, instruction: Sync, rows: Rows, active: Lanes) -> None:
        """Takes a completed barrier, or waits for one."""
        threads = self.threads
        ready = threads.notifications[rows] > 0
        threads.notifications[rows[ready]] -= 1
        threads.status[rows[~ready]] = Status.BARRIER
        moved = active & ready[:, None]
        threads.place[rows] = np.where(moved, instruction.next, threads.place[rows])
        threads.executed[rows[ready]] += 1

    def _send(self, send: Send, rows: Rows, active: Lanes) -> None:
        threads = self.threads
        lanes = self._lanes(send, active)
        holds = predicate(threads.registers, rows, send)
        if holds is not None:
            lanes = lanes & holds
        silent = ~lanes.any(axis=1)
        if silent.any():
            # A render target write ends its thread even if no pixel is left to be written.
            self._pass(send, rows[silent], active[silent], ends=holds is None or send.sfid is Sfid.RC)
        rows, lanes, active = rows[~silent], lanes[~silent], active[~silent]
        if not len(rows):
            return
        for found, chosen in sends.descriptors(send, threads.registers, rows):
            some, some_lanes, some_active = rows[chosen], lanes[chosen], active[chosen]
            if not sends.fits(send, found):
                threads.status[some] = Status.EXCEPTION
                threads.cause[some] = Cause.DESCRIPTOR
                continue
            request = sends.request(send, found, threads.registers, some, some_lanes)
            reply = self._port.send(request)
            outcome = np.zeros(len(some), dtype=np.int64) if reply.outcome is None else np.asarray(reply.outcome)
            done = outcome == Outcome.DONE
            if reply.data is not None and done.any():
                sends.write_response(
                    send, found.message, threads.registers, some[done], some_lanes[done], reply.data[done]
                )
            threads.status[some[outcome == Outcome.RETRY]] = Status.STOPPED
            waits = outcome == Outcome.PENDING
            threads.pending[some[waits]] = send.address
            threads.pending_lanes[some[waits]] = lane_bits(some_lanes[waits])
            accepted = outcome != Outcome.RETRY
            self._pass(send, some[accepted], some_active[accepted], ends=True)
            threads.status[some[waits]] = Status.WAITING

    def _pass(self, send: Send, rows: Rows, active: Lanes, ends: bool) -> None:
        """Threads whose message is sent go on, or end."""
        threads = self.threads
        threads.executed[rows] += 1
        if send.end_of_thread and ends:
            threads.place[rows] = ENDED
            threads.status[rows] = Status.ENDED
            return
        threads.place[rows] = np.where(active, send.next, threads.place[rows])


def _bytes(value: int, size: int) -> NDArray[np.uint8]:
    return np.frombuffer(value.to_bytes(size, "little"), dtype=np.uint8)


def _writes_control(instruction: Alu | Dpas) -> bool:
    destination = instruction.destination
    return isinstance(destination, Register) and destination.arf and CR0 <= destination.offset < CR0 + 64
