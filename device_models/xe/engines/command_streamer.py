"""The command streamer: fetches commands of a context from its ring and batches, and executes them.

One `run` is one time slice. It decodes straight from the memory that holds the commands, and takes the handler of each
from a table indexed by bits 31:22 of its first dword (`command_tables.Tables`). A handler gets the streamer, the dwords
around it, its index among them and its length, and returns None, or what is to happen instead of going on behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from vfio_user_xe.device_models.xe.engines.lrc import MAX_NESTING, Frame, Lrc
from vfio_user_xe.device_models.xe.engines.types import EngineView
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, AddressSpace, Fault, TranslationFault
from vfio_user_xe.emulator.fabric.span import Revoked, Span
from vfio_user_xe.emulator.observe.tap import Tap

Handler = Callable[["CommandStreamer", memoryview, int, int], int | None]
Entry = tuple[Handler, int, int]
"""What executes a command, its length or 0, and the bits that say its length less two."""

# What a handler may return.
JUMPED = 1
"""The next command is somewhere else, or is to be decoded differently: the handler has set the place."""
WAIT = 2
"""The command is not done and is to be executed again later (a semaphore that is not satisfied)."""
PREEMPTED = 3
"""Preempt the context here, behind the command."""
BULK = 4
"""The LRC's `bulk` does the command's work in steps."""
THREADS = 10
"""As BULK, but the context can be preempted between the steps: what is left goes on when it is back."""

# What `run` returns.
IDLE = 5
"""The ring is empty."""
SLICE_OVER = 6
WAITING = 7
"""A command says WAIT."""
STOPPED = 8
"""A command says PREEMPTED."""
FAULTED = 9
"""`fault` says why. The command that met it will be executed again."""

Bulk = Iterator[Fault | None]
"""Work in steps of about a millisecond at most; yields a fault that it will try to pass when it is resumed."""

_NEXT_PIECE = 0
_PASSED = -1
"""Executed, and the place is set behind it."""

_TAIL = 16
"""Bytes that may follow the last MI_USER_INTERRUPT of a ring: arbitration and padding (`xe_ring_ops.c:emit_user_interrupt`)."""

_STEP = range(64)
"""Commands between looks at the clock."""

_NO_SPANS: dict[int, Span] = {}


class Tables(Protocol):
    """Handlers of commands by bits 31:22 of the first dword, 1024 entries each; `command_tables.Tables` is one."""

    @property
    def normal(self) -> Sequence[Entry]:
        """What is executed."""
        ...

    @property
    def noop(self) -> Sequence[Entry]:
        """What is executed while predication makes commands no-ops."""
        ...

    @property
    def pipelines(self) -> Mapping[int, Handler]:
        """Of commands of the pipelines that somebody executes, by bits 31:16 of the first dword."""
        ...

    @property
    def traced(self) -> Tables:
        """What is used while commands are traced."""
        ...


class CommandStreamer:
    """Executes the commands of one LRC at a time on behalf of an engine."""

    def __init__(self, engine: EngineView, tables: Tables) -> None:
        self.engine = engine
        self.tables = tables
        self.tap = Tap("cs", "commands that the engines execute, disassembled")
        """Looked at for each piece of a ring or batch: a trace begins and ends between two of them."""
        self.base = engine.info.base
        """Of the engine's registers."""
        self.lrc: Lrc
        self.ggtt: AddressSpace
        self.space: AddressSpace
        self.spans = _NO_SPANS
        """Writable spans of `space` that need no look at page tables."""
        self.privileged = True
        """Whether commands come from the ring or a GGTT batch: others may use neither GGTT nor most registers."""
        self.fetched_from = 0
        """Address of dword 0 of what a handler gets."""
        self.fault: Fault
        self.preempt = False
        """Stop at the next preemption point."""
        self.leaving = False
        """With `preempt`: the context is disabled or its function paused, and it may be saved afterwards."""
        self.deadline = 0.0
        """When the slice is over, in seconds of the card's clock."""
        self.header = 0
        """First dword of the command at which the last slice ended (IPEHR)."""
        self.jumps = 0
        self.executed = 0
        """Jumps and about how many commands in the last slice."""
        self._running = False
        self._later: dict[Callable[[], None], None] = {}
        """What is to be called when the slice is over."""

    def load(self, lrc: Lrc) -> None:
        """Take over `lrc`, whose image was restored."""
        self.lrc = lrc
        self.ggtt = lrc.ggtt
        self.space = lrc.space
        # Entries of the GGTT are looked at on every access, so its pages must not be found without asking it.
        self.spans = _NO_SPANS if lrc.space is lrc.ggtt else lrc.space.writable
        self._set_privilege()

    def run(self, deadline: float) -> int:
        """Execute commands until `deadline` (seconds of the card's clock), or until something else ends the slice."""
        self.jumps = self.executed = 0
        self.deadline = deadline
        self._running = True
        try:
            while True:
                lrc = self.lrc
                # Batches of the context restore come first: a command that is resumed belongs below them.
                resumed = lrc.bulk is not None and not (lrc.stack and lrc.stack[-1].restore)
                outcome = self._advance_bulk(deadline) if resumed else self._execute(deadline)
                if outcome:
                    return outcome
        except (TranslationFault, AccessFault) as fault:
            self.lrc.bulk = None
            self.fault = fault
            return FAULTED
        finally:
            self._running = False
            while self._later:
                self._later.popitem()[0]()

    # For handlers.

    def later(self, work: Callable[[], None]) -> None:
        """Call `work` once when the slice is over, however often it is asked for; at once if none runs."""
        if self._running:
            self._later[work] = None
        else:
            work()

    def address_space(self, global_gtt: int) -> AddressSpace:
        """Where a command's address is that has (or has not) the GGTT flag.

        Commands of an unprivileged batch have only the PPGTT: the flag is ignored.
        """
        return self.ggtt if global_gtt and self.privileged else self.space

    def place(self, index: int) -> int:
        """Address of dword `index` of what the handler got."""
        return self.fetched_from + (index << 2)

    def ends_with(self, index: int) -> bool:
        """Whether dword `index` of what the handler got is next to the ring's end, as far as the tail is known."""
        lrc = self.lrc
        return not lrc.stack and (lrc.tail - self.place(index)) % (lrc.end - lrc.start) <= _TAIL

    def is_done(self) -> bool:
        """Whether everything in the ring was executed, as far as the tail is known."""
        lrc = self.lrc
        return lrc.head == lrc.tail and not lrc.stack and lrc.bulk is None

    def set_place(self, address: int) -> None:
        """Fetch the next command from `address` of the buffer that is being read."""
        stack = self.lrc.stack
        if stack:
            stack[-1].address = address
        else:
            self.lrc.head = address

    def start_batch(self, address: int, ppgtt: bool, return_to: int, nested: bool) -> None:
        """Continue in the batch at `address`; from a ring, or `nested`, `return_to` is where execution continues afterwards.

        What an unprivileged batch starts is unprivileged too, whatever address space it names: only the ring and GGTT
        batches have privileges to give.
        """
        # What is kept for the command behind a draw: its address may hold another batch by now.
        self.lrc.latest = None
        stack = self.lrc.stack
        frame = Frame(address, ppgtt or not self.privileged, restore=bool(stack) and stack[-1].restore)
        if stack and not nested:
            stack[-1] = frame
        elif len(stack) < MAX_NESTING:
            self.set_place(return_to)
            stack.append(frame)
        else:
            self.set_place(return_to)
            self.engine.report(f"batches nested deeper than {MAX_NESTING}")
        self._set_privilege()

    def end_batch(self, all_levels: bool = False) -> None:
        """Go on where the batch was started from; with `all_levels`, in the ring."""
        stack = self.lrc.stack
        if stack.pop().restore:
            all_levels = False
        while all_levels and stack and not stack[-1].restore:
            stack.pop()
        self._set_privilege()

    # One contiguous piece of commands at a time.

    def _execute(self, deadline: float) -> int:
        """Execute commands from one piece of the ring or a batch; 0 to go on with the next."""
        lrc = self.lrc
        if lrc.stack:
            frame = lrc.stack[-1]
            address, limit = frame.address, frame.limit
            if limit and address >= limit:
                self.end_batch()
                return 0
            space = lrc.space if frame.ppgtt else self.ggtt
        else:
            address, space = lrc.head, self.ggtt
            if address >= lrc.end:
                address = lrc.head = lrc.start + (address - lrc.end)
            if address == lrc.tail and address == lrc.read_tail():
                return IDLE
            limit = lrc.tail if lrc.tail > address else lrc.end
        words, base, span = self._fetch(space, address, limit)
        self.fetched_from = base
        index = first = (address - base) >> 2
        end = min(len(words), (limit - base) >> 2) if limit else len(words)
        tables = self.tables.traced if self.tap.on else self.tables
        table = tables.noop if lrc.noop else tables.normal
        clock = self.engine.clock.seconds
        action: int | None = None
        length = 0
        try:
            while action is None:
                for _ in _STEP:
                    if index >= end:
                        action = _NEXT_PIECE
                        break
                    header = words[index]
                    handler, length, mask = table[header >> 22]
                    if not length:
                        length = (header & mask) + 2
                    if index + length > end:
                        action = self._straddle(space, base + (index << 2), length, limit, handler)
                        break
                    action = handler(self, words, index, length)
                    if action is not None:
                        break
                    index += length
                else:
                    if clock() >= deadline:
                        action = SLICE_OVER
        except BaseException:
            self.set_place(base + (index << 2))
            self.header = words[index]
            raise
        finally:
            if span is not None:
                span.fetched(index - first)
            self.executed += index - first
        if action in (JUMPED, _PASSED):
            if action == JUMPED:
                self.jumps += 1
            else:
                self.executed += length
            return SLICE_OVER if clock() >= deadline else 0
        at = base + (index << 2)
        self.set_place(at)
        if action == _NEXT_PIECE:
            return SLICE_OVER if clock() >= deadline else 0
        self.header = words[index] if index < end else self.header
        if action in (BULK, THREADS):
            lrc.bulk_end = at + (length << 2)
            lrc.bulk_preemptible = action == THREADS
            return 0
        if action == PREEMPTED:
            self.set_place(at + (length << 2))
            return STOPPED
        return WAITING if action == WAIT else SLICE_OVER

    def _fetch(self, space: AddressSpace, address: int, limit: int) -> tuple[memoryview, int, Span | None]:
        """Dwords around `address`, the address of the first, and the span to count them in; None: they are counted."""
        while (span := space.span(address, False)) is not None:
            try:
                return span.fetch(), span.base, span
            except Revoked:
                continue
        length = 0x1000 - (address & 0xFFF)
        if limit:
            length = min(length, limit - address)
        return memoryview(space.read(address, length)).cast("I"), address, None

    def _straddle(self, space: AddressSpace, address: int, length: int, limit: int, handler: Handler) -> int | None:
        """Execute a command that does not lie in one piece."""
        end = address + (length << 2)
        lrc = self.lrc
        if limit and end > limit:
            if lrc.stack or limit != lrc.end:
                self.engine.report(f"a command of {length} dwords at {address:#x} goes beyond the end at {limit:#x}")
                self.set_place(limit)
                return _PASSED
            # The driver wraps in the middle of a command (xe_lrc.c:xe_lrc_write_ring).
            data = space.read(address, limit - address) + space.read(lrc.start, end - limit)
        else:
            data = space.read(address, length << 2)
        self.fetched_from = address
        action = handler(self, memoryview(data).cast("I"), 0, length)
        if action is None:
            self.set_place(end)
            return _PASSED
        return action

    def _advance_bulk(self, deadline: float) -> int:
        lrc = self.lrc
        assert lrc.bulk is not None
        for fault in lrc.bulk:
            if fault is not None:
                self.fault = fault
                return FAULTED
            if self.preempt and lrc.bulk_preemptible and lrc.arbitration:
                return STOPPED
            if self.engine.clock.seconds() >= deadline:
                return SLICE_OVER
        lrc.bulk = None
        self.set_place(lrc.bulk_end)
        self.executed += 1
        return SLICE_OVER if self.engine.clock.seconds() >= deadline else 0

    def _set_privilege(self) -> None:
        stack = self.lrc.stack
        self.privileged = not (stack and stack[-1].ppgtt)
