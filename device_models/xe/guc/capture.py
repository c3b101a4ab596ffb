"""Error capture: the registers that the GuC saves before it resets an engine (`xe_guc_capture.c`).

The ADS names lists of registers (global, by engine class, by engine instance); the GuC reads them and appends a group
to the state-capture part of the log buffer, a ring of bytes, and tells the PF. The formats are in `guc/formats`.
"""

from __future__ import annotations

import logging
from typing import Any

from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.register_access import captured
from vfio_user_xe.device_models.xe.engines.types import EngineView
from vfio_user_xe.device_models.xe.guc import actions
from vfio_user_xe.device_models.xe.guc.boot import ADS, LOG_PARAMS
from vfio_user_xe.device_models.xe.guc.formats import ads as ads_format
from vfio_user_xe.device_models.xe.guc.formats import capture as fmt
from vfio_user_xe.device_models.xe.guc.formats import log as log_format
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, GUC_CLASS, RENDER, VIDEO_DECODE, VIDEO_ENHANCE
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.model.layout import offset_of

log = logging.getLogger(__name__)

CAPTURE_CLASS = {RENDER: 0, COMPUTE: 0, VIDEO_DECODE: 1, VIDEO_ENHANCE: 2, COPY: 3}

_LISTS = {
    fmt.GLOBAL: offset_of(ads_format.ADS, "capture_global"),
    fmt.ENGINE_CLASS: offset_of(ads_format.ADS, "capture_class"),
    fmt.ENGINE_INSTANCE: offset_of(ads_format.ADS, "capture_instance"),
}
"""Where the ADS has the lists' addresses. Of its 4.5 KiB only these are read."""


class Capture:
    """Writes capture groups into the PF's log buffer."""

    def __init__(self, guc: Guc) -> None:
        self._guc = guc
        self.count = 0
        guc.handle(actions.LOG_FLUSH_COMPLETE, self._flushed)
        guc.handle(actions.FORCE_LOG_FLUSH, self._flushed)

    def context(self, context: Context, engine: EngineView) -> None:
        """Capture `engine`, which is about to be reset because of `context`. Does nothing without a log buffer."""
        place = log_format.place(self._guc.boot.parameter(LOG_PARAMS))
        ads = ads_format.address(self._guc.boot.parameter(ADS))
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

    def _group(self, context: Context, engine: EngineView, ads: int) -> bytes:
        info, vfid = engine.info, context.function.vfid
        owner = 1 if vfid else 0
        by_class = owner * ads_format.ENGINE_CLASSES + CAPTURE_CLASS[info.engine_class]
        guc_class = GUC_CLASS[info.engine_class]
        instance = {"lrca": context.lrcs[0] & 0xFFFFF000, "guc_id": context.guc_id}
        shared = {"lrca": fmt.NO_CONTEXT, "guc_id": fmt.NO_CONTEXT}
        captures = [
            {"vfid": vfid, "info": {"type": kind, "guc_class": of_class, "instance": number}, **whose}
            | {"registers": self._registers_of(engine, ads + _LISTS[kind] + 4 * index, base)}
            for kind, index, of_class, number, whose, base in (
                (fmt.GLOBAL, owner, 0, 0, shared, 0),
                (fmt.ENGINE_CLASS, by_class, guc_class, 0, shared, 0),
                (fmt.ENGINE_INSTANCE, by_class, guc_class, info.instance, instance, info.base),
            )
        ]
        group: bytes = fmt.GROUP.build({"vfid": vfid, "captures": captures})
        return group

    def _registers_of(self, engine: EngineView, pointer: int, base: int) -> list[dict[str, Any]]:
        """The registers of the list whose address is at GGTT address `pointer`, with their values."""
        space = self._guc.pf.space
        address = space.read32(pointer)
        if not address:
            return []
        header = fmt.LIST_HEADER.parse(space.read(address, fmt.LIST_HEADER.sizeof()))
        wanted = fmt.registers(min(header.count, fmt.MAX_REGISTERS))
        data = space.read(address + fmt.LIST_HEADER.sizeof(), wanted.sizeof())
        return [{**register, "value": captured(engine, base + register.offset)} for register in wanted.parse(data)]

    def _append(self, place: log_format.LogPlace, group: bytes) -> bool:
        """Add `group` to the ring; False when it does not fit before what the host has not read."""
        space, size, state = self._guc.pf.space, place.capture_size, place.capture_state
        read, write = space.read32(state + log_format.READ_PTR), space.read32(state + log_format.WRITE_PTR)
        free = (read - write - 1) % size
        if len(group) > free:
            return False
        first = min(len(group), size - write)
        space.write(place.capture + write, group[:first])
        if first < len(group):
            space.write(place.capture, group[first:])
        write = (write + len(group)) % size
        space.write32(state + log_format.WRITE_PTR, write)
        space.write32(state + log_format.SIZE, size)
        space.write32(state + log_format.SAMPLED_WRITE_PTR, write)
        flags = space.read32(state + log_format.FLAGS) | log_format.FLUSH_TO_FILE
        space.write32(state + log_format.FLAGS, flags)
        return True
