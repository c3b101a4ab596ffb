"""Firmware that the GuC authenticates: HuC (`xe_huc.c`)."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.guc import actions
from vfio_user_xe.device_models.xe.guc.errors import INVALID_STATE, GucError
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message


class HucAuthentication:
    """AUTHENTICATE_HUC: a blob that was loaded is genuine; its signature is not checked."""

    def __init__(self, guc: Guc) -> None:
        self._guc = guc
        guc.handle(actions.AUTHENTICATE_HUC, self._authenticate)

    def _authenticate(self, host: Host, message: Message) -> int:
        if not self._guc.boot.authenticate_huc():
            raise GucError(INVALID_STATE, "no HuC was loaded")
        return 0
