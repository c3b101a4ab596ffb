"""Error capture: the registers that the GuC saves before it resets an engine (`xe_guc_capture.c`).

The ADS names lists of registers (global, by engine class, by engine instance); the GuC reads them and appends a group
to the state-capture part of the log buffer, a ring of bytes, and tells the PF. `abi/guc_capture_abi.h`,
`abi/guc_log_abi.h`, `xe_guc_fwif.h:struct guc_ads`.
"""

from __future__ import annotations

import logging
from struct import Struct

from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.register_access import captured
from vfio_user_xe.device_models.xe.engines.types import EngineView
from vfio_user_xe.device_models.xe.guc import actions
from vfio_user_xe.device_models.xe.guc.boot import ADS, LOG_PARAMS
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, GUC_CLASS, RENDER, VIDEO_DECODE, VIDEO_ENHANCE
from vfio_user_xe.emulator.fabric.interconnect import AccessFault

log = logging.getLogger(__name__)

GLOBAL, ENGINE_CLASS, ENGINE_INSTANCE = range(3)
CAPTURE_CLASS = {RENDER: 0, COMPUTE: 0, VIDEO_DECODE: 1, VIDEO_ENHANCE: 2, COPY: 3}

_LIST_INSTANCE, _LIST_CLASS, _LIST_GLOBAL = 0x109C, 0x111C, 0x119C
_CLASSES = 16
_REGISTER = Struct("<4I")
_GROUP_HEADER = Struct("<2I")
_CAPTURE_HEADER = Struct("<5I")
_ALL = 0xFFFFFFFF

_STATE_SIZE = 36
_STATE = 2 * _STATE_SIZE
"""The state of the capture part is the third in the log's header page; its fields, by offset:"""
_READ, _WRITE, _SIZE, _SAMPLED, _WRAP, _FLAGS = 8, 12, 16, 20, 24, 28
_FLUSH_TO_FILE = 1

_MAX_REGISTERS = 1023


class Capture:
    """Writes capture groups into the PF's log buffer."""

    def __init__(self, guc: Guc) -> None:
        self._guc = guc
        self.count = 0
        guc.handle(actions.LOG_FLUSH_COMPLETE, self._flushed)
        guc.handle(actions.FORCE_LOG_FLUSH, self._flushed)

    def context(self, context: Context, engine: EngineView) -> None:
        """Capture `engine`, which is about to be reset because of `context`. Does nothing without a log buffer."""
        place = self._place()
        ads = self._guc.boot.parameter(ADS) >> 1 << 12
        if place is None or not ads:
            return
        try:
            group = self._group(context, engine, ads)
            written = self._append(place, group)
        except (TranslationFault, AccessFault) as fault:
            log.warning("%s: cannot capture %s: %s", self._guc.gt.name, engine.info.name, fault)
            return
        if written:
            self.count += 1
            self._guc.pf.event(actions.STATE_CAPTURE_NOTIFICATION, 0)

    def _flushed(self, host: Host, message: Message) -> int:
        return 0

    def _place(self) -> tuple[int, int, int] | None:
        """GGTT address of the log's header, of the capture part, and its size (`xe_guc.c:guc_ctl_log_params_flags`)."""
        parameters = self._guc.boot.parameter(LOG_PARAMS)
        if not parameters & 1:
            return None
        log_unit = 1 << 20 if parameters & 8 else 4096
        capture_unit = 1 << 20 if parameters & 4 else 4096
        crash = ((parameters >> 4 & 3) + 1) * log_unit
        events = ((parameters >> 6 & 0xF) + 1) * log_unit
        base = parameters & 0xFFFFF000
        return base, base + 4096 + events + crash, ((parameters >> 10 & 3) + 1) * capture_unit

    def _group(self, context: Context, engine: EngineView, ads: int) -> bytes:
        info = engine.info
        vfid = context.function.vfid
        owner = 1 if vfid else 0
        capture_class = CAPTURE_CLASS[info.engine_class]
        guc_class = GUC_CLASS[info.engine_class]
        lrca = context.lrcs[0] & 0xFFFFF000
        captures = [
            self._capture(engine, ads + _LIST_GLOBAL + 4 * owner, 0, (vfid, GLOBAL, _ALL, _ALL)),
            self._capture(
                engine,
                ads + _LIST_CLASS + 4 * (owner * _CLASSES + capture_class),
                0,
                (vfid, ENGINE_CLASS | guc_class << 4, _ALL, _ALL),
            ),
            self._capture(
                engine,
                ads + _LIST_INSTANCE + 4 * (owner * _CLASSES + capture_class),
                info.base,
                (vfid, ENGINE_INSTANCE | guc_class << 4 | info.instance << 8, lrca, context.guc_id),
            ),
        ]
        return _GROUP_HEADER.pack(vfid, len(captures)) + b"".join(captures)

    def _capture(self, engine: EngineView, pointer: int, base: int, header: tuple[int, int, int, int]) -> bytes:
        """One capture: header and registers of the list whose address is at GGTT address `pointer`."""
        space = self._guc.pf.space
        address = space.read32(pointer)
        count = min(space.read32(address) & 0xFFFF, _MAX_REGISTERS) if address else 0
        registers = []
        for index in range(count):
            entry = space.read(address + 4 + _REGISTER.size * index, _REGISTER.size)
            offset, _, flags, mask = _REGISTER.unpack(entry)
            registers.append(_REGISTER.pack(offset, captured(engine, base + offset), flags, mask))
        return _CAPTURE_HEADER.pack(*header, count) + b"".join(registers)

    def _append(self, place: tuple[int, int, int], group: bytes) -> bool:
        """Add `group` to the ring; False when it does not fit before what the host has not read."""
        base, data, size = place
        space = self._guc.pf.space
        state = base + _STATE
        read, write = space.read32(state + _READ), space.read32(state + _WRITE)
        free = (read - write - 1) % size
        if len(group) > free:
            return False
        first = min(len(group), size - write)
        space.write(data + write, group[:first])
        if first < len(group):
            space.write(data, group[first:])
        write = (write + len(group)) % size
        space.write32(state + _WRITE, write)
        space.write32(state + _SIZE, size)
        space.write32(state + _SAMPLED, write)
        space.write32(state + _FLAGS, space.read32(state + _FLAGS) | _FLUSH_TO_FILE)
        return True
