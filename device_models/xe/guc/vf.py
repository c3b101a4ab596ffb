"""Requests of a VF before it has a CT buffer: the interface's version, and its own configuration (`xe_gt_sriov_vf.c`)."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.guc import actions, klv
from vfio_user_xe.device_models.xe.guc.errors import (
    INVALID_KLV_KEY,
    UNPROVISIONED_VF,
    UNSUPPORTED_VERSION,
    GucError,
)
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message, failure, success
from vfio_user_xe.device_models.xe.guc.mmio import Mailbox
from vfio_user_xe.device_models.xe.guc.sriov import Sriov
from vfio_user_xe.device_models.xe.memory.function import Device

_OWN = frozenset({klv.GGTT_START, klv.GGTT_SIZE, klv.LMEM_SIZE, klv.NUM_CONTEXTS, klv.TILE_MASK, klv.NUM_DOORBELLS})
_ANY = 0


class VfRequests:
    """MATCH_VERSION and QUERY_SINGLE_KLV."""

    def __init__(self, guc: Guc, sriov: Sriov, gmd_id: int) -> None:
        self._guc = guc
        self._sriov = sriov
        self._gmd_id = gmd_id
        guc.handle(actions.MATCH_VERSION, self._match_version)
        guc.handle(actions.QUERY_SINGLE_KLV, self._query)

    def _match_version(self, host: Host, message: Message) -> tuple[int, int]:
        branch, major, minor = (message.payload[0] >> shift & 0xFF for shift in (24, 16, 8))
        own_major, own_minor, patch = self._guc.boot.submission_version
        if branch or major not in (_ANY, own_major) or minor > own_minor:
            raise GucError(UNSUPPORTED_VERSION, f"{branch}.{major}.{minor}")
        return 0, own_major << 16 | own_minor << 8 | patch

    def _query(self, host: Host, message: Message) -> tuple[int, ...]:
        key = message.payload[0] & 0xFFFF
        if key == klv.GLOBAL_GMD_ID:
            value = self._gmd_id
        elif key == klv.GLOBAL_GROUP_SCHEDULING:
            value = int(bool(self._sriov.groups))
        elif key == klv.GLOBAL_PAGING_ENGINES:
            value = 0
        elif key in _OWN:
            config = self._sriov.config(host.vfid)
            if not config.values:
                raise GucError(UNPROVISIONED_VF, host.name)
            value = config.get(key)
        else:
            raise GucError(INVALID_KLV_KEY, klv.name_of(key))
        words = klv.pack(key, value)[1:]
        return (len(words), *words)


class AbsentMediaGuc:
    """The media mailbox of a VF on a card without a media GT.

    A VF's driver asks it for the media GMD_ID before it knows which GTs there are (`xe_pci.c:read_gmdid`); 0 is "none".
    """

    def __init__(self, gpu: Device, main: Guc, host: Host) -> None:
        self._gpu = gpu
        self._main = main
        self._client = host
        self.mailbox = Mailbox(1, self._doorbell)

    def _doorbell(self) -> None:
        if self._client.present and self._main.boot.running:
            self.mailbox.take()
            self._gpu.executor.submit(self._serve)

    def _serve(self) -> None:
        mailbox, request = self.mailbox, self.mailbox.request
        if request is None:
            return
        action, key = request[0] & 0xFFFF, request[1] & 0xFFFF
        if action == actions.VF_RESET:
            mailbox.answer((success(0),))
        elif action == actions.MATCH_VERSION:
            major, minor, patch = self._main.boot.submission_version
            mailbox.answer((success(0), major << 16 | minor << 8 | patch))
        elif action == actions.QUERY_SINGLE_KLV and key == klv.GLOBAL_GMD_ID:
            mailbox.answer((success(1), 0))
        else:
            mailbox.answer((failure(INVALID_KLV_KEY),))
