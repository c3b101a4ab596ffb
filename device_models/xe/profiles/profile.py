"""The parts of a card: IP versions, engines, memory sizes. Everything that the card file can choose, decoded once.

Engines and their places are facts of the platform: `xe_hw_engine.c:engine_infos`, `regs/xe_engine_regs.h`,
`regs/xe_irq_regs.h`, and the platform's engine masks in `xe_pci.c` (`graphics_xe2`, `media_xelpmp`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vfio_user_xe.device_models.xe.profiles.parts import PARTS, Part

L3_NODES = 1
"""Enabled memory nodes. The base of flat CCS counts in units of nodes (`xe_vram.c:get_flat_ccs_offset`)."""

L3_BANKS_PER_NODE = 4

# Engine classes as the driver numbers them (xe_hw_engine_types.h:enum xe_engine_class); the same numbers appear in
# interrupt identities (regs/xe_irq_regs.h) and in RING_ENGINE_ID (base + 0x8c).
RENDER = 0
VIDEO_DECODE = 1
VIDEO_ENHANCE = 2
COPY = 3
OTHER = 4
COMPUTE = 5

# The same classes as the GuC numbers them (xe_guc_fwif.h).
GUC_CLASS = {RENDER: 0, VIDEO_DECODE: 1, VIDEO_ENHANCE: 2, COPY: 3, COMPUTE: 4, OTHER: 5}
GUC_CLASS_TO_CLASS = {number: engine_class for engine_class, number in GUC_CLASS.items()}

MEDIA_GSI_OFFSET = 0x380000
"""Where the media GT's copies of registers below `GSI_LIMIT` are (regs/xe_gt_regs.h:MEDIA_GT_GSI_OFFSET)."""
GSI_LIMIT = 0x40000


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """One hardware engine.

    `logical` is its number among the engines of its class that are present, as the GuC's submit masks count;
    `base` the absolute offset of its registers in BAR0; `interrupt` its bit in the two GT_INTR_DWs, 0..63, which is
    also its number in the memory-based interrupt page (`xe_memirq.c`).
    """

    name: str
    engine_class: int
    instance: int
    logical: int
    base: int
    interrupt: int

    @property
    def guc_class(self) -> int:
        """The class as the GuC numbers it."""
        return GUC_CLASS[self.engine_class]

    @property
    def engine_id(self) -> int:
        """The value of RING_ENGINE_ID: class in bits 2:0, instance in bits 9:4 (`xe_lrc.c:engine_id_to_hwe`)."""
        return self.engine_class | self.instance << 4


_COMPUTE_BASES = (0x1A000, 0x1C000, 0x1E000, 0x26000)
_VIDEO_DECODE_BASES = (0x1C0000, 0x1C4000, 0x1D0000, 0x1D4000, 0x1E0000, 0x1E4000, 0x1F0000, 0x1F4000)
_VIDEO_ENHANCE_BASES = (0x1C8000, 0x1D8000, 0x1E8000, 0x1F8000)

MAX_COMPUTE = len(_COMPUTE_BASES)


def main_gt_engines(compute: int) -> tuple[EngineInfo, ...]:
    """Engines of the main GT; `compute` is the number of CCSs (0..4), the only ones that can be fused off."""
    engines = [
        EngineInfo("rcs0", RENDER, 0, 0, 0x2000, 0),
        EngineInfo("bcs0", COPY, 0, 0, 0x22000, 15),
        EngineInfo("bcs8", COPY, 8, 1, 0x3EE000, 23),
    ]
    engines += [EngineInfo(f"ccs{n}", COMPUTE, n, n, _COMPUTE_BASES[n], 4 + n) for n in range(compute)]
    return tuple(engines)


def media_gt_engines(decode: int = 1, enhance: int = 1) -> tuple[EngineInfo, ...]:
    """Engines of the media GT: `decode` VCSs (0..8) and `enhance` VECSs (0..4)."""
    engines = [EngineInfo(f"vcs{n}", VIDEO_DECODE, n, n, _VIDEO_DECODE_BASES[n], 32 + n) for n in range(decode)]
    engines += [EngineInfo(f"vecs{n}", VIDEO_ENHANCE, n, n, _VIDEO_ENHANCE_BASES[n], 63 - n) for n in range(enhance)]
    return tuple(engines)


def gmd_id(major: int, minor: int, revision: int) -> int:
    """A GMD_ID register: architecture in 31:22, release in 21:14, revision in 5:0 (regs/xe_gt_regs.h)."""
    return major << 22 | minor << 14 | revision


GRAPHICS_VERSIONS = {"20.02": gmd_id(20, 2, 4), "20.01": gmd_id(20, 1, 4)}
MEDIA_VERSION = gmd_id(13, 1, 4)


@dataclass(frozen=True, slots=True)
class Profile:
    """The card as built. Sizes in bytes.

    `engines[gt]` are the engines of GT 0 (main) and, with a media GT, GT 1. `vf_bar2` is the size of each VF's
    BAR2 and so of its memory; `bar2` the PF's, smaller than `vram` on a "small BAR" card.
    """

    device_id: int
    graphics: int
    media: int
    engines: tuple[tuple[EngineInfo, ...], ...]
    vram: int
    bar2: int
    flat_ccs: bool
    total_vfs: int
    vf_bar2: int
    xe_cores: int = 0
    """Xe cores that are not fused off; 0: those of the device id's product."""

    @property
    def part(self) -> Part:
        """The chip, and what of it is there."""
        part = PARTS[self.device_id]
        return replace(part, xe_cores=self.xe_cores) if self.xe_cores else part

    @property
    def has_media(self) -> bool:
        """Whether there is a media GT."""
        return self.media != 0
