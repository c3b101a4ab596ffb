"""KLVs: the keys are the firmware interface's, and what does not fit is refused by the error that says why."""

from __future__ import annotations

import re

import pytest

from vfio_user_xe.device_models.xe.guc import klv
from vfio_user_xe.device_models.xe.guc.errors import INVALID_KLV_KEY, MALFORMED_KLV, GucError

ABI = {
    0x0001: ("VF_CFG_GGTT_START", 2, 2),
    0x0002: ("VF_CFG_GGTT_SIZE", 2, 2),
    0x0003: ("VF_CFG_LMEM_SIZE", 2, 2),
    0x0004: ("VF_CFG_NUM_CONTEXTS", 1, 1),
    0x0005: ("VF_CFG_TILE_MASK", 1, 1),
    0x0006: ("VF_CFG_NUM_DOORBELLS", 1, 1),
    0x8A01: ("VF_CFG_EXEC_QUANTUM", 1, 1),
    0x8A02: ("VF_CFG_PREEMPT_TIMEOUT", 1, 1),
    0x8A03: ("VF_CFG_THRESHOLD_CAT_ERR", 1, 1),
    0x8A04: ("VF_CFG_THRESHOLD_ENGINE_RESET", 1, 1),
    0x8A05: ("VF_CFG_THRESHOLD_PAGE_FAULT", 1, 1),
    0x8A06: ("VF_CFG_THRESHOLD_H2G_STORM", 1, 1),
    0x8A07: ("VF_CFG_THRESHOLD_IRQ_STORM", 1, 1),
    0x8A08: ("VF_CFG_THRESHOLD_DOORBELL_STORM", 1, 1),
    0x8A0A: ("VF_CFG_BEGIN_DOORBELL_ID", 1, 1),
    0x8A0B: ("VF_CFG_BEGIN_CONTEXT_ID", 1, 1),
    0x8A0C: ("VF_CFG_SCHED_PRIORITY", 1, 1),
    0x8A0D: ("VF_CFG_THRESHOLD_MULTI_LRC_COUNT", 1, 1),
    0x8A0E: ("VF_CFG_ENGINE_GROUP_EXEC_QUANTUM", 1, 8),
    0x8A0F: ("VF_CFG_ENGINE_GROUP_PREEMPT_TIMEOUT", 1, 8),
    0x8001: ("VGT_POLICY_SCHED_IF_IDLE", 1, 1),
    0x8002: ("VGT_POLICY_ADVERSE_SAMPLE_PERIOD", 1, 1),
    0x8004: ("VGT_POLICY_ENGINE_GROUP_CONFIG", 0, 128),
    0x8D00: ("VGT_POLICY_RESET_AFTER_VF_SWITCH", 1, 1),
    0x3000: ("GLOBAL_CFG_GMD_ID", 1, 1),
    0x3001: ("GLOBAL_CFG_GROUP_SCHEDULING_AVAILABLE", 1, 1),
    0x3003: ("GLOBAL_CFG_NUM_PAGING_ENGINE_INSTANCES", 1, 1),
    0x0900: ("SELF_CFG_MEMIRQ_STATUS_ADDR", 2, 2),
    0x0901: ("SELF_CFG_MEMIRQ_SOURCE_ADDR", 2, 2),
    0x0902: ("SELF_CFG_H2G_CTB_ADDR", 2, 2),
    0x0903: ("SELF_CFG_H2G_CTB_DESCRIPTOR_ADDR", 2, 2),
    0x0904: ("SELF_CFG_H2G_CTB_SIZE", 1, 1),
    0x0905: ("SELF_CFG_G2H_CTB_ADDR", 2, 2),
    0x0906: ("SELF_CFG_G2H_CTB_DESCRIPTOR_ADDR", 2, 2),
    0x0907: ("SELF_CFG_G2H_CTB_SIZE", 1, 1),
    0x2001: ("CONTEXT_EXECUTION_QUANTUM", 1, 1),
    0x2002: ("CONTEXT_PREEMPTION_TIMEOUT", 1, 1),
    0x2003: ("CONTEXT_SCHEDULING_PRIORITY", 1, 1),
    0x2004: ("CONTEXT_PREEMPT_TO_IDLE_ON_QUANTUM_EXPIRY", 1, 1),
    0x2005: ("CONTEXT_SLPM_GT_FREQUENCY", 1, 1),
    0x1001: ("SCHEDULING_POLICIES_RENDER_COMPUTE_YIELD", 2, 2),
    0x4001: ("OPT_IN_EXT_CAT_ERR_TYPE", 0, 0),
    0x4003: ("OPT_IN_DYNAMIC_INHIBIT_CONTEXT_SWITCH", 0, 0),
    0x4004: ("OPT_IN_UNCORRECTABLE_LOCAL_ERROR_NOTIFICATION", 0, 0),
    0x5001: ("FEATURE_DISABLE_MULTI_QUEUE", 0, 1),
    0x9002: ("WA_BLOCK_INTERRUPTS_WHEN_MGSR_BLOCKED", 0, 1),
    0x9004: ("WA_DISABLE_PSMI_INTERRUPTS_AT_C6_ENTRY_RESTORE_AT_EXIT", 0, 1),
    0x9005: ("WA_ID_GAM_PFQ_SHADOW_TAIL_POLLING", 0, 1),
    0x9007: ("WA_ID_DISABLE_MTP_DURING_ASYNC_COMPUTE", 0, 1),
    0x9008: ("WA_NP_RD_WRITE_TO_CLEAR_RCSM_AT_CGP_LATE_RESTORE", 0, 1),
    0x9009: ("WA_ID_BACK_TO_BACK_RCS_ENGINE_RESET", 0, 1),
    0x900A: ("WA_WAKE_POWER_DOMAINS_FOR_OUTBOUND_MMIO", 0, 1),
    0x900B: ("WA_RESET_BB_STACK_PTR_ON_VF_SWITCH", 0, 1),
    0x900C: ("WA_RESTORE_UNSAVED_MEDIA_CONTROL_REG", 0, 1),
}
"""abi/guc_klvs_abi.h: key, and how many dwords its value has, at least and at most."""


def test_keys_and_lengths_are_those_of_the_firmware_interface() -> None:
    assert {key.key: (key.name, key.minimum, key.maximum) for key in klv.KEYS.values()} == ABI
    assert all(number == key.key for number, key in klv.KEYS.items())


def test_names_of_the_module_are_the_keys_that_they_say() -> None:
    """GGTT_START is VF_CFG_GGTT_START, and so on, but for names that would be too long."""
    numbers = {name: value for name, value in vars(klv).items() if name.isupper() and isinstance(value, int)}
    numbers = {name: number for name, number in numbers.items() if number in klv.KEYS}
    assert len(numbers) == len(ABI) - len([name for name, _, _ in ABI.values() if name.startswith(("WA_", "FEATURE_"))])
    shortened = {
        "GLOBAL_GROUP_SCHEDULING": "GLOBAL_CFG_GROUP_SCHEDULING_AVAILABLE",
        "GLOBAL_GMD_ID": "GLOBAL_CFG_GMD_ID",
        "GLOBAL_PAGING_ENGINES": "GLOBAL_CFG_NUM_PAGING_ENGINE_INSTANCES",
        "EXECUTION_QUANTUM": "CONTEXT_EXECUTION_QUANTUM",
        "PREEMPT_TO_IDLE": "CONTEXT_PREEMPT_TO_IDLE_ON_QUANTUM_EXPIRY",
        "UNCORRECTABLE_LOCAL_ERROR": "OPT_IN_UNCORRECTABLE_LOCAL_ERROR_NOTIFICATION",
    }
    for name, number in numbers.items():
        assert ABI[number][0].endswith(shortened.get(name, f"_{name}")), name


def test_what_the_pf_may_configure_of_a_vf_is_apart_from_policies() -> None:
    assert {ABI[key][0].partition("CFG_")[0] for key in klv.VF_CONFIG} == {"VF_"}
    assert {ABI[key][0].partition("POLICY_")[0] for key in klv.VGT_POLICY} == {"VGT_"}
    assert len(klv.VF_CONFIG) == 20
    assert len(klv.VGT_POLICY) == 4


def test_klvs_come_one_after_the_other() -> None:
    words = (0x0001_0002, 0x1000, 0x2, 0x4001_0000, 0x0004_0001, 7)
    assert list(klv.split(words)) == [(0, 1, 2, (0x1000, 2)), (3, 0x4001, 0, ()), (4, 4, 1, (7,))]
    assert klv.parse(words) == [(1, (0x1000, 2)), (0x4001, ()), (4, (7,))]
    assert klv.parse(()) == []


def test_of_a_value_that_is_cut_off_there_is_what_is_there() -> None:
    assert list(klv.split((0x0001_0002, 0x1000))) == [(0, 1, 2, (0x1000,))]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((0x0004_0001, 7, 0x0001_0002, 5), MALFORMED_KLV, "VF_CFG_GGTT_START of 2 dwords at dword 2 of 4"),
        ((0x7777_0000,), INVALID_KLV_KEY, "0x7777"),
        ((0x0004_0002, 7, 7), MALFORMED_KLV, "VF_CFG_NUM_CONTEXTS has 2 dwords, not 1"),
        ((0x0004_0000,), MALFORMED_KLV, "VF_CFG_NUM_CONTEXTS has 0 dwords, not 1"),
        ((0x0002_0001, 7), MALFORMED_KLV, "VF_CFG_GGTT_SIZE has 1 dwords, not 2"),
        ((0x8004_0081, *range(129)), MALFORMED_KLV, "VGT_POLICY_ENGINE_GROUP_CONFIG has 129 dwords, not 0 to 128"),
        ((0x8A0E_0000,), MALFORMED_KLV, "VF_CFG_ENGINE_GROUP_EXEC_QUANTUM has 0 dwords, not 1 to 8"),
        ((0x8A0E_0009, *range(9)), MALFORMED_KLV, "VF_CFG_ENGINE_GROUP_EXEC_QUANTUM has 9 dwords, not 1 to 8"),
    ],
)
def test_klvs_that_do_not_fit_are_refused_with_what_is_allowed(words: tuple[int, ...], code: int, message: str) -> None:
    with pytest.raises(GucError, match=re.escape(message)) as caught:
        klv.parse(words)
    assert caught.value.code == code


@pytest.mark.parametrize("length", [1, 4, 8])
@pytest.mark.parametrize("key", [klv.ENGINE_GROUP_EXEC_QUANTUM, klv.ENGINE_GROUP_PREEMPT_TIMEOUT])
def test_a_key_with_a_range_of_lengths_takes_all_of_them(key: int, length: int) -> None:
    assert klv.parse((key << 16 | length, *range(length))) == [(key, tuple(range(length)))]


def test_a_key_that_is_known_is_refused_where_it_is_not_allowed() -> None:
    assert klv.parse((0x0004_0001, 7), frozenset({4})) == [(4, (7,))]
    with pytest.raises(GucError, match="VF_CFG_NUM_CONTEXTS") as caught:
        klv.parse((0x0004_0001, 7), klv.VGT_POLICY)
    assert caught.value.code == INVALID_KLV_KEY


def test_a_number_has_its_lowest_dword_first() -> None:
    assert klv.number((0x2, 0x1, 0x3)) == 0x3_0000_0001_0000_0002
    assert klv.pack(klv.GGTT_SIZE, 0x1_0000_0002) == (0x0002_0002, 2, 1)
    assert klv.pack(klv.NUM_CONTEXTS, 7) == (0x0004_0001, 7)
