"""The GuC: the firmware that hosts talk to, for one GT and all functions.

A host writes requests to its mailbox (`mmio`) or its CT buffer (`ctb`) and rings the doorbell; that queues `Guc`'s
service of that host on the executor. Each request is checked against its declaration (`actions`), and given to the
module that handles it: `self_config`, `submission`, `slpc`, `tlb`, `engine_activity`, `sriov`, `relay`, `vf`.
Handlers return DATA0 (and more dwords) of the success message, or raise `GucError`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from vfio_user_xe.device_models.xe.function import Gt, XeFunction
from vfio_user_xe.device_models.xe.guc import actions, decode, hxg
from vfio_user_xe.device_models.xe.guc.boot import Boot
from vfio_user_xe.device_models.xe.guc.ctb import Ctb, CtbBroken
from vfio_user_xe.device_models.xe.guc.errors import (
    ERROR_NAMES,
    GENERIC_FAIL,
    INVALID_GGTT_ADDRESS,
    NO_PERMISSION,
    NOT_SUPPORTED,
    PROTOCOL,
    UNKNOWN_ACTION,
    GucError,
)
from vfio_user_xe.device_models.xe.guc.hxg import EVENT, REQUEST, Message
from vfio_user_xe.device_models.xe.guc.mmio import Mailbox
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, TranslationFault
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.model.registers import RegisterFile

log = logging.getLogger(__name__)

RUNNING, RESFIX, PAUSED, STOPPED, FLR = "running", "resfix", "paused", "stopped", "flr"
"""States of a VF towards the GuC. In "resfix" (it was migrated) its mailbox is served, in the last three nothing is."""

_RETRY_SECONDS = 0.002
_SERVICE_SECONDS = 0.001
"""How long messages of one function are served before everything else has its turn."""

Reply = int | tuple[int, ...]


class Client:
    """The state of one function in the GuC of one GT."""

    def __init__(self, guc: Guc, function: XeFunction) -> None:
        self.guc = guc
        self.function = function
        self.vfid = function.vfid
        self.mailbox = Mailbox(guc.gt.index, self._doorbell)
        self.ctb = Ctb(function.ggtt_space)
        self.state = RUNNING
        self.present = function.vfid == 0
        """Whether the function exists: VFs do while they are enabled."""
        self.opt_ins: set[int] = set()
        self.ctb_awaits_fixup = False
        """The VF was migrated with CT buffers enabled: they are used again when it is fixed up."""
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

    def reset(self) -> None:
        """Forget everything that the host told (VF_RESET, GuC reset)."""
        self.ctb.reset()
        self.opt_ins.clear()

    def read_dwords(self, address: int, count: int) -> tuple[int, ...]:
        """`count` dwords at a GGTT address.

        Raises:
            GucError: the address leads nowhere.
        """
        try:
            data = self.space.read(address, 4 * count)
        except (TranslationFault, AccessFault) as fault:
            raise GucError(INVALID_GGTT_ADDRESS, str(fault)) from fault
        return tuple(memoryview(data).cast("I"))

    def event(self, action: int, *payload: int, data0: int = 0) -> None:
        """Send an event through the CT buffer."""
        self.send((hxg.event(action, data0), *payload))

    def send(self, words: tuple[int, ...], fence: int = 0) -> None:
        """Send an HXG message through the CT buffer, and interrupt the host."""
        guc = self.guc
        if not self.ctb.enabled:
            return
        if guc.lose_g2h.armed and guc.lose_g2h.take() is not None:
            return
        if guc.tap.on:
            guc.tap(self.name, "g2h", lambda: {"gt": guc.gt.index, "fence": fence, **decode.message(words)})
        try:
            if not self.ctb.send(words, fence):
                guc.gt.gpu.executor.call_later(_RETRY_SECONDS, self._retry)
        except (TranslationFault, AccessFault) as fault:
            log.warning("%s: %s: cannot write to the CT buffer: %s", guc.gt.name, self.name, fault)
            self.ctb.disable()
            return
        if self._serving:
            self._interrupt_due = True
        else:
            guc.gt.gpu.interrupts.raise_guc(self.function, guc.gt)

    def serve(self) -> None:
        """Answer what is in the mailbox and in H2G. On the executor."""
        self._queued = False
        if not self.present or self.state not in (RUNNING, RESFIX) or not self.guc.serving(self):
            return
        self._serving = True
        now = self.guc.gt.gpu.card.clock.seconds
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
                self.guc.gt.gpu.interrupts.raise_guc(self.function, self.guc.gt)

    def _doorbell(self) -> None:
        if self.present and self.state in (RUNNING, RESFIX) and self.guc.serving(self):
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
                if self.guc.gt.gpu.card.clock.seconds() > until:
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
        self.guc.gt.gpu.interrupts.raise_guc(self.function, self.guc.gt)
        if not done:
            self.guc.gt.gpu.executor.call_later(_RETRY_SECONDS, self._retry)


Handler = Callable[[Client, Message], Reply]


class Guc:
    """The GuC of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        """`registers` is the PF's file. Clients are added with `add_client`, handlers by the modules."""
        self.gt = gt
        self.clients: list[Client] = []
        """By VFID."""
        self.handlers: dict[int, Handler] = {}
        self.on_boot: list[Callable[[], None]] = []
        self.on_reset: list[Callable[[], None]] = []
        """Called when the micro-controller goes into reset: modules forget what they know."""
        self.on_client_reset: list[Callable[[Client], None]] = []
        """Called when one function's state goes (VF_RESET, FLR)."""
        self.admit: Callable[[Client, int], None] | None = None
        """Asked before a VF's request is handled; raises GucError when it may not be made now."""
        self.served: Callable[[Client, float], None] = lambda client, seconds: None
        """Told how long a function's requests took."""
        card = gt.gpu.card
        self.tap = card.tracer.tap("guc", "messages between drivers and the GuC, decoded")
        self.lose_g2h = card.faults.point("guc.lose_g2h", "drop a message from the GuC to a driver")
        self.fail_request = card.faults.point("guc.fail_request", "refuse a request (arguments: action, error)")
        self.boot = Boot(gt, registers, self._booted)
        self.refusals = 0
        """Requests that were answered with a failure."""

    def add_client(self, function: XeFunction, kind: type[Client] = Client) -> Client:
        """Serve `function` as a `kind` of client; its VFID must be the next one."""
        client = kind(self, function)
        self.clients.append(client)
        function.registers.add(client.mailbox.registers())
        if function.vfid:
            self.gt.gpu.pf.registers.add(client.mailbox.pf_view(function.vfid))
        return client

    def handle(self, action: int, handler: Handler) -> None:
        """Have `handler` answer `action`.

        Raises:
            ValueError: the action is not declared, or has a handler already.
        """
        if action not in actions.H2G or action in self.handlers:
            raise ValueError(f"GuC action {decode.action_name(action)} is not declared, or handled already")
        self.handlers[action] = handler

    @property
    def pf(self) -> Client:
        """The PF's client."""
        return self.clients[0]

    def serving(self, client: Client) -> bool:
        """Whether the GuC can serve `client` now: its firmware runs."""
        return self.boot.running

    def answer(self, client: Client, message: Message, by_mmio: bool) -> tuple[int, ...]:
        """The answer to a request: a whole HXG message."""
        try:
            reply = self._dispatch(client, message, by_mmio)
        except GucError as error:
            self.refusals += 1
            log.info("%s: %s: %s refused: %s", self.gt.name, client.name, decode.action_name(message.action), error)
            return (hxg.failure(error.code, error.hint),)
        except (TranslationFault, AccessFault) as fault:
            self.refusals += 1
            log.info("%s: %s: %s refused: %s", self.gt.name, client.name, decode.action_name(message.action), fault)
            return (hxg.failure(INVALID_GGTT_ADDRESS),)
        if isinstance(reply, tuple):
            return (hxg.success(reply[0]), *reply[1:])
        return (hxg.success(reply),)

    def reset_client(self, client: Client) -> None:
        """Forget everything about one function but its configuration."""
        client.reset()
        for callback in self.on_client_reset:
            callback(client)

    def reset(self) -> None:
        """The micro-controller goes into reset: everything is forgotten. On the executor."""
        self.boot.reset()
        for client in self.clients:
            self.reset_client(client)
            client.state = RUNNING
        for callback in self.on_reset:
            callback()

    def inspect(self) -> dict[str, Any]:
        """State as plain data."""
        return {
            "gt": self.gt.index,
            "running": self.boot.running,
            "version": ".".join(map(str, self.boot.version)),
            "submission_version": ".".join(map(str, self.boot.submission_version)),
            "boots": self.boot.boots,
            "refusals": self.refusals,
            "clients": [
                {"function": c.name, "state": c.state, "ctb": c.ctb.enabled, "broken": c.ctb.broken}
                for c in self.clients
                if c.present
            ],
        }

    def _booted(self) -> None:
        for callback in self.on_boot:
            callback()

    def _dispatch(self, client: Client, message: Message, by_mmio: bool) -> Reply:
        declared = actions.H2G.get(message.action)
        if declared is None:
            raise GucError(UNKNOWN_ACTION, f"{message.action:#06x}")
        if ("vf" if client.vfid else "pf") not in declared.senders:
            raise GucError(NO_PERMISSION, declared.name)
        if not (declared.mmio if by_mmio else declared.ctb):
            raise GucError(NOT_SUPPORTED, f"{declared.name} by {'MMIO' if by_mmio else 'CTB'}")
        if len(message.payload) < declared.minimum:
            raise GucError(PROTOCOL, f"{declared.name} has {len(message.payload)} of {declared.minimum} dwords")
        if client.vfid and self.admit is not None:
            self.admit(client, message.action)
        if self.fail_request.armed:
            self._maybe_fail(message)
        handler = self.handlers.get(message.action)
        if handler is None:
            raise GucError(NOT_SUPPORTED, declared.name)
        return handler(client, message)

    def _maybe_fail(self, message: Message) -> None:
        wanted = self.fail_request.arguments.get("action")
        if wanted not in (None, message.action, decode.action_name(message.action)):
            return
        arguments = self.fail_request.take()
        if arguments is not None:
            error = arguments.get("error", "GENERIC_FAIL")
            code = next((code for code, name in ERROR_NAMES.items() if name == error), GENERIC_FAIL)
            raise GucError(error if isinstance(error, int) else code, "injected")


__all__ = ["FLR", "PAUSED", "RESFIX", "RUNNING", "STOPPED", "Client", "Guc", "Reply"]
