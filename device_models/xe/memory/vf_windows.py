"""The BARs of PF and VFs: registers and GGTT window (BAR0), VRAM (BAR2), and a VF's, mapped or trapped.

A VF's windows are mapped into its guest when the machine is built, long before the PF gives the VF anything; what the
guest does outside of what the VF was given then goes to memory that nobody else sees. Trapped, such accesses read all
ones (VRAM) or 0 (GGTT entries) and change nothing, as on hardware, and each access costs a message.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.memory.formats.ggtt import PTES_SIZE
from vfio_user_xe.device_models.xe.memory.function import Device
from vfio_user_xe.device_models.xe.memory.ggtt_sharing import GgttSharing, TrappedGgtt
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE, Vram
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Initiator
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.transport import AccessHandler

BAR0_SIZE = 16 << 20
GSM_OFFSET = 8 << 20
MAPPED, TRAPPED = "mapped", "trapped"
WINDOW_MODES = (MAPPED, TRAPPED)


class Nothing:
    """The handler of the part of a BAR that has no memory behind it."""

    def read(self, offset: int, size: int) -> int:
        """All ones."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Dropped."""


def registers_bar(registers: AccessHandler, ggtt: Memory, prefetchable: bool = True) -> Bar:
    """BAR0: trapped registers and a mapped GGTT window."""
    return Bar(BAR0_SIZE, handler=registers, memory=ggtt, areas=[(GSM_OFFSET, PTES_SIZE)], prefetchable=prefetchable)


def vram_bar(size: int, vram: Memory) -> Bar:
    """BAR2, mapped: as much of `vram` as it shows, nothing beyond."""
    return Bar(
        size,
        handler=Nothing(),
        memory=vram,
        areas=[(0, min(size, vram.size))],
        prefetchable=True,
        device_memory=True,
    )


def trapped_registers_bar(gpu: Device, vfid: int, registers: AccessHandler, sharing: GgttSharing) -> Bar:
    """A VF's BAR0 with a trapped GGTT window."""
    return Bar(BAR0_SIZE, handler=_TrappedBar0(registers, TrappedGgtt(gpu, vfid, sharing)), prefetchable=True)


def trapped_vram_bar(size: int, gpu: Device, vfid: int) -> Bar:
    """A VF's BAR2, trapped."""
    return Bar(size, handler=TrappedVram(gpu.vram, _Vf(vfid)), prefetchable=True, device_memory=True)


class _Vf:
    """The properties of a VF that VRAM uses."""

    def __init__(self, vfid: int) -> None:
        self.index = vfid
        self.name = f"vf{vfid}"


class TrappedVram:
    """A window of VRAM as `function` addresses it (a VF: by GDPA)."""

    def __init__(self, vram: Vram, function: Initiator) -> None:
        self._vram = vram
        self._function = function

    def read(self, offset: int, size: int) -> int:
        """Bytes of the VF's VRAM; all ones where LMTT gives it none."""
        view = self._view(offset, size, False)
        return (1 << 8 * size) - 1 if view is None else int.from_bytes(view, "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Store bytes; dropped where LMTT gives the VF none."""
        view = self._view(offset, size, True)
        if view is not None:
            view[:] = value.to_bytes(size, "little")

    def read_block(self, offset: int, length: int) -> bytes:
        """Any number of bytes."""
        parts = []
        while length:
            count = min(length, BLOCK_SIZE - offset % BLOCK_SIZE)
            view = self._view(offset, count, False)
            parts.append(b"\xff" * count if view is None else bytes(view))
            offset += count
            length -= count
        return b"".join(parts)

    def _view(self, offset: int, length: int, write: bool) -> memoryview | None:
        try:
            found = self._vram.resolve(self._function, offset, length, write)
        except AccessFault:
            return None
        return found[1][:length] if found is not None else None


class _TrappedBar0:
    """Registers, and entries from the GGTT window's offset on."""

    def __init__(self, registers: AccessHandler, window: TrappedGgtt) -> None:
        self._registers = registers
        self._window = window

    def read(self, offset: int, size: int) -> int:
        """A register or an entry."""
        if offset >= GSM_OFFSET:
            return self._window.read(offset - GSM_OFFSET, size)
        return self._registers.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """A register or an entry."""
        if offset >= GSM_OFFSET:
            self._window.write(offset - GSM_OFFSET, size, value)
        else:
            self._registers.write(offset, size, value)
