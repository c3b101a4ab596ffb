"""The PF's part where there is no PF: VFs come up, talk to "the PF" and are reset without any driver for it.

To the GuC this is the PF's host like any other; instead of a driver behind CT buffers, the card itself hears the
events and makes the requests: it tells the GuC what VFs have (`xe_gt_sriov_pf_config.c`), answers what they relay
(`xe_gt_sriov_pf_service.c`), and cleans up behind a VF that was reset (`xe_gt_sriov_pf_control.c`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from functools import partial
from struct import pack
from typing import Any

from vfio_user_xe.device_models.xe.gt.clock import RPM_CONFIG0
from vfio_user_xe.device_models.xe.gt.fuses import (
    COMPUTE_DSS,
    EU_ENABLE,
    FUSE4,
    GEOMETRY_DSS,
    MIRROR_FUSE1,
    MIRROR_FUSE3,
    VEBOX_VDBOX,
)
from vfio_user_xe.device_models.xe.guc import actions, decode, hxg, klv
from vfio_user_xe.device_models.xe.guc.boot import HUC_KERNEL_LOAD_INFO
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.guc.pf_provision import Plan, Quota
from vfio_user_xe.device_models.xe.guc.sriov import EVENT_FLR, EVENT_FLR_DONE, FLR_FINISH, FLR_START
from vfio_user_xe.device_models.xe.memory.formats.ggtt import DEVICE_MEMORY, PRESENT
from vfio_user_xe.device_models.xe.memory.function import Device, XeFunction
from vfio_user_xe.device_models.xe.soc.lmem_cfg import LmemConfig

log = logging.getLogger(__name__)

ABI = (1, 0)
"""The only version of the interface between VF and PF (`abi/guc_relay_actions_abi.h`)."""
FIRMWARE = (70, 72, 1)
"""The firmware version that the GuC reports when no driver loads firmware."""
RUNTIME_REGISTERS = (
    *(RPM_CONFIG0, FUSE4, MIRROR_FUSE3, MIRROR_FUSE1, EU_ENABLE, GEOMETRY_DSS[0], VEBOX_VDBOX),
    *(*COMPUTE_DSS, *GEOMETRY_DSS[1:], HUC_KERNEL_LOAD_INFO),
)
"""The registers that VFs may query, in this order (`xe_gt_sriov_pf_service.c:ver_2000_runtime_regs`)."""
_BUFFER = 8 << 20
"""GGTT address of the page for KLVs, below what VFs have."""
_UNDISCLOSED = 0
"""The only error that a PF of a production kernel tells a VF (`xe_guc_relay.c:sanitize_relay_error`)."""


class PfService(Host):
    """The PF as a host of the GuC of one GT, played by the card. Used on the executor."""

    def __init__(self, guc: Guc, function: XeFunction) -> None:
        super().__init__(guc, function)
        self.negotiated: set[int] = set()
        """VFIDs that have agreed on a version."""
        self.adverse_events: list[tuple[int, int]] = []
        """(VFID, threshold's key) of those that the GuC reported."""
        self.on_flr_done: Callable[[int, int], None]
        """Called with the GT and the VFID when its GuC has finished the reset of a VF."""

    @property
    def listening(self) -> bool:
        """Always."""
        return True

    def can_queue_g2h(self, dwords: int) -> bool:
        """Always: it reads at once."""
        return True

    def event(self, action: int, *payload: int, data0: int = 0) -> bool:
        """A message of the GuC to the PF, which is always on its way. It is handled after the GuC has finished its present work."""
        if self.guc.tap.on:
            words, gt = (hxg.event(action, data0), *payload), self.guc.gt.index
            self.guc.tap(self.name, "g2h", lambda: {"gt": gt, "fence": 0, **decode.message(words)})
        self.guc.gt.gpu.executor.submit(partial(self._heard, action, payload))
        return True

    def request(self, action: int, *payload: int) -> bool:
        """Ask the GuC; whether it did what was asked."""
        words, gt = (action, *payload), self.guc.gt.index
        answer = self.guc.answer(self, Message(words), by_mmio=False)
        if self.guc.tap.on:
            self.guc.tap(self.name, "h2g", lambda: {"gt": gt, "fence": 0, **decode.message(words)})
            self.guc.tap(self.name, "g2h", lambda: {"gt": gt, "fence": 0, **decode.message(answer)})
        done = hxg.message_type(answer[0]) == hxg.RESPONSE_SUCCESS
        if not done:
            log.warning("%s: %s was refused: %s", self.guc.gt.name, decode.action_name(action), decode.message(answer))
        return done

    def configure(self, quota: Quota) -> None:
        """Tell the GuC what a VF has."""
        words = [word for key, value in quota.klvs(self.guc.gt.index).items() for word in klv.pack(key, value)]
        self.space.write(_BUFFER, pack(f"<{len(words)}I", *words))
        self.request(actions.UPDATE_VF_CFG, quota.vfid, _BUFFER, 0, len(words))

    # What VFs relay.

    def _heard(self, action: int, payload: tuple[int, ...]) -> None:
        if action == actions.RELAY_FROM_VF:
            self._relayed(payload[0], payload[1], payload[2:])
        elif action == actions.VF_STATE_NOTIFY:
            vfid, what = payload
            if what == EVENT_FLR:
                self.request(actions.VF_CONTROL, vfid, FLR_START)
            elif what == EVENT_FLR_DONE:
                self.on_flr_done(self.guc.gt.index, vfid)
        elif action == actions.ADVERSE_EVENT:
            self.adverse_events.append((payload[0], payload[1]))

    def _relayed(self, vfid: int, relay_id: int, words: tuple[int, ...]) -> None:
        message = Message(words)
        if words[0] & hxg.ORIGIN_GUC or message.type != hxg.REQUEST:
            return
        try:
            reply = self._serve(vfid, message)
        except OSError as error:
            log.info("%s: VF %d: relayed %#x: %s", self.guc.gt.name, vfid, message.action, error)
            reply = (hxg.failure(_UNDISCLOSED) & ~hxg.ORIGIN_GUC,)
        self.request(actions.RELAY_TO_VF, vfid, relay_id, *reply)

    def _serve(self, vfid: int, message: Message) -> tuple[int, ...]:
        """The reply.

        Raises:
            OSError: with the error number that the driver has for it.
        """
        if message.action == actions.VF2PF_HANDSHAKE:
            return self._handshake(vfid, message)
        if message.action == actions.VF2PF_QUERY_RUNTIME:
            return self._query_runtime(vfid, message)
        raise OSError(errno.EOPNOTSUPP, "no such service")

    def _handshake(self, vfid: int, message: Message) -> tuple[int, ...]:
        self.negotiated.discard(vfid)
        if len(message.payload) != 1:
            raise OSError(errno.EMSGSIZE, f"{len(message.payload)} dwords")
        if message.data0:
            raise OSError(errno.EPFNOSUPPORT, "bits that must be zero are not")
        major, minor = message.payload[0] >> 16, message.payload[0] & 0xFFFF
        # 0.0 asks for the latest, and what is newer than the PF gets the PF's (xe_sriov_pf_service.c).
        if (major, minor) != (0, 0) and major < ABI[0]:
            raise OSError(errno.EPERM, f"version {major}.{minor}")
        self.negotiated.add(vfid)
        return _success(0), ABI[0] << 16 | ABI[1]

    def _query_runtime(self, vfid: int, message: Message) -> tuple[int, ...]:
        if vfid not in self.negotiated:
            raise OSError(errno.EACCES, "no version was agreed on")
        if len(message.payload) != 1:
            raise OSError(errno.EPROTO, f"{len(message.payload)} dwords")
        start, limit = message.payload[0], message.data0
        if start > len(RUNTIME_REGISTERS):
            raise OSError(errno.ERANGE, f"from register {start}")
        left = len(RUNTIME_REGISTERS) - start
        count = min(left, limit or left)
        offsets = [self.guc.gt.offset(offset) for offset in RUNTIME_REGISTERS[start : start + count]]
        values = [word for offset in offsets for word in (offset, self.function.registers.peek(offset))]
        return (_success(count), left - count, *values)


class PfPart:
    """The PF's part of a whole card: brings the GuCs up, gives VFs what they have, cleans up behind them."""

    def __init__(
        self, gpu: Device, gucs: Sequence[Guc], plan: Plan, interface: tuple[int, int, int], lmem: LmemConfig
    ) -> None:
        """`gucs` are those of all GTs, `interface` is the version that VFs find."""
        self._gpu = gpu
        self._gucs = gucs
        self._plan = plan
        self._interface = interface
        self._lmem = lmem
        self._quotas = {quota.vfid: quota for quota in plan.quotas}
        self._flr_done: dict[int, set[int]] = {}

    def start(self) -> None:
        """All that a PF's driver does before VFs can be used. On the executor."""
        pf = self._gpu.pf
        pf.ggtt.write_entries(_BUFFER, pack("<Q", self._plan.scratch | DEVICE_MEMORY | PRESENT))
        self._plan.write_lmtt(self._gpu.vram.memory)
        for guc in self._gucs:
            guc.boot.run_without_driver(FIRMWARE, self._interface)
        self._lmem.enable(self._plan.lmtt)
        for quota in self._plan.quotas:
            self._clear_ggtt(quota)
            for service in self._services():
                service.configure(quota)
        for service in self._services():
            service.on_flr_done = self._flr_is_done

    def describe(self) -> list[dict[str, Any]]:
        """The provisioning of each VF, for the control socket."""
        agreed = self._services()[0].negotiated
        return [
            {
                "function": f"vf{quota.vfid}",
                "ggtt": {"start": quota.ggtt_start, "size": quota.ggtt_size},
                "vram": {"dpa": quota.dpa, "size": quota.vram},
                "contexts": {"first": quota.first_context, "count": quota.contexts},
                "doorbells": {"first": quota.first_doorbell, "count": quota.doorbells},
                "negotiated": ".".join(map(str, ABI)) if quota.vfid in agreed else None,
            }
            for quota in self._plan.quotas
        ]

    def _services(self) -> list[PfService]:
        return [guc.pf for guc in self._gucs if isinstance(guc.pf, PfService)]

    def _flr_is_done(self, gt: int, vfid: int) -> None:
        """The GuC of `gt` has finished the reset of a VF. When all GuCs have, clean up and let the VF run again."""
        done = self._flr_done.setdefault(vfid, set())
        done.add(gt)
        if len(done) < len(self._gucs):
            return
        del self._flr_done[vfid]
        self._gpu.vram.clear(vfid)
        self._clear_ggtt(self._quotas[vfid])
        for service in self._services():
            service.negotiated.discard(vfid)
            service.request(actions.VF_CONTROL, vfid, FLR_FINISH)

    def _clear_ggtt(self, quota: Quota) -> None:
        self._gpu.pf.ggtt.write_entries(quota.ggtt_start, quota.ggtt_entries, quota.vfid)


def _success(data0: int) -> int:
    return hxg.success(data0) & ~hxg.ORIGIN_GUC
