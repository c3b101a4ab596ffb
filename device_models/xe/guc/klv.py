"""KLVs: key, length and value, in dwords (`abi/guc_klvs_abi.h`). One declaration a key, for parsing and for traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vfio_user_xe.device_models.xe.guc.errors import INVALID_KLV_KEY, MALFORMED_KLV, GucError

MAX_SCHED_GROUPS = 8
MAX_ENGINE_CLASSES = 16


@dataclass(frozen=True, slots=True)
class Key:
    """A key and how many dwords its value may have."""

    key: int
    name: str
    minimum: int
    maximum: int

    @property
    def lengths(self) -> str:
        """The allowed lengths in words: "2", "1 to 8"."""
        return str(self.minimum) if self.minimum == self.maximum else f"{self.minimum} to {self.maximum}"


KEYS: dict[int, Key] = {}


def _key(key: int, name: str, length: int, maximum: int | None = None) -> int:
    KEYS[key] = Key(key, name, length, length if maximum is None else maximum)
    return key


# Of a VF (and of the PF itself): PF2GUC_UPDATE_VF_CFG, VF2GUC_QUERY_SINGLE_KLV.
GGTT_START = _key(0x0001, "VF_CFG_GGTT_START", 2)
GGTT_SIZE = _key(0x0002, "VF_CFG_GGTT_SIZE", 2)
LMEM_SIZE = _key(0x0003, "VF_CFG_LMEM_SIZE", 2)
NUM_CONTEXTS = _key(0x0004, "VF_CFG_NUM_CONTEXTS", 1)
TILE_MASK = _key(0x0005, "VF_CFG_TILE_MASK", 1)
NUM_DOORBELLS = _key(0x0006, "VF_CFG_NUM_DOORBELLS", 1)
EXEC_QUANTUM = _key(0x8A01, "VF_CFG_EXEC_QUANTUM", 1)
PREEMPT_TIMEOUT = _key(0x8A02, "VF_CFG_PREEMPT_TIMEOUT", 1)
THRESHOLD_CAT_ERR = _key(0x8A03, "VF_CFG_THRESHOLD_CAT_ERR", 1)
THRESHOLD_ENGINE_RESET = _key(0x8A04, "VF_CFG_THRESHOLD_ENGINE_RESET", 1)
THRESHOLD_PAGE_FAULT = _key(0x8A05, "VF_CFG_THRESHOLD_PAGE_FAULT", 1)
THRESHOLD_H2G_STORM = _key(0x8A06, "VF_CFG_THRESHOLD_H2G_STORM", 1)
THRESHOLD_IRQ_STORM = _key(0x8A07, "VF_CFG_THRESHOLD_IRQ_STORM", 1)
THRESHOLD_DOORBELL_STORM = _key(0x8A08, "VF_CFG_THRESHOLD_DOORBELL_STORM", 1)
BEGIN_DOORBELL_ID = _key(0x8A0A, "VF_CFG_BEGIN_DOORBELL_ID", 1)
BEGIN_CONTEXT_ID = _key(0x8A0B, "VF_CFG_BEGIN_CONTEXT_ID", 1)
SCHED_PRIORITY = _key(0x8A0C, "VF_CFG_SCHED_PRIORITY", 1)
THRESHOLD_MULTI_LRC_COUNT = _key(0x8A0D, "VF_CFG_THRESHOLD_MULTI_LRC_COUNT", 1)
ENGINE_GROUP_EXEC_QUANTUM = _key(0x8A0E, "VF_CFG_ENGINE_GROUP_EXEC_QUANTUM", 1, MAX_SCHED_GROUPS)
ENGINE_GROUP_PREEMPT_TIMEOUT = _key(0x8A0F, "VF_CFG_ENGINE_GROUP_PREEMPT_TIMEOUT", 1, MAX_SCHED_GROUPS)
VF_CONFIG = frozenset(KEYS)

# Of all functions: PF2GUC_UPDATE_VGT_POLICY.
SCHED_IF_IDLE = _key(0x8001, "VGT_POLICY_SCHED_IF_IDLE", 1)
ADVERSE_SAMPLE_PERIOD = _key(0x8002, "VGT_POLICY_ADVERSE_SAMPLE_PERIOD", 1)
ENGINE_GROUP_CONFIG = _key(0x8004, "VGT_POLICY_ENGINE_GROUP_CONFIG", 0, MAX_SCHED_GROUPS * MAX_ENGINE_CLASSES)
RESET_AFTER_VF_SWITCH = _key(0x8D00, "VGT_POLICY_RESET_AFTER_VF_SWITCH", 1)
VGT_POLICY = frozenset({SCHED_IF_IDLE, ADVERSE_SAMPLE_PERIOD, ENGINE_GROUP_CONFIG, RESET_AFTER_VF_SWITCH})

# Of the card: VF2GUC_QUERY_SINGLE_KLV.
GLOBAL_GMD_ID = _key(0x3000, "GLOBAL_CFG_GMD_ID", 1)
GLOBAL_GROUP_SCHEDULING = _key(0x3001, "GLOBAL_CFG_GROUP_SCHEDULING_AVAILABLE", 1)
GLOBAL_PAGING_ENGINES = _key(0x3003, "GLOBAL_CFG_NUM_PAGING_ENGINE_INSTANCES", 1)

# Of a host's communication: HOST2GUC_SELF_CFG.
MEMIRQ_STATUS_ADDR = _key(0x0900, "SELF_CFG_MEMIRQ_STATUS_ADDR", 2)
MEMIRQ_SOURCE_ADDR = _key(0x0901, "SELF_CFG_MEMIRQ_SOURCE_ADDR", 2)
H2G_CTB_ADDR = _key(0x0902, "SELF_CFG_H2G_CTB_ADDR", 2)
H2G_CTB_DESCRIPTOR_ADDR = _key(0x0903, "SELF_CFG_H2G_CTB_DESCRIPTOR_ADDR", 2)
H2G_CTB_SIZE = _key(0x0904, "SELF_CFG_H2G_CTB_SIZE", 1)
G2H_CTB_ADDR = _key(0x0905, "SELF_CFG_G2H_CTB_ADDR", 2)
G2H_CTB_DESCRIPTOR_ADDR = _key(0x0906, "SELF_CFG_G2H_CTB_DESCRIPTOR_ADDR", 2)
G2H_CTB_SIZE = _key(0x0907, "SELF_CFG_G2H_CTB_SIZE", 1)

# Of a context: UPDATE_CONTEXT_POLICIES.
EXECUTION_QUANTUM = _key(0x2001, "CONTEXT_EXECUTION_QUANTUM", 1)
PREEMPTION_TIMEOUT = _key(0x2002, "CONTEXT_PREEMPTION_TIMEOUT", 1)
SCHEDULING_PRIORITY = _key(0x2003, "CONTEXT_SCHEDULING_PRIORITY", 1)
PREEMPT_TO_IDLE = _key(0x2004, "CONTEXT_PREEMPT_TO_IDLE_ON_QUANTUM_EXPIRY", 1)
SLPM_GT_FREQUENCY = _key(0x2005, "CONTEXT_SLPM_GT_FREQUENCY", 1)

# Of scheduling: UPDATE_SCHEDULING_POLICIES_KLV.
RENDER_COMPUTE_YIELD = _key(0x1001, "SCHEDULING_POLICIES_RENDER_COMPUTE_YIELD", 2)

# Features that a driver opts in to: OPT_IN_FEATURE_KLV.
EXT_CAT_ERR_TYPE = _key(0x4001, "OPT_IN_EXT_CAT_ERR_TYPE", 0)
DYNAMIC_INHIBIT_CONTEXT_SWITCH = _key(0x4003, "OPT_IN_DYNAMIC_INHIBIT_CONTEXT_SWITCH", 0)
UNCORRECTABLE_LOCAL_ERROR = _key(0x4004, "OPT_IN_UNCORRECTABLE_LOCAL_ERROR_NOTIFICATION", 0)

# Work-arounds, in the page that the ADS points to.
for _code, _name in {
    0x5001: "FEATURE_DISABLE_MULTI_QUEUE",
    0x9002: "WA_BLOCK_INTERRUPTS_WHEN_MGSR_BLOCKED",
    0x9004: "WA_DISABLE_PSMI_INTERRUPTS_AT_C6_ENTRY_RESTORE_AT_EXIT",
    0x9005: "WA_ID_GAM_PFQ_SHADOW_TAIL_POLLING",
    0x9007: "WA_ID_DISABLE_MTP_DURING_ASYNC_COMPUTE",
    0x9008: "WA_NP_RD_WRITE_TO_CLEAR_RCSM_AT_CGP_LATE_RESTORE",
    0x9009: "WA_ID_BACK_TO_BACK_RCS_ENGINE_RESET",
    0x900A: "WA_WAKE_POWER_DOMAINS_FOR_OUTBOUND_MMIO",
    0x900B: "WA_RESET_BB_STACK_PTR_ON_VF_SWITCH",
    0x900C: "WA_RESTORE_UNSAVED_MEDIA_CONTROL_REG",
}.items():
    _key(_code, _name, 0, 1)


def name_of(key: int) -> str:
    """The key's name, or its number."""
    found = KEYS.get(key)
    return found.name if found else f"{key:#06x}"


def split(words: Sequence[int]) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
    """The KLVs in `words`, unchecked: place in dwords, key, stated length in dwords, and as much of the value as is there.

    By shifts, as it serves requests: each context that a driver registers comes with five.
    """
    position = 0
    while position < len(words):
        key, length = words[position] >> 16, words[position] & 0xFFFF
        yield position, key, length, tuple(words[position + 1 : position + 1 + length])
        position += 1 + length


def parse(words: Sequence[int], allowed: frozenset[int] | None = None) -> list[tuple[int, tuple[int, ...]]]:
    """The KLVs in `words`: (key, value) in order.

    Raises:
        GucError: MALFORMED_KLV when a length does not fit the buffer or the key; INVALID_KLV_KEY when a key is not
            in `allowed` (None: every declared key is).
    """
    found = []
    for position, key, length, value in split(words):
        if len(value) != length:
            raise GucError(MALFORMED_KLV, f"{name_of(key)} of {length} dwords at dword {position} of {len(words)}")
        declared = KEYS.get(key)
        if declared is None or (allowed is not None and key not in allowed):
            raise GucError(INVALID_KLV_KEY, name_of(key))
        if not declared.minimum <= length <= declared.maximum:
            raise GucError(MALFORMED_KLV, f"{declared.name} has {length} dwords, not {declared.lengths}")
        found.append((key, value))
    return found


def number(value: tuple[int, ...]) -> int:
    """The value of a KLV as a number, its first dword the lowest."""
    return sum(word << 32 * n for n, word in enumerate(value))


def pack(key: int, value: int) -> tuple[int, ...]:
    """A KLV of a declared key, in dwords."""
    length = KEYS[key].minimum
    return (key << 16 | length, *(value >> 32 * n & 0xFFFFFFFF for n in range(length)))
