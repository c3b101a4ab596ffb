"""Relay: messages between a VF's driver and the PF's, through the GuC (`xe_guc_relay.c`).

The GuC carries them as they are: VF2GUC_RELAY_TO_PF becomes GUC2PF_RELAY_FROM_VF, PF2GUC_RELAY_TO_VF becomes
GUC2VF_RELAY_FROM_PF, within the same GT.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.guc import actions
from vfio_user_xe.device_models.xe.guc.errors import (
    CTB_FULL,
    CTB_NOT_REGISTERED,
    INVALID_PARAMS,
    INVALID_VFID,
    GucError,
)
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message

_MAX_RELAYED = 252


class Relay:
    """RELAY_TO_PF and RELAY_TO_VF."""

    def __init__(self, guc: Guc) -> None:
        self._guc = guc
        guc.handle(actions.RELAY_TO_PF, self._to_pf)
        guc.handle(actions.RELAY_TO_VF, self._to_vf)

    def _to_pf(self, host: Host, message: Message) -> int:
        relay_id, relayed = message.payload[0], message.payload[1:]
        self._check(relayed)
        pf = self._guc.pf
        if not pf.listening:
            raise GucError(CTB_NOT_REGISTERED, "the PF has no CT buffer")
        if not pf.can_queue_g2h(len(relayed) + 4):
            # A VF that floods the PF's ring must not cost it answers to others.
            raise GucError(CTB_FULL, "the PF has not read what was relayed before")
        pf.event(actions.RELAY_FROM_VF, host.vfid, relay_id, *relayed)
        return 0

    def _to_vf(self, host: Host, message: Message) -> int:
        vfid, relay_id, relayed = message.payload[0], message.payload[1], message.payload[2:]
        if not 0 < vfid < len(self._guc.hosts):
            raise GucError(INVALID_VFID, str(vfid))
        self._check(relayed)
        target = self._guc.hosts[vfid]
        if not target.ctb.enabled:
            raise GucError(CTB_NOT_REGISTERED, f"{target.name} has no CT buffer")
        if not target.can_queue_g2h(len(relayed) + 3):
            # A VF that does not read would have the oldest of what is kept for it dropped: answers of the GuC, too.
            raise GucError(CTB_FULL, f"{target.name} has not read what was relayed before")
        target.event(actions.RELAY_FROM_PF, relay_id, *relayed)
        return 0

    @staticmethod
    def _check(relayed: tuple[int, ...]) -> None:
        if not 1 <= len(relayed) <= _MAX_RELAYED:
            raise GucError(INVALID_PARAMS, f"a relayed message of {len(relayed)} dwords")
