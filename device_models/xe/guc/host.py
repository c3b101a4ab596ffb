"""Hosts: functions (PF and VFs) as the GuC of one GT sees them.

A host writes requests to its mailbox (`mmio`) or its CT buffer (`ctb`) and rings the doorbell, which queues the service
of that host on the executor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.guc import decode, hxg
from vfio_user_xe.device_models.xe.guc.ctb import Ctb, CtbBroken
from vfio_user_xe.device_models.xe.guc.errors import INVALID_GGTT_ADDRESS, INVALID_STATE, GucError
from vfio_user_xe.device_models.xe.guc.hxg import EVENT, REQUEST, Message
from vfio_user_xe.device_models.xe.guc.invalidations import Invalidations
from vfio_user_xe.device_models.xe.guc.mmio import Mailbox
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, TranslationFault
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.device_models.xe.soc.interrupts import Interrupts
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.model.faults import FaultPoint
from vfio_user_xe.emulator.model.states import Machine, StateError, Transitions
from vfio_user_xe.emulator.observe.tap import Tap

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.002
_SERVICE_SECONDS = 0.001
"""How long messages of one function are served before everything else has its turn."""


class HostState(Enum):
    """What the PF made of a VF (VF_CONTROL); the PF itself is always running."""

    RUNNING = "running"
    RESFIX = "resfix"
    """Migrated and not fixed up yet: its mailbox is served, its CT buffer and its contexts are not."""
    PAUSED = "paused"
    STOPPED = "stopped"
    FLR = "flr"
    """Reset, until the PF has cleaned up behind it."""


RUNNING, RESFIX, PAUSED, STOPPED, FLR = HostState

TRANSITIONS = Transitions(
    HostState,
    {
        RUNNING: {PAUSED, STOPPED, FLR},
        RESFIX: {RUNNING, PAUSED, STOPPED, FLR},
        PAUSED: {RUNNING, RESFIX, STOPPED, FLR},
        STOPPED: {FLR},
        FLR: {RUNNING, STOPPED},
    },
)
"""`xe_gt_sriov_pf_control.c`: what was stopped goes on only by a reset."""
_SERVED = (RUNNING, RESFIX)


class Firmware(Protocol):
    """What a host needs of the GuC that serves it; `guc.Guc` is one."""

    gt: Gt
    interrupts: Interrupts
    tap: Tap
    lose_g2h: FaultPoint
    served: Callable[[Host, float], None]

    def serving(self, host: Host, /) -> bool:
        """Whether requests of `host` are served now."""
        ...

    def answer(self, host: Host, message: Message, by_mmio: bool) -> tuple[int, ...]:
        """The answer to a request: a whole HXG message."""
        ...


class Host:
    """What the GuC of one GT knows of one function: its mailbox, its CT buffers, its state."""

    def __init__(self, guc: Firmware, function: XeFunction) -> None:
        self.guc = guc
        self.function = function
        self.vfid = function.vfid
        self.mailbox = Mailbox(guc.gt.index, self._doorbell)
        self.ctb = Ctb(function.ggtt_space)
        self._states = self._running()
        self._clock = guc.gt.gpu.card.clock
        self._since = self._clock.seconds()
        self.present = function.vfid == 0
        """Whether the function exists: VFs do while they are enabled."""
        self.opt_ins: set[int] = set()
        self.ctb_awaits_fixup = False
        """The VF was migrated with CT buffers enabled: they are used again when it is fixed up."""
        self.invalidations = Invalidations()
        self._queued = False
        self._serving = False
        self._interrupt_due = False

    @property
    def name(self) -> str:
        """ "pf", "vf1", ..."""
        return self.function.name

    @property
    def space(self) -> AddressSpace:
        """The function's GGTT."""
        return self.function.ggtt_space

    @property
    def listening(self) -> bool:
        """Whether events reach the host: its CT buffer is enabled."""
        return self.ctb.enabled

    def can_queue_g2h(self, dwords: int) -> bool:
        """Whether the host has room for an event of `dwords` that another host causes."""
        return self.ctb.can_queue_g2h(dwords)

    @property
    def state(self) -> HostState:
        """What the PF made of it."""
        return self._states.state

    def becomes(self, state: HostState) -> None:
        """Go to another state. On the executor.

        Raises:
            GucError: INVALID_STATE, when it may not follow the present one.
        """
        try:
            self._states.to(state)
        except StateError as error:
            raise GucError(INVALID_STATE, str(error)) from error
        self._since = self._clock.seconds()

    def needs(self, *states: HostState) -> None:
        """Go on only in one of `states`. On the executor.

        Raises:
            GucError: INVALID_STATE, in another state.
        """
        try:
            self._states.require(*states)
        except StateError as error:
            raise GucError(INVALID_STATE, str(error)) from error

    def power_up(self) -> None:
        """The GuC was reset: whatever the PF had made of the function, it runs. On the executor."""
        self._states = self._running()
        self._since = self._clock.seconds()

    def inspect(self) -> dict[str, object]:
        """State as plain data; a VF that stays in its FLR is seen by the seconds."""
        return {
            "function": self.name,
            "state": self.state.value,
            "state_seconds": round(self._clock.seconds() - self._since, 3),
            "ctb": self.ctb.enabled,
            "broken": self.ctb.broken,
            "tlb_invalidations": self.invalidations.inspect(),
        }

    def _running(self) -> Machine[HostState]:
        return TRANSITIONS.start(self.name, RUNNING)

    def reset(self) -> None:
        """Forget everything that the host told (VF_RESET, GuC reset)."""
        self.ctb.reset()
        self.opt_ins.clear()
        self.invalidations.forget()

    def read_dwords(self, address: int, count: int) -> tuple[int, ...]:
        """`count` dwords at a GGTT address.

        Raises:
            GucError: it leads nowhere.
        """
        try:
            data = self.space.read(address, 4 * count)
        except (TranslationFault, AccessFault) as fault:
            raise GucError(INVALID_GGTT_ADDRESS, str(fault)) from fault
        return tuple(memoryview(data).cast("I"))

    def event(self, action: int, *payload: int, data0: int = 0) -> bool:
        """Send an event through the CT buffer; whether it is on its way."""
        return self.send((hxg.event(action, data0), *payload))

    def send(self, words: tuple[int, ...], fence: int = 0) -> bool:
        """Send an HXG message through the CT buffer, and interrupt the host; whether it is on its way."""
        guc = self.guc
        if not self.ctb.enabled:
            return False
        if guc.lose_g2h.armed and guc.lose_g2h.take() is not None:
            return False
        if guc.tap.on:
            guc.tap(self.name, "g2h", lambda: {"gt": guc.gt.index, "fence": fence, **decode.message(words)})
        try:
            if not self.ctb.send(words, fence):
                guc.gt.gpu.executor.call_later(_RETRY_SECONDS, self._retry)
        except (TranslationFault, AccessFault) as fault:
            log.warning("%s: %s: cannot write to the CT buffer: %s", guc.gt.name, self.name, fault)
            self.ctb.disable()
            return False
        if self._serving:
            self._interrupt_due = True
        else:
            guc.interrupts.raise_guc(self.function, guc.gt.index)
        return True

    def serve(self) -> None:
        """Answer what is in the mailbox and in H2G. On the executor."""
        self._queued = False
        if not self.present or self.state not in _SERVED or not self.guc.serving(self):
            return
        self._serving = True
        now = self._clock.seconds
        start = now()
        try:
            self.mailbox.take()
            if self.mailbox.request is not None:
                self._serve_mailbox(self.mailbox.request)
            if self.ctb.enabled:
                self._serve_ctb(start + _SERVICE_SECONDS)
        finally:
            self.guc.served(self, now() - start)
            self._serving = False
            if self._interrupt_due:
                self._interrupt_due = False
                self.guc.interrupts.raise_guc(self.function, self.guc.gt.index)

    def _doorbell(self) -> None:
        if self.present and self.state in _SERVED and self.guc.serving(self):
            self.mailbox.take()
        self._queue()

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self.guc.gt.gpu.executor.submit(self.serve)

    def _serve_mailbox(self, request: tuple[int, ...]) -> None:
        message = Message(request)
        answer = self.guc.answer(self, message, by_mmio=True)
        if self.guc.tap.on:
            words, gt = message.words, self.guc.gt.index
            self.guc.tap(self.name, "mmio", lambda: {"gt": gt, **decode.message(words)})
            self.guc.tap(self.name, "mmio-answer", lambda: {"gt": gt, **decode.message(answer)})
        self.mailbox.answer(answer)

    def _serve_ctb(self, until: float) -> None:
        try:
            self.ctb.flush()
            for message in self.ctb.receive():
                if message is not None:
                    self._serve_message(message)
                if self.state != RUNNING:
                    break
                if self._clock.seconds() > until:
                    self._queue()
                    break
        except CtbBroken as broken:
            log.warning("%s: %s: H2G is broken: %s", self.guc.gt.name, self.name, broken)
        except (TranslationFault, AccessFault) as fault:
            log.warning("%s: %s: cannot read the CT buffer: %s", self.guc.gt.name, self.name, fault)
            self.ctb.disable()

    def _serve_message(self, message: Message) -> None:
        if self.guc.tap.on:
            words, fence, gt = message.words, message.fence, self.guc.gt.index
            self.guc.tap(self.name, "h2g", lambda: {"gt": gt, "fence": fence, **decode.message(words)})
        answer = self.guc.answer(self, message, by_mmio=False)
        failed = hxg.message_type(answer[0]) == hxg.RESPONSE_FAILURE
        # A fast request is answered when it fails, an event never (abi/guc_messages_abi.h).
        if message.type == REQUEST or (failed and message.type != EVENT):
            self.send(answer, message.fence)

    def _retry(self) -> None:
        if not self.ctb.enabled:
            return
        try:
            done = self.ctb.flush()
        except (TranslationFault, AccessFault):
            self.ctb.disable()
            return
        self.guc.interrupts.raise_guc(self.function, self.guc.gt.index)
        if not done:
            self.guc.gt.gpu.executor.call_later(_RETRY_SECONDS, self._retry)
