"""Registers that the driver's work-around and tuning lists program (`xe_reg_sr.c`, `xe_wa.c`, `xe_tuning.c`).

They switch off optimizations or fix corner cases of the real chip, and have no effect on this one: plain storage,
declared so that traces and reports name them.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import MASKED, RO, flag, not_modelled

_MAIN = {
    "STATELESS_COMPRESSION_CTRL": 0x4148,
    "GAMREQSTRM_CTRL": 0x4194,
    "WM_CHICKEN3": 0x5588,
    "CHICKEN_RASTER_1": 0x6204,
    "CHICKEN_RASTER_2": 0x6208,
    "FF_MODE": 0x6210,
    "VFLSKPD": 0x62A8,
    "XEHP_COMMON_SLICE_CHICKEN1": 0x7010,
    "XEHP_PSS_CHICKEN": 0x7044,
    "XEHP_COMMON_SLICE_CHICKEN4": 0x7300,
    "VF_SCRATCHPAD": 0x83A8,
    "CCCHKNREG1": 0x8828,
    "UNSLICE_UNIT_LEVEL_CLKGATE": 0x9434,
    "SUBSLICE_UNIT_LEVEL_CLKGATE": 0x9524,
    "LSN_VC_REG2": 0xB0C8,
    "L3SQCREG2": 0xB104,
    "L3SQCREG3": 0xB108,
    "XEHP_L3SQCREG5": 0xB158,
    "XE2_TDF_CTRL": 0xB418,
    "HALF_SLICE_CHICKEN7": 0xE194,
    "CACHE_MODE_SS": 0xE420,
    "ROW_CHICKEN4": 0xE48C,
    "ROW_CHICKEN3": 0xE49C,
    "TDL_TSL_CHICKEN": 0xE4C4,
    "ROW_CHICKEN": 0xE4F0,
    "RT_CTRL": 0xE530,
    "TDL_CHICKEN": 0xE5F4,
    "LSC_CHICKEN_BIT_0": 0xE7C8,
    "LSC_CHICKEN_BIT_0_UDW": 0xE7CC,
}

_MEDIA = {
    "STATELESS_COMPRESSION_CTRL": 0x4148,
}

RCU_MODE = 0x14800
CCS_MODE = 0x14804

# What the units of the 3D pipeline have finished (xe_guc_capture.c, xe_hw_engine.c): idle units read all ones.
_INSTDONE = {
    "INSTDONE_GEOM_SVGUNIT": 0x666C,
    "SC_INSTDONE": 0x7100,
    "SC_INSTDONE_EXTRA": 0x7104,
    "SC_INSTDONE_EXTRA2": 0x7108,
    "SAMPLER_INSTDONE": 0xE160,
    "ROW_INSTDONE": 0xE164,
}

# Work-around 16023588340 of graphics 20.01 flushes L2 by hand: writing 1 starts, 0 is "done" (xe_device.c).
XE2_GLOBAL_INVAL = 0xB404


def declare(gt: Gt, registers: RegisterFile) -> None:
    """Add those of `gt`."""
    registers.add([gt.register(name, offset) for name, offset in (_MEDIA if gt.index else _MAIN).items()])
    if gt.index == 0:
        registers.add([gt.register(name, offset, reset=0xFFFFFFFF, access=RO) for name, offset in _INSTDONE.items()])
        registers.add([gt.register(f"L3_CHICKEN_SLOT({n})", 0xB1A0 + 4 * n) for n in range(8)])
        registers.add(
            [
                gt.register("XE2_GLOBAL_INVAL", XE2_GLOBAL_INVAL, access=RO),
                # Compute engines are there whether enabled or not, and share all slices (xe_gt_ccs_mode.c).
                gt.register(
                    "RCU_MODE",
                    RCU_MODE,
                    access=MASKED,
                    fields=[flag(0, "CCS_ENABLE"), not_modelled(1, "FIXED_SLICE_CCS_MODE")],
                ),
                gt.register(
                    "CCS_MODE", CCS_MODE, fields=[not_modelled(3 * n, f"CSLICE({n})", 3 * n + 2) for n in range(4)]
                ),
            ]
        )
