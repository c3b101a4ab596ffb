"""The registers that every engine has, each declared once (`regs/xe_engine_regs.h`; `MI_*`, `3DPRIM_*`: Mesa's genxml).

A row says where a register is from the engine's base, how it is written, what its bits are, whether it belongs to the context
that runs, and whether unprivileged batches may write it. The PF's register file, the engines' live values, what commands reach
(`register_access.py`) and error capture all take it from here.

MASKED is XE_REG_OPTION_MASKED. `user` marks the user mode non-privileged registers: IGT's list of them for graphics 12
(`gem_ctx_isolation.c:nonpriv_registers`); BCS_SWCTRL also in the PRM of Tiger Lake (volume 10, "User Mode Non-Privileged
Registers"); CS_DEBUG_MODE2, which Mesa's drivers write from user batches on graphics 9 to 20
(`genX_init_state.c:init_render_queue_state`, `iris_state.c:iris_init_render_context`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vfio_user_xe.device_models.xe.profiles.profile import EngineInfo
from vfio_user_xe.emulator.model.registers import (
    MASKED,
    RO,
    RW,
    Field,
    Register,
    field,
    flag,
    not_modelled,
    reserved,
)

ENGINE_REGISTERS = 0x1000
"""Bytes of registers from an engine's base on."""

Read = Callable[[], int]


@dataclass(frozen=True, slots=True)
class EngineRegister:
    """One register of every engine, or `count` alike in a row, `width` bytes (4 or 8) each.

    `context`: what a command writes belongs to the running context, is saved with it and captured from it; otherwise it is the
    function's. `user`: unprivileged batches may write it. `only`: the engines that have it, by the beginning of their names;
    its number may mean something else on others.
    """

    name: str
    offset: int
    access: str = RW
    fields: Sequence[Field] = ()
    reset: int = 0
    count: int = 1
    width: int = 4
    context: bool = False
    user: bool = False
    only: tuple[str, ...] = ()

    @property
    def offsets(self) -> range:
        """Where its dwords are from the engine's base."""
        return range(self.offset, self.offset + self.count * self.width, 4)

    def on(self, engine: str) -> bool:
        """Whether the engine of that name has it."""
        return not self.only or engine.startswith(self.only)

    def name_of(self, index: int) -> str:
        """The name of its dword `index`."""
        number, part = divmod(4 * index, self.width)
        return self.name + (f"({number})" if self.count > 1 else "") + ("_UDW" if part else "")


TABLE: list[EngineRegister] = []
"""All of them, by offset."""


def _declare(
    name: str,
    offset: int,
    access: str = RW,
    *fields: Field,
    reset: int = 0,
    count: int = 1,
    width: int = 4,
    context: bool = False,
    user: bool = False,
    only: tuple[str, ...] = (),
) -> EngineRegister:
    row = EngineRegister(name, offset, access, fields, reset, count, width, context, user, only)
    TABLE.append(row)
    return row


NONPRIV_SLOTS = 12
"""RING_MAX_NONPRIV_SLOTS."""
_PWRCTX_MAXCNT = 0x40
"""Units of 640 ns. With work-arounds 16023105232 and 14025941587 the idle delay that the driver computes must stay
below it (`xe_hw_engine.c:adjust_idledly`)."""
_PIPELINE = ("rcs", "ccs")
"""The engines of the 3D and compute pipelines."""
_INTERRUPTS = (
    flag(0, "MI_USER_INTERRUPT"),
    flag(3, "CS_MASTER_ERROR"),
    flag(4, "FLUSH_COMPLETE"),
    flag(8, "CONTEXT_SWITCH"),
    flag(11, "WAIT_SEMAPHORE"),
)

RING_TAIL = _declare("RING_TAIL", 0x30, RO, field(3, 20, "TAIL_ADDR"), context=True)
RING_HEAD = _declare("RING_HEAD", 0x34, RO, field(2, 20, "HEAD_ADDR"), context=True)
RING_START = _declare("RING_START", 0x38, RO, context=True)
RING_CTL = _declare("RING_CTL", 0x3C, RO, flag(0, "RING_VALID"), field(12, 20, "SIZE"), context=True)
_declare(
    "RING_PSMI_CTL",
    0x50,
    MASKED,
    flag(0, "IDLE_MSG_DISABLE"),
    flag(7, "WAIT_FOR_EVENT_POWER_DOWN_DISABLE"),
    flag(12, "RC_SEMA_IDLE_MSG_DISABLE"),
)
_declare("RING_PWRCTX_MAXCNT", 0x54, RO, field(0, 19, "IDLE_WAIT_TIME"), reset=_PWRCTX_MAXCNT)
RING_ACTHD_UDW = _declare("RING_ACTHD_UDW", 0x5C, RO)
RING_IPEHR = _declare("RING_IPEHR", 0x68, RO)
RING_ACTHD = _declare("RING_ACTHD", 0x74, RO)
RING_HWS_PGA = _declare("RING_HWS_PGA", 0x80, RW, field(12, 31, "ADDRESS"))
ENGINE_ID = _declare("ENGINE_ID", 0x8C, RO, field(0, 2, "CLASS"), field(4, 9, "INSTANCE"))
_declare("NOPID", 0x94, RW, field(0, 21, "IDENTIFICATION_NUMBER"), context=True, user=True, only=_PIPELINE)
_declare("RING_HWSTAM", 0x98, RW, *_INTERRUPTS)
_declare("RING_MI_MODE", 0x9C, MASKED, not_modelled(8, "STOP_RING"), context=True)
_declare("FF_THREAD_MODE", 0xA0, RW, flag(19, "FF_TESSELATION_DOP_GATE_DISABLE"), context=True)
RING_INT_SRC_RPT_PTR = _declare("RING_INT_SRC_RPT_PTR", 0xA4, context=True)
RING_IMR = _declare("RING_IMR", 0xA8, RW, *_INTERRUPTS, context=True)
RING_INT_STATUS_RPT_PTR = _declare("RING_INT_STATUS_RPT_PTR", 0xAC, context=True)
_declare("RING_EIR", 0xB0)
_declare("RING_EMR", 0xB4)
_declare("RING_ESR", 0xB8)
_declare("INSTPM", 0xC0, MASKED, flag(13, "ENABLE_SEMAPHORE_POLL"), context=True, user=True)
_declare(
    "RING_CMD_CCTL",
    0xC4,
    MASKED,
    flag(0, "READ_ENCRYPT"),
    field(1, 6, "READ_OVERRIDE"),
    flag(7, "WRITE_ENCRYPT"),
    field(8, 13, "WRITE_OVERRIDE"),
    reserved(14, 15),
    context=True,
)
_declare("CS_MMIO_GROUP_INSTANCE_SELECT", 0xCC, context=True)
_declare(
    "CSFE_CHICKEN1",
    0xD4,
    MASKED,
    flag(7, "CS_PRIORITY_MEM_READ"),
    flag(14, "PPHWSP_CSB_AND_TIMESTAMP_REPORT_DIS"),
    flag(15, "GHWSP_CSB_REPORT_DIS"),
    context=True,
)
_declare(
    "CS_DEBUG_MODE2",
    0xD8,
    MASKED,
    not_modelled(0, "3D_RENDERING_INSTRUCTION_DISABLE"),
    not_modelled(1, "MEDIA_INSTRUCTION_DISABLE"),
    flag(4, "CONSTANT_BUFFER_ADDRESS_OFFSET_DISABLE"),
    flag(6, "INSTRUCTION_STATE_CACHE_INVALIDATE"),
    context=True,
    user=True,
)
_declare("FF_SLICE_CS_CHICKEN1", 0xE0, MASKED, not_modelled(14, "FFSC_PERCTX_PREEMPT_CTRL"), context=True)
_declare(
    "CS_DEBUG_MODE1",
    0xEC,
    MASKED,
    not_modelled(0, "REPLAY_MODE_GRANULARITY"),
    flag(1, "FF_DOP_CLOCK_GATE_DISABLE"),
    context=True,
)
RING_BBADDR = _declare("RING_BBADDR", 0x140, RO, context=True)
_declare("BB_OFFSET", 0x158, RW, field(3, 31, "OFFSET"), context=True, user=True, only=_PIPELINE)
RING_BBADDR_UDW = _declare("RING_BBADDR_UDW", 0x168, RO, context=True)
PR_CTR_CTRL = _declare("PR_CTR_CTRL", 0x178, context=True)
PR_CTR_THRSH = _declare("PR_CTR_THRSH", 0x17C, context=True)
_declare(
    "BCS_SWCTRL",
    0x200,
    MASKED,
    not_modelled(0, "TILE_Y_SRC"),
    not_modelled(1, "TILE_Y_DST"),
    flag(2, "DISABLE_256B"),
    context=True,
    user=True,
    only=("bcs",),
)
_declare("BLIT_CCTL", 0x204, RW, field(1, 6, "SRC_MOCS"), field(9, 14, "DST_MOCS"), context=True)
RING_EXECLIST_STATUS_LO = _declare("RING_EXECLIST_STATUS_LO", 0x234, RO)
RING_EXECLIST_STATUS_HI = _declare("RING_EXECLIST_STATUS_HI", 0x238, RO)
_declare("RING_IDLEDLY", 0x23C, RW, field(0, 20, "IDLE_DELAY"), flag(31, "INHIBIT_SWITCH_UNTIL_PREEMPTED"))
RING_CURRENT_LRCA = _declare("RING_CURRENT_LRCA", 0x240, RO, flag(0, "VALID"), field(12, 31, "LRCA"))
RING_CONTEXT_CONTROL = _declare(
    "RING_CONTEXT_CONTROL",
    0x244,
    MASKED,
    flag(0, "ENGINE_CTX_RESTORE_INHIBIT"),
    flag(3, "INHIBIT_SYN_CTX_SWITCH"),
    not_modelled(4, "INDIRECT_RING_STATE_ENABLE"),
    not_modelled(7, "RUN_ALONE"),
    flag(8, "OAC_CONTEXT_ENABLE"),
    not_modelled(10, "PXP_ENABLE"),
    context=True,
)
_declare("TS_GPGPU_THREADS_DISPATCHED", 0x290, width=8, context=True, user=True)
_declare(
    "GFX_MODE",
    0x29C,
    MASKED,
    flag(3, "GFX_DISABLE_LEGACY_MODE"),
    not_modelled(13, "GFX_MSIX_INTERRUPT_ENABLE"),
    context=True,
)
_declare("PS_INVOCATION_COUNT_0", 0x2C8, width=8, context=True, user=True, only=_PIPELINE)
_declare("PS_DEPTH_COUNT_0", 0x2D8, width=8, context=True, user=True, only=_PIPELINE)
_declare("PS_INVOCATION_COUNT_1", 0x2F0, width=8, context=True, user=True, only=_PIPELINE)
_declare("PS_DEPTH_COUNT_1", 0x2F8, width=8, context=True, user=True, only=_PIPELINE)
_declare("HS_INVOCATION_COUNT", 0x300, width=8, context=True, user=True, only=_PIPELINE)
_declare("DS_INVOCATION_COUNT", 0x308, width=8, context=True, user=True, only=_PIPELINE)
_declare("IA_VERTICES_COUNT", 0x310, width=8, context=True, user=True, only=_PIPELINE)
_declare("IA_PRIMITIVES_COUNT", 0x318, width=8, context=True, user=True, only=_PIPELINE)
_declare("VS_INVOCATION_COUNT", 0x320, width=8, context=True, user=True, only=_PIPELINE)
_declare("GS_INVOCATION_COUNT", 0x328, width=8, context=True, user=True, only=_PIPELINE)
_declare("GS_PRIMITIVES_COUNT", 0x330, width=8, context=True, user=True, only=_PIPELINE)
_declare("CL_INVOCATION_COUNT", 0x338, width=8, context=True, user=True, only=_PIPELINE)
_declare("CL_PRIMITIVES_COUNT", 0x340, width=8, context=True, user=True, only=_PIPELINE)
_declare("PS_INVOCATION_COUNT", 0x348, width=8, context=True, only=_PIPELINE)
_declare("PS_DEPTH_COUNT", 0x350, width=8, context=True, only=_PIPELINE)
RING_TIMESTAMP = _declare("RING_TIMESTAMP", 0x358, RO, width=8)
OA_CTX_CONTROL = _declare(
    "OA_CTX_CONTROL", 0x360, RW, flag(0, "COUNTER_RESUME"), context=True, user=True, only=_PIPELINE
)
_declare("OACTXID", 0x364, context=True, user=True, only=_PIPELINE)
RING_CTX_TIMESTAMP = _declare("RING_CTX_TIMESTAMP", 0x3A8, RO, width=8, context=True)
MI_PREDICATE_RESULT_2 = _declare("MI_PREDICATE_RESULT_2", 0x3BC, context=True, user=True)
MI_PREDICATE_SRC0 = _declare("MI_PREDICATE_SRC0", 0x400, width=8, context=True, user=True)
MI_PREDICATE_SRC1 = _declare("MI_PREDICATE_SRC1", 0x408, width=8, context=True, user=True)
MI_PREDICATE_DATA = _declare("MI_PREDICATE_DATA", 0x410, width=8, context=True, user=True)
MI_PREDICATE_RESULT = _declare("MI_PREDICATE_RESULT", 0x418, context=True, user=True)
_declare("MI_PREDICATE_RESULT_1", 0x41C, context=True, user=True)
_declare("3DPRIM_END_OFFSET", 0x420, context=True, user=True)
_declare("3DPRIM_START_VERTEX", 0x430, context=True, user=True)
_declare("3DPRIM_VERTEX_COUNT", 0x434, context=True, user=True)
_declare("3DPRIM_INSTANCE_COUNT", 0x438, context=True, user=True)
_declare("3DPRIM_START_INSTANCE", 0x43C, context=True, user=True)
_declare("3DPRIM_BASE_VERTEX", 0x440, context=True, user=True)
_declare("PS_INVOCATION_COUNT_2", 0x448, width=8, context=True, user=True, only=_PIPELINE)
_declare("PS_DEPTH_COUNT_2", 0x450, width=8, context=True, user=True, only=_PIPELINE)
RING_FORCE_TO_NONPRIV = _declare(
    "RING_FORCE_TO_NONPRIV",
    0x4D0,
    RW,
    field(0, 1, "RANGE", {0: "1", 1: "4", 2: "16", 3: "64"}),
    field(2, 25, "ADDRESS"),
    field(28, 29, "ACCESS", {0: "RW", 1: "RD", 2: "WR", 3: "INVALID"}),
    flag(30, "DENY"),
    count=NONPRIV_SLOTS,
)
GPGPU_DISPATCHDIM = _declare("GPGPU_DISPATCHDIM", 0x500, count=3, context=True, user=True)
_declare(
    "CS_CHICKEN1",
    0x580,
    MASKED,
    not_modelled(0, "PREEMPT_3D_OBJECT_LEVEL"),
    not_modelled(1, "PREEMPT_GPGPU_LEVEL", 2, {0: "MID_THREAD", 1: "THREAD_GROUP", 2: "COMMAND"}),
    not_modelled(10, "DISABLE_PREEMPTION_OF_3DPRIMITIVE"),
    context=True,
    user=True,
    only=_PIPELINE,
)
CS_GPR = _declare("CS_GPR", 0x600, RO, count=16, width=8, context=True, user=True)
_declare("3DPRIM_XP", 0x690, count=3, context=True, user=True, only=_PIPELINE)
_declare("MESH_PRIMITIVE_COUNT", 0x6D8, width=8, context=True, user=True, only=_PIPELINE)
_declare("MESH_INVOCATION_COUNT", 0x6E0, width=8, context=True, user=True, only=_PIPELINE)
_declare("TASK_INVOCATION_COUNT", 0x6E8, width=8, context=True, user=True, only=_PIPELINE)
_declare("3DMESH_TG_COUNT", 0x6F0, context=True, user=True, only=_PIPELINE)
_declare("3DMESH_STARTING_TGID", 0x6F4, context=True, user=True, only=_PIPELINE)
_declare("VDBOX_CGCTL3F08", 0x3F08, RW, flag(5, "CG3DDISHRS_CLKGATE_DIS"), only=("vcs",))
_declare("VDBOX_CGCTL3F1C", 0x3F1C, RW, flag(3, "MFXPIPE_CLKGATE_DIS"), only=("vcs",))


def _where(chosen: Callable[[EngineRegister], bool]) -> frozenset[int]:
    return frozenset(offset for row in TABLE if chosen(row) for offset in row.offsets)


MASKED_OFFSETS = _where(lambda row: row.access == MASKED)
"""Where the upper half of what is written says which bits of the lower half change."""
FUNCTION_OFFSETS = _where(lambda row: not row.context)
"""What does not belong to a context: the driver's own, by MMIO or from the ring."""
_USER_OFFSETS = {
    kind: frozenset(offset for row in TABLE if row.user and row.on(kind) for offset in row.offsets)
    for kind in ("rcs", "bcs", "ccs", "vcs", "vecs")
}


def user_offsets(engine: str) -> frozenset[int]:
    """What an unprivileged batch may write of the engine of that name ("rcs0"), from its base."""
    return _USER_OFFSETS[engine.rstrip("0123456789")]


def declare(info: EngineInfo, live: Mapping[int, Read]) -> list[Register]:
    """The registers of an engine for the PF's register file; `live` computes those at its offsets from the engine's base."""
    name = info.name.upper()
    return [
        Register(
            f"{name}.{row.name_of(index)}",
            info.base + offset,
            reset=info.engine_id if row is ENGINE_ID else row.reset,
            access=row.access,
            read=live.get(offset),
            fields=row.fields,
        )
        for row in TABLE
        if row.on(info.name)
        for index, offset in enumerate(row.offsets)
    ]
