"""A GT as its blocks need it: its number, its name, its engines' descriptions, and where its registers are."""

from __future__ import annotations

from typing import Any

from vfio_user_xe.device_models.xe.memory.function import Device
from vfio_user_xe.device_models.xe.profiles.profile import GSI_LIMIT, MEDIA_GSI_OFFSET
from vfio_user_xe.emulator.model.registers import Register


class Gt:
    """One GT: 0 is the main one, 1 the media GT."""

    def __init__(self, gpu: Device, index: int) -> None:
        self.gpu = gpu
        self.index = index
        self.gsi_offset = MEDIA_GSI_OFFSET if index else 0
        self.infos = gpu.profile.engines[index]

    @property
    def name(self) -> str:
        """ "gt0", "gt1"."""
        return f"gt{self.index}"

    def register(self, name: str, offset: int, **options: Any) -> Register:
        """This GT's copy of a GT register: at its own offset, and called "GT1.NAME" on the media GT."""
        return Register(f"GT{self.index}.{name}" if self.index else name, self.offset(offset), **options)

    def offset(self, offset: int) -> int:
        """Where this GT's copy of the GT register `offset` is in BAR0 (`xe_mmio.c:xe_mmio_adjusted_addr`)."""
        return offset + self.gsi_offset if offset < GSI_LIMIT else offset
