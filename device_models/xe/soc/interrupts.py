"""Interrupts: the PF's three levels of registers (`xe_irq.c:dg1_irq_handler`), and memory-based ones for VFs.

Level 1, DG1_MSTR_TILE_INTR: the master switch (bit 31) and a bit for the tile. Level 2, GFX_MSTR_IRQ: a bit for each
GT_INTR_DW. Level 3, GT_INTR_DW(n): a bit for each source, whose identity (class, instance, interrupt bits) the
driver gets by writing the bit to IIR_REG_SELECTOR(n) and reading INTR_IDENTITY_REG(n).

A source is taken when its bit is selected; the upper levels show what is pending below them, so writing them clears
nothing that came in meanwhile. Switching the master on while anything is pending fires MSI again: that is what makes
the loss of an interrupt impossible.
"""

from __future__ import annotations

import threading

from vfio_user_xe.device_models.xe.memory.function import Device, XeFunction
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, OTHER, RENDER, EngineInfo
from vfio_user_xe.device_models.xe.soc.memirq import Memirq
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, W1C, Field, Register, field, flag, not_modelled

DG1_MSTR_TILE_INTR = 0x190008
GFX_MSTR_IRQ = 0x190010
GT_INTR_DW = 0x190018
INTR_IDENTITY = 0x190060
IIR_SELECTOR = 0x190070

MASTER = 1 << 31
VALID = 1 << 31
USER_INTERRUPT = 1 << 0
GUC2HOST = 1 << 15
GUC_SOURCES = (25, 24)
"""Bits of the GTs' GuCs in GT_INTR_DW(0): main, media."""
_GUC_INSTANCES = (0, 16)

RENDER_COPY_ENABLE = 0x190030
VCS_VECS_ENABLE = 0x190034
GUC_SG_ENABLE = 0x190038
CCS_ENABLE = 0x190048

_ENABLES = {
    "RENDER_COPY_INTR_ENABLE": RENDER_COPY_ENABLE,
    "VCS_VECS_INTR_ENABLE": VCS_VECS_ENABLE,
    "GUC_SG_INTR_ENABLE": GUC_SG_ENABLE,
    "GPM_WGBOXPERF_INTR_ENABLE": 0x19003C,
    "CRYPTO_RSVD_INTR_ENABLE": 0x190040,
    "GUNIT_GSC_INTR_ENABLE": 0x190044,
    "CCS_RSVD_INTR_ENABLE": CCS_ENABLE,
}
_MASKS = {
    "RCS0_RSVD_INTR_MASK": 0x190090,
    "BCS_RSVD_INTR_MASK": 0x1900A0,
    "VCS0_VCS1_INTR_MASK": 0x1900A8,
    "VCS2_VCS3_INTR_MASK": 0x1900AC,
    "VCS4_VCS5_INTR_MASK": 0x1900B0,
    "VCS6_VCS7_INTR_MASK": 0x1900B4,
    "VECS0_VECS1_INTR_MASK": 0x1900D0,
    "VECS2_VECS3_INTR_MASK": 0x1900D4,
    "HECI2_RSVD_INTR_MASK": 0x1900E4,
    "GUC_SG_INTR_MASK": 0x1900E8,
    "GPM_WGBOXPERF_INTR_MASK": 0x1900EC,
    "CRYPTO_RSVD_INTR_MASK": 0x1900F0,
    "GUNIT_GSC_INTR_MASK": 0x1900F4,
    "CCS0_CCS1_INTR_MASK": 0x190100,
    "CCS2_CCS3_INTR_MASK": 0x190104,
    "XEHPC_BCS1_BCS2_INTR_MASK": 0x190110,
    "XEHPC_BCS3_BCS4_INTR_MASK": 0x190114,
    "XEHPC_BCS5_BCS6_INTR_MASK": 0x190118,
    "XEHPC_BCS7_BCS8_INTR_MASK": 0x19011C,
}
_ALL_MASKED = 0xFFFFFFFF

_TILES = (flag(0, "TILE0"), not_modelled(1, "OTHER_TILES", 7), flag(31, "MSTR_IRQ"))
_GFX_MASTER = (
    flag(0, "GT_DW0"),
    flag(1, "GT_DW1"),
    flag(12, "I2C"),
    flag(16, "DISPLAY"),
    field(26, 28, "ERROR"),
    flag(29, "GU_MISC"),
    flag(31, "MASTER_IRQ"),
)
_BANKS = (
    (
        flag(0, "RCS0"),
        *(flag(4 + n, f"CCS{n}") for n in range(4)),
        *(flag(15 - n, f"BCS{n}") for n in range(8)),
        flag(23, "BCS8"),
        flag(24, "MGUC"),
        flag(25, "GUC"),
        flag(31, "GSC"),
    ),
    (*(flag(n, f"VCS{n}") for n in range(8)), *(flag(31 - n, f"VECS{n}") for n in range(4))),
)
_CLASSES = {0: "RENDER", 1: "VIDEO_DECODE", 2: "VIDEO_ENHANCE", 3: "COPY", 4: "OTHER", 5: "COMPUTE"}
_IDENTITY = (
    field(0, 15, "ENGINE_INTR"),
    field(16, 18, "ENGINE_CLASS", _CLASSES),
    field(20, 25, "ENGINE_INSTANCE"),
    flag(31, "DATA_VALID"),
)


def _engine_interrupts(shift: int, prefix: str) -> list[Field]:
    """One half of an enable register of engines: no other interrupt of them than MI_USER_INTERRUPT is ever raised."""
    return [
        flag(shift, f"{prefix}.MI_USER_INTERRUPT"),
        not_modelled(shift + 3, f"{prefix}.CS_MASTER_ERROR"),
        not_modelled(shift + 4, f"{prefix}.FLUSH_COMPLETE"),
        not_modelled(shift + 8, f"{prefix}.CONTEXT_SWITCH"),
        not_modelled(shift + 11, f"{prefix}.WAIT_SEMAPHORE"),
    ]


_ENABLE_FIELDS = {
    RENDER_COPY_ENABLE: [*_engine_interrupts(16, "RCS"), *_engine_interrupts(0, "BCS")],
    VCS_VECS_ENABLE: [*_engine_interrupts(16, "VCS"), *_engine_interrupts(0, "VECS")],
    CCS_ENABLE: _engine_interrupts(16, "CCS"),
    GUC_SG_ENABLE: [flag(31, "GUC2HOST")],
}

# Which half of which enable register belongs to a class (xe_irq.c:xe_irq_enable_hwe): (offset, shift).
_CLASS_ENABLE = {RENDER: (RENDER_COPY_ENABLE, 16), COPY: (RENDER_COPY_ENABLE, 0), COMPUTE: (CCS_ENABLE, 16)}
_VIDEO_DECODE_ENABLE = (VCS_VECS_ENABLE, 16)
_VIDEO_ENHANCE_ENABLE = (VCS_VECS_ENABLE, 0)


# Tagged as accessible to VFs (XE_REG_OPTION_VF), though VFs from 12.50 on use memory instead: a driver writes some of
# them all the same (xe_irq.c:xe_irq_enable_hwe on a media GT), without effect.
_VF_VISIBLE: tuple[str, ...] = ("VCS", "VECS", "RENDER_COPY", "GUC_SG", "GPM_WGBOXPERF", "GUNIT_GSC", "CCS_RSVD")
_VF_VISIBLE += ("RCS0", "BCS_RSVD")


def declare_for_vf(registers: RegisterFile) -> None:
    """Add the interrupt registers that a VF may touch: they read 0 and ignore writes."""
    named = {**_ENABLES, **_MASKS}
    registers.add([Register(name, offset, access=RO) for name, offset in named.items() if name.startswith(_VF_VISIBLE)])


def _class_enable(info: EngineInfo) -> tuple[int, int]:
    found = _CLASS_ENABLE.get(info.engine_class)
    if found is not None:
        return found
    return _VIDEO_DECODE_ENABLE if info.name.startswith("vcs") else _VIDEO_ENHANCE_ENABLE


def _identity(engine_class: int, instance: int, bits: int) -> int:
    return VALID | instance << 20 | engine_class << 16 | bits


class Interrupts:
    """The card's interrupt logic. `raise_*` may be called from any thread (the VF's only on the executor)."""

    def __init__(self, gpu: Device, registers: RegisterFile) -> None:
        """`registers` is the PF's file."""
        self._gpu = gpu
        self._registers = registers
        self._lock = threading.Lock()
        self._enabled = False
        self._pending = [0, 0]
        self._identities: dict[int, int] = {}
        self._selected = [0, 0]
        self.memirqs: dict[int, Memirq] = {}
        """VFs' interrupt pages, by VFID."""
        registers.add(self._declarations())

    def reset(self) -> None:
        """Nothing pending, master off."""
        with self._lock:
            self._enabled = False
            self._pending = [0, 0]
            self._identities.clear()
            self._selected = [0, 0]

    def memirq(self, function: XeFunction) -> Memirq:
        """The interrupt page of a VF."""
        found = self.memirqs.get(function.vfid)
        if found is None:
            found = self.memirqs[function.vfid] = Memirq(function)
        return found

    def raise_engine(self, function: XeFunction, info: EngineInfo, status: int = 0, source: int = 0) -> None:
        """MI_USER_INTERRUPT of an engine that runs a context of `function`.

        For a VF, `status` and `source` are GGTT addresses from the engine's context image (RING_INT_STATUS_RPT_PTR,
        RING_INT_SRC_RPT_PTR); 0 takes the page that the VF told its GuC.
        """
        if function.vfid:
            self.memirq(function).raise_engine(info.interrupt, status, source)
            return
        offset, shift = _class_enable(info)
        if self._registers.peek(offset) >> shift & USER_INTERRUPT:
            self._raise(info.interrupt, _identity(info.engine_class, info.instance, USER_INTERRUPT))

    def raise_guc(self, function: XeFunction, gt: int) -> None:
        """The GuC of GT number `gt` has written messages for `function`."""
        if function.vfid:
            self.memirq(function).raise_guc(gt)
            return
        # Both GuCs share the enable bit (xe_guc.c:guc_enable_irq): GUC2HOST in the upper half.
        if self._registers.peek(GUC_SG_ENABLE) >> 16 & GUC2HOST:
            self._raise(GUC_SOURCES[gt], _identity(OTHER, _GUC_INSTANCES[gt], GUC2HOST))

    def _raise(self, source: int, identity: int) -> None:
        with self._lock:
            self._pending[source >> 5] |= 1 << (source & 31)
            self._identities[source] = self._identities.get(source, 0) | identity
            fire = self._enabled
        if fire:
            self._gpu.pf.pci.raise_msi()

    def _declarations(self) -> list[Register]:
        registers = [
            Register(
                "DG1_MSTR_TILE_INTR",
                DG1_MSTR_TILE_INTR,
                access=RO,
                read=self._read_master,
                write=self._write_master,
                fields=_TILES,
            ),
            Register("GFX_MSTR_IRQ", GFX_MSTR_IRQ, access=RO, read=self._read_gfx_master, fields=_GFX_MASTER),
        ]
        registers += [self._bank_register(bank) for bank in (0, 1)]
        registers += [self._selector(bank) for bank in (0, 1)]
        registers += [self._identity_register(bank) for bank in (0, 1)]
        registers += [
            Register(name, offset, fields=_ENABLE_FIELDS.get(offset, ())) for name, offset in _ENABLES.items()
        ]
        registers += [Register(name, offset, reset=_ALL_MASKED) for name, offset in _MASKS.items()]
        # PCU and GU_MISC blocks: nothing there raises interrupts yet (xe_irq.c:mask_and_disable, unmask_and_enable).
        for block, base in (("PCU", 0x444E0), ("GU_MISC", 0x444F0)):
            registers += [
                Register(f"{block}_ISR", base, access=RO),
                Register(f"{block}_IMR", base + 4, reset=_ALL_MASKED),
                Register(f"{block}_IIR", base + 8, access=W1C),
                Register(f"{block}_IER", base + 12),
            ]
        return registers

    def _read_master(self) -> int:
        return (MASTER if self._enabled else 0) | (1 if self._pending[0] or self._pending[1] else 0)

    def _write_master(self, value: int) -> None:
        enable = bool(value & MASTER)
        with self._lock:
            self._enabled = enable
            fire = enable and bool(self._pending[0] or self._pending[1])
        if fire:
            self._gpu.pf.pci.raise_msi()

    def _read_gfx_master(self) -> int:
        return (1 if self._pending[0] else 0) | (2 if self._pending[1] else 0)

    def _bank_register(self, bank: int) -> Register:
        def read() -> int:
            return self._pending[bank]

        return Register(f"GT_INTR_DW({bank})", GT_INTR_DW + 4 * bank, access=RO, read=read, fields=_BANKS[bank])

    def _selector(self, bank: int) -> Register:
        def select(value: int) -> None:
            with self._lock:
                bit = value & -value & self._pending[bank]
                self._pending[bank] &= ~bit
                self._selected[bank] = self._identities.pop(bank * 32 + bit.bit_length() - 1, 0) if bit else 0

        return Register(
            f"IIR_REG_SELECTOR({bank})", IIR_SELECTOR + 4 * bank, access=RO, write=select, fields=_BANKS[bank]
        )

    def _identity_register(self, bank: int) -> Register:
        def read() -> int:
            return self._selected[bank]

        def write(value: int) -> None:
            if value & VALID:
                self._selected[bank] = 0

        return Register(
            f"INTR_IDENTITY_REG({bank})", INTR_IDENTITY + 4 * bank, access=RO, read=read, write=write, fields=_IDENTITY
        )
