"""Provisioning of VFs by the card itself, where no PF's driver does it (`xe_gt_sriov_pf_config.c`, `xe_lmtt.c`).

The shares are what the driver's profile gives VFs of a PF that needs nothing for itself ("admin only"): there is none
here that would. All is written where a driver would write it: LMTT into VRAM, owners into the PF's GGTT entries, the
rest into KLVs for the GuC.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack

from vfio_user_xe.device_models.xe.guc import klv
from vfio_user_xe.device_models.xe.guc.limits import ALL_CONTEXTS, ALL_DOORBELLS, GGTT_TOP
from vfio_user_xe.device_models.xe.memory.formats import lmtt as lmtt_format
from vfio_user_xe.device_models.xe.memory.formats.ggtt import PRESENT, VFID_SHIFT
from vfio_user_xe.device_models.xe.memory.memory_map import GIB, MIB, MemoryMap
from vfio_user_xe.device_models.xe.profiles.profile import Profile
from vfio_user_xe.emulator.model.card import CardError
from vfio_user_xe.emulator.model.memory import Memory

GGTT_BOTTOM = 16 * MIB
"""The lowest GGTT address that a VF gets; below are WOPCM's and the card's own pages."""

_TABLE = lmtt_format.TABLE_SIZE
_BLOCK = 2 * MIB
_VRAM_SPARE = 128 * MIB
"""xe_gt_sriov_pf_config.c:pf_get_min_spare_lmem."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The provisioning that each VF is to get, in bytes and numbers. 0 in the first four is a fair share."""

    ggtt: int = 0
    vram: int = 0
    contexts: int = 0
    doorbells: int = 0
    quantum_ms: int = 16
    preempt_us: int = 16_000
    guc: tuple[int, int, int] = (1, 38, 1)
    """The interface's version, which VFs negotiate."""


@dataclass(frozen=True, slots=True)
class Quota:
    """The provisioning of VF `vfid`: GGTT, VRAM (`dpa` is where it is), ids, scheduling."""

    vfid: int
    ggtt_start: int
    ggtt_size: int
    dpa: int
    vram: int
    first_context: int
    contexts: int
    first_doorbell: int
    doorbells: int
    quantum_ms: int
    preempt_us: int

    def klvs(self, gt: int) -> dict[int, int]:
        """The KLVs for the GuC of `gt`; only the main GT's contain VRAM."""
        vram = {klv.LMEM_SIZE: self.vram} if gt == 0 else {}
        return vram | {
            klv.GGTT_START: self.ggtt_start,
            klv.GGTT_SIZE: self.ggtt_size,
            klv.BEGIN_CONTEXT_ID: self.first_context,
            klv.NUM_CONTEXTS: self.contexts,
            klv.BEGIN_DOORBELL_ID: self.first_doorbell,
            klv.NUM_DOORBELLS: self.doorbells,
            klv.EXEC_QUANTUM: self.quantum_ms,
            klv.PREEMPT_TIMEOUT: self.preempt_us,
        }

    @property
    def ggtt_entries(self) -> bytes:
        """The entries of its GGTT before it has written any (`xe_ggtt.c:xe_ggtt_assign`)."""
        return pack("<Q", self.vfid << VFID_SHIFT | PRESENT) * (self.ggtt_size >> 12)


@dataclass(frozen=True, slots=True)
class Plan:
    """The quotas of all VFs, and where in VRAM the card keeps what a PF's driver would."""

    quotas: tuple[Quota, ...]
    lmtt: int
    """DPA of the LMTT directory; the other tables follow."""
    scratch: int
    """DPA of 64 KiB that the card uses for itself."""

    @classmethod
    def of(cls, profile: Profile, wanted: Wanted) -> Plan:
        """Divide the card among its VFs.

        Raises:
            CardError: the shares do not fit.
        """
        count = profile.total_vfs
        usable = MemoryMap.of(profile.vram, profile.flat_ccs).usable
        leaves = -(-usable // (lmtt_format.LEAF_ENTRIES * _BLOCK))
        scratch = usable - _TABLE
        lmtt = scratch - _TABLE * (1 + count * (1 + leaves))
        ggtt = wanted.ggtt or _fair_ggtt(count)
        vram = wanted.vram or _fair_vram(usable, count)
        contexts = wanted.contexts or _fair(ALL_CONTEXTS, count, alone=64512)
        doorbells = wanted.doorbells or _fair(ALL_DOORBELLS, count + (count > 1), alone=240)
        for key, each, available in (
            ("vf_ggtt_size", ggtt, GGTT_TOP - GGTT_BOTTOM),
            ("vf_vram_size", vram, lmtt & -_BLOCK),
            ("vf_contexts", contexts, ALL_CONTEXTS),
            ("vf_doorbells", doorbells, ALL_DOORBELLS),
        ):
            if each * count > available:
                raise CardError(f"{count} VFs with {each:#x} each do not fit into {available:#x}", key)
        quotas = [
            Quota(
                vfid=vfid,
                ggtt_start=GGTT_TOP - vfid * ggtt,
                ggtt_size=ggtt,
                dpa=(vfid - 1) * vram,
                vram=vram,
                first_context=(vfid - 1) * contexts,
                contexts=contexts,
                first_doorbell=(vfid - 1) * doorbells,
                doorbells=doorbells,
                quantum_ms=wanted.quantum_ms,
                preempt_us=wanted.preempt_us,
            )
            for vfid in range(1, count + 1)
        ]
        return cls(tuple(quotas), lmtt, scratch)

    def write_lmtt(self, vram: Memory) -> None:
        """Write directory, tables and leaf tables of all VFs (`xe_lmtt_ml.c`; `memory/formats/lmtt.py`)."""
        following = self.lmtt + _TABLE
        for quota in self.quotas:
            table, following = following, following + _TABLE
            _store(vram, self.lmtt + 8 * quota.vfid, pack("<Q", lmtt_format.encode_pde(table)))
            blocks = range(quota.dpa // _BLOCK, (quota.dpa + quota.vram) // _BLOCK)
            for index, first in enumerate(range(0, len(blocks), lmtt_format.LEAF_ENTRIES)):
                leaf, following = following, following + _TABLE
                mapped = blocks[first : first + lmtt_format.LEAF_ENTRIES]
                _store(vram, table + 8 * index, pack("<Q", lmtt_format.encode_pde(leaf)))
                _store(vram, leaf, pack(f"<{len(mapped)}I", *(lmtt_format.encode_leaf(block) for block in mapped)))


def _fair(total: int, count: int, *, alone: int) -> int:
    return alone if count == 1 else _power_of_two_below(total // count)


def _fair_ggtt(count: int) -> int:
    """xe_gt_sriov_pf_config.c:pf_profile_fair_ggtt."""
    shareable = GGTT_TOP & -(512 * MIB)
    if count > 56:
        return 56 * MIB
    return shareable if count == 1 else _power_of_two_below(shareable // count)


def _fair_vram(usable: int, count: int) -> int:
    """xe_gt_sriov_pf_config.c:pf_profile_fair_lmem; of a card that is too small for that, an equal part of it."""
    available = usable - _VRAM_SPARE
    return (available & -GIB or available) // count & -_BLOCK


def _power_of_two_below(number: int) -> int:
    return 1 << number.bit_length() - 1


def _store(vram: Memory, dpa: int, data: bytes) -> None:
    vram.view[dpa : dpa + len(data)] = data
