"""Bring-up requests that every host makes by MMIO: its CT buffers, hwconfig, reset; and its opt-ins (`xe_guc_ct.c`)."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.guc import actions, klv
from vfio_user_xe.device_models.xe.guc.errors import (
    INVALID_BUFFER_RANGE,
    INVALID_KLV_KEY,
    INVALID_PARAMS,
    INVALID_SIZE,
    MALFORMED_KLV,
    GucError,
)
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message

_ENABLE = 1
_PAGE = 4096

_MEMIRQ = (klv.MEMIRQ_STATUS_ADDR, klv.MEMIRQ_SOURCE_ADDR)
_OPT_INS = frozenset({klv.EXT_CAT_ERR_TYPE, klv.DYNAMIC_INHIBIT_CONTEXT_SWITCH, klv.UNCORRECTABLE_LOCAL_ERROR})


class SelfConfig:
    """SELF_CFG, CONTROL_CTB, GET_HWCONFIG, VF_RESET, OPT_IN_FEATURE_KLV."""

    def __init__(self, guc: Guc, hwconfig: bytes) -> None:
        self._guc = guc
        self._hwconfig = hwconfig
        guc.handle(actions.SELF_CFG, self._self_cfg)
        guc.handle(actions.CONTROL_CTB, self._control_ctb)
        guc.handle(actions.GET_HWCONFIG, self._get_hwconfig)
        guc.handle(actions.VF_RESET, self._reset)
        guc.handle(actions.OPT_IN_FEATURE, self._opt_in)

    def _self_cfg(self, host: Host, message: Message) -> int:
        key, length = message.payload[0] >> 16, message.payload[0] & 0xFFFF
        declared = klv.KEYS.get(key)
        if declared is None or not klv.MEMIRQ_STATUS_ADDR <= key <= klv.G2H_CTB_SIZE:
            raise GucError(INVALID_KLV_KEY, klv.name_of(key))
        if length != declared.minimum:
            raise GucError(MALFORMED_KLV, f"{declared.name} has {length} dwords")
        value = klv.number(message.payload[1 : 1 + length])
        if key in _MEMIRQ:
            self._set_memirq(host, key, value)
            return 1
        ring = host.ctb.h2g if key <= klv.H2G_CTB_SIZE else host.ctb.g2h
        if key in (klv.H2G_CTB_SIZE, klv.G2H_CTB_SIZE):
            if not value or value % _PAGE:
                raise GucError(INVALID_SIZE, f"{declared.name} {value:#x}")
            ring.size = value // 4
        elif key in (klv.H2G_CTB_ADDR, klv.G2H_CTB_ADDR):
            ring.address = value
        else:
            ring.descriptor = value
        return 1

    def _set_memirq(self, host: Host, key: int, value: int) -> None:
        if not host.vfid:
            # The PF has MSI, not MSI-X, and so no use for it; accepted as any firmware would.
            return
        memirq = self._guc.interrupts.memirq(host.function)
        if key == klv.MEMIRQ_STATUS_ADDR:
            memirq.set_guc_status(self._guc.gt.index, value)
        else:
            memirq.set_guc_source(self._guc.gt.index, value)

    def _control_ctb(self, host: Host, message: Message) -> int:
        if message.payload[0] != _ENABLE:
            host.ctb.disable()
            return 0
        if not (host.ctb.h2g.complete and host.ctb.g2h.complete):
            raise GucError(INVALID_BUFFER_RANGE, "not all of the CT buffers was configured")
        host.ctb.enable()
        return 0

    def _get_hwconfig(self, host: Host, message: Message) -> int:
        address, size = message.address(0), message.payload[2]
        if size:
            if size < len(self._hwconfig):
                raise GucError(INVALID_SIZE, f"{size} bytes for a table of {len(self._hwconfig)}")
            host.space.write(address, self._hwconfig)
        return len(self._hwconfig)

    def _reset(self, host: Host, message: Message) -> int:
        self._guc.reset_host(host)
        return 0

    def _opt_in(self, host: Host, message: Message) -> int:
        count = message.payload[2]
        if not 0 < count <= 256:
            raise GucError(INVALID_PARAMS, f"{count} dwords of opt-ins")
        for key, _ in klv.parse(host.read_dwords(message.address(0), count), _OPT_INS):
            host.opt_ins.add(key)
        return 0
