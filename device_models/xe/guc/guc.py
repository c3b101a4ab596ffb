"""The GuC: the firmware that hosts talk to, for one GT and all functions.

Each request of a host (`host.py`) is checked against its declaration (`actions`), and given to the module that handles
it: `self_config`, `submission`, `slpc`, `tlb`, `engine_activity`, `sriov`, `relay`, `vf`. Handlers return DATA0 (and
more dwords) of the success message, or raise `GucError`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from vfio_user_xe.device_models.xe.engines.engines import Engines
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.guc import actions, decode, hxg
from vfio_user_xe.device_models.xe.guc.boot import Boot
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
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.device_models.xe.soc.interrupts import Interrupts
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.model.register_file import RegisterFile

log = logging.getLogger(__name__)

Reply = int | tuple[int, ...]

Handler = Callable[[Host, Message], Reply]


class Guc:
    """The GuC of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile, interrupts: Interrupts) -> None:
        """`registers` is the PF's file. Hosts are added with `add_host`, handlers by the modules."""
        self.gt = gt
        self.interrupts = interrupts
        self.engines: Engines
        """What runs contexts; set by who puts the GT together, as the engines report to this GuC's submission."""
        self.hosts: list[Host] = []
        """By VFID."""
        self.handlers: dict[int, Handler] = {}
        self.on_boot: list[Callable[[], None]] = []
        self.on_reset: list[Callable[[], None]] = []
        """Called when the micro-controller goes into reset: modules forget what they know."""
        self.on_host_reset: list[Callable[[Host], None]] = []
        """Called when one function's state goes (VF_RESET, FLR)."""
        self.admit: Callable[[Host, int], None] | None = None
        """Asked before a VF's request is handled; raises GucError when it may not be made now."""
        self.served: Callable[[Host, float], None] = lambda host, seconds: None
        """Told how long a function's requests took."""
        card = gt.gpu.card
        self.tap = card.tracer.tap("guc", "messages between drivers and the GuC, decoded")
        self.lose_g2h = card.faults.point("guc.lose_g2h", "drop a message from the GuC to a driver")
        self.fail_request = card.faults.point("guc.fail_request", "refuse a request (arguments: action, error)")
        self.boot = Boot(gt, registers, self._booted)
        self.refusals = 0
        """Requests that were answered with a failure."""

    def add_host(self, function: XeFunction, kind: type[Host] = Host) -> Host:
        """Serve `function` as a `kind` of host; its VFID must be the next one."""
        host = kind(self, function)
        self.hosts.append(host)
        function.registers.add(host.mailbox.registers())
        if function.vfid:
            self.gt.gpu.pf.registers.add(host.mailbox.pf_view(function.vfid))
        return host

    def handle(self, action: int, handler: Handler) -> None:
        """Have `handler` answer `action`.

        Raises:
            ValueError: it is not declared, or handled already.
        """
        if action not in actions.H2G or action in self.handlers:
            raise ValueError(f"GuC action {decode.action_name(action)} is not declared, or handled already")
        self.handlers[action] = handler

    @property
    def pf(self) -> Host:
        """The PF as a host."""
        return self.hosts[0]

    def serving(self, host: Host) -> bool:
        """Whether the GuC can serve `host` now: its firmware runs."""
        return self.boot.running

    def answer(self, host: Host, message: Message, by_mmio: bool) -> tuple[int, ...]:
        """The answer to a request: a whole HXG message."""
        try:
            reply = self._dispatch(host, message, by_mmio)
        except GucError as error:
            self.refusals += 1
            log.info("%s: %s: %s refused: %s", self.gt.name, host.name, decode.action_name(message.action), error)
            return (hxg.failure(error.code, error.hint),)
        except (TranslationFault, AccessFault) as fault:
            self.refusals += 1
            log.info("%s: %s: %s refused: %s", self.gt.name, host.name, decode.action_name(message.action), fault)
            return (hxg.failure(INVALID_GGTT_ADDRESS),)
        if isinstance(reply, tuple):
            return (hxg.success(reply[0]), *reply[1:])
        return (hxg.success(reply),)

    def reset_host(self, host: Host) -> None:
        """Forget everything about one function but its configuration."""
        host.reset()
        for callback in self.on_host_reset:
            callback(host)

    def reset(self) -> None:
        """The micro-controller goes into reset: everything is forgotten. On the executor."""
        self.boot.reset()
        for host in self.hosts:
            self.reset_host(host)
            host.power_up()
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
            "clients": [host.inspect() for host in self.hosts if host.present],
        }

    def _booted(self) -> None:
        for callback in self.on_boot:
            callback()

    def _dispatch(self, host: Host, message: Message, by_mmio: bool) -> Reply:
        declared = actions.H2G.get(message.action)
        if declared is None:
            raise GucError(UNKNOWN_ACTION, f"{message.action:#06x}")
        if ("vf" if host.vfid else "pf") not in declared.senders:
            raise GucError(NO_PERMISSION, declared.name)
        if not (declared.mmio if by_mmio else declared.ctb):
            raise GucError(NOT_SUPPORTED, f"{declared.name} by {'MMIO' if by_mmio else 'CTB'}")
        if len(message.payload) < declared.minimum:
            raise GucError(PROTOCOL, f"{declared.name} has {len(message.payload)} of {declared.minimum} dwords")
        if host.vfid and self.admit is not None:
            self.admit(host, message.action)
        if self.fail_request.armed:
            self._maybe_fail(message)
        handler = self.handlers.get(message.action)
        if handler is None:
            raise GucError(NOT_SUPPORTED, declared.name)
        return handler(host, message)

    def _maybe_fail(self, message: Message) -> None:
        wanted = self.fail_request.arguments.get("action")
        if wanted not in (None, message.action, decode.action_name(message.action)):
            return
        arguments = self.fail_request.take()
        if arguments is not None:
            error = arguments.get("error", "GENERIC_FAIL")
            code = next((code for code, name in ERROR_NAMES.items() if name == error), GENERIC_FAIL)
            raise GucError(error if isinstance(error, int) else code, "injected")
