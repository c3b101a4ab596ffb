"""Actions: what hosts ask of the GuC (H2G), what the GuC tells them (G2H), and what PF and VF relay to each other.

One declaration each: the GuC model is dispatched by it, and traces are decoded by it. From `abi/guc_actions_abi.h`,
`abi/guc_actions_sriov_abi.h`, `abi/guc_actions_slpc_abi.h` and `abi/guc_relay_actions_abi.h`.
"""

from __future__ import annotations

from dataclasses import dataclass

PF = frozenset({"pf"})
VF = frozenset({"vf"})
BOTH = PF | VF


@dataclass(frozen=True, slots=True)
class Action:
    """One action. `fields` name the dwords that follow the HXG header; `minimum` of them must be there.

    `senders` says which hosts may ask for it ("pf", "vf"; none for what only the GuC sends); `mmio` and `ctb` by
    which ways.
    """

    code: int
    name: str
    fields: tuple[str, ...] = ()
    minimum: int = 0
    senders: frozenset[str] = frozenset()
    mmio: bool = False
    ctb: bool = False


H2G: dict[int, Action] = {}
G2H: dict[int, Action] = {}
RELAY: dict[int, Action] = {}


def _request(
    code: int,
    name: str,
    fields: str = "",
    *,
    senders: frozenset[str] = BOTH,
    optional: int = 0,
    mmio: bool = False,
    ctb: bool = True,
) -> int:
    names = tuple(fields.split())
    H2G[code] = Action(code, name, names, len(names) - optional, senders, mmio, ctb)
    return code


def _event(code: int, name: str, fields: str = "") -> int:
    names = tuple(fields.split())
    G2H[code] = Action(code, name, names, len(names))
    return code


def _relay(code: int, name: str, fields: str = "") -> int:
    RELAY[code] = Action(code, name, tuple(fields.split()))
    return code


# Bring-up, by MMIO.
SELF_CFG = _request(0x0508, "SELF_CFG", "klv value32 value64", optional=1, mmio=True, ctb=False)
CONTROL_CTB = _request(0x4509, "CONTROL_CTB", "control", mmio=True, ctb=False)
GET_HWCONFIG = _request(0x4100, "GET_HWCONFIG", "addr_lo addr_hi size", mmio=True, ctb=False)
VF_RESET = _request(0x5507, "VF_RESET", mmio=True, ctb=False)
MATCH_VERSION = _request(0x5500, "MATCH_VERSION", "version", senders=VF, mmio=True, ctb=False)
QUERY_SINGLE_KLV = _request(0x5509, "QUERY_SINGLE_KLV", "key", senders=VF, mmio=True, ctb=False)
RESFIX_START = _request(0x550F, "RESFIX_START", senders=VF, mmio=True, ctb=False)
RESFIX_DONE = _request(0x5508, "RESFIX_DONE", senders=VF, mmio=True, ctb=False)

# Submission.
REGISTER_CONTEXT = _request(
    0x4502,
    "REGISTER_CONTEXT",
    "flags guc_id engine_class submit_mask wq_desc_lo wq_desc_hi wq_base_lo wq_base_hi wq_size lrc_lo lrc_hi",
)
REGISTER_CONTEXT_MULTI_LRC = _request(
    0x4601,
    "REGISTER_CONTEXT_MULTI_LRC",
    "flags guc_id engine_class submit_mask wq_desc_lo wq_desc_hi wq_base_lo wq_base_hi wq_size count lrc_lo lrc_hi",
)
DEREGISTER_CONTEXT = _request(0x4503, "DEREGISTER_CONTEXT", "guc_id")
SCHED_CONTEXT = _request(0x1000, "SCHED_CONTEXT", "guc_id")
SCHED_CONTEXT_MODE_SET = _request(0x1001, "SCHED_CONTEXT_MODE_SET", "guc_id mode")
UPDATE_CONTEXT_POLICIES = _request(0x100B, "UPDATE_CONTEXT_POLICIES", "guc_id")
UPDATE_SCHEDULING_POLICIES = _request(0x0509, "UPDATE_SCHEDULING_POLICIES_KLV")
GLOBAL_SCHED_POLICY_CHANGE = _request(0x0506, "GLOBAL_SCHED_POLICY_CHANGE", "addr", senders=PF)
OPT_IN_FEATURE = _request(0x550E, "OPT_IN_FEATURE_KLV", "addr_lo addr_hi size_dw")

# Memory.
TLB_INVALIDATION = _request(0x7000, "TLB_INVALIDATION", "seqno op asid start_lo start_hi log2_pages", optional=4)
TLB_INVALIDATION_ALL = _request(0x7002, "TLB_INVALIDATION_ALL", "seqno op")
PAGE_FAULT_RES_DESC = _request(0x6003, "PAGE_FAULT_RES_DESC", "dw0 dw1 dw2", optional=1)

# Power, activity, firmware, log.
SLPC_REQUEST = _request(0x3003, "PC_SLPC_REQUEST", "event arg0 arg1", senders=PF, optional=2)
SETUP_PC_GUCRC = _request(0x3004, "SETUP_PC_GUCRC", "mode", senders=PF)
SET_DEVICE_ENGINE_ACTIVITY = _request(
    0x550C, "SET_DEVICE_ENGINE_ACTIVITY_BUFFER", "metadata_lo metadata_hi data_lo data_hi", senders=PF
)
SET_FUNCTION_ENGINE_ACTIVITY = _request(
    0x550D, "SET_FUNCTION_ENGINE_ACTIVITY_BUFFER", "functions metadata_lo metadata_hi data_lo data_hi", senders=PF
)
AUTHENTICATE_HUC = _request(0x4000, "AUTHENTICATE_HUC", "rsa", senders=PF)
LOG_FLUSH_COMPLETE = _request(0x0030, "LOG_BUFFER_FILE_FLUSH_COMPLETE", "buffer", senders=PF)
FORCE_LOG_FLUSH = _request(0x0302, "FORCE_LOG_BUFFER_FLUSH", "buffer", senders=PF, optional=1)

# SR-IOV.
UPDATE_VGT_POLICY = _request(0x5502, "PF2GUC_UPDATE_VGT_POLICY", "addr_lo addr_hi size_dw", senders=PF)
UPDATE_VF_CFG = _request(0x5503, "PF2GUC_UPDATE_VF_CFG", "vfid addr_lo addr_hi size_dw", senders=PF)
VF_CONTROL = _request(0x5506, "PF2GUC_VF_CONTROL", "vfid command", senders=PF)
SAVE_RESTORE_VF = _request(0x550B, "PF2GUC_SAVE_RESTORE_VF", "vfid addr_lo addr_hi size_dw", senders=PF)
RELAY_TO_VF = _request(0x5101, "PF2GUC_RELAY_TO_VF", "vfid relay_id", senders=PF)
RELAY_TO_PF = _request(0x5103, "VF2GUC_RELAY_TO_PF", "relay_id", senders=VF)

# What the GuC sends.
SCHED_CONTEXT_MODE_DONE = _event(0x1002, "SCHED_CONTEXT_MODE_DONE", "guc_id mode")
DEREGISTER_CONTEXT_DONE = _event(0x4600, "DEREGISTER_CONTEXT_DONE", "guc_id")
CONTEXT_RESET_NOTIFICATION = _event(0x1008, "CONTEXT_RESET_NOTIFICATION", "guc_id")
ENGINE_FAILURE_NOTIFICATION = _event(0x1009, "ENGINE_FAILURE_NOTIFICATION", "engine_class instance reason")
MEMORY_CAT_ERROR = _event(0x6000, "NOTIFY_MEMORY_CAT_ERROR", "guc_id error_type")
PAGE_FAULT_REQ_DESC = _event(0x6002, "REPORT_PAGE_FAULT_REQ_DESC", "dw0 dw1 dw2 dw3")
TLB_INVALIDATION_DONE = _event(0x7001, "TLB_INVALIDATION_DONE", "seqno")
STATE_CAPTURE_NOTIFICATION = _event(0x8002, "STATE_CAPTURE_NOTIFICATION", "status")
FLUSH_LOG_BUFFER = _event(0x8003, "NOTIFY_FLUSH_LOG_BUFFER_TO_FILE", "buffer")
RELAY_FROM_VF = _event(0x5100, "GUC2PF_RELAY_FROM_VF", "vfid relay_id")
RELAY_FROM_PF = _event(0x5102, "GUC2VF_RELAY_FROM_PF", "relay_id")
ADVERSE_EVENT = _event(0x5104, "GUC2PF_ADVERSE_EVENT", "vfid threshold")
VF_STATE_NOTIFY = _event(0x5106, "GUC2PF_VF_STATE_NOTIFY", "vfid event")

# What PF and VF say to each other.
VF2PF_HANDSHAKE = _relay(0x0001, "VF2PF_HANDSHAKE", "version")
VF2PF_QUERY_RUNTIME = _relay(0x0101, "VF2PF_QUERY_RUNTIME", "start")
VFXPF_TESTLOOP = _relay(0xDEB1, "VFXPF_TESTLOOP")

VF_COMMANDS = {1: "PAUSE", 2: "RESUME", 3: "STOP", 4: "FLR_START", 5: "FLR_FINISH"}
VF_EVENTS = {1: "FLR", 2: "FLR_DONE", 3: "PAUSE_DONE", 4: "FIXUP_DONE"}
SLPC_EVENTS = {
    0: "RESET",
    1: "SHUTDOWN",
    2: "PLATFORM_INFO_CHANGE",
    3: "DISPLAY_MODE_CHANGE",
    4: "FLIP_COMPLETE",
    5: "QUERY_TASK_STATE",
    6: "PARAMETER_SET",
    7: "PARAMETER_UNSET",
}
