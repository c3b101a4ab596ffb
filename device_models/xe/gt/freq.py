"""GT frequency and render C-state registers (`xe_guc_pc.c`, `xe_gt_idle.c`, `xe_gt_throttle.c`).

Frequencies are counted in units of 50/3 MHz. The GuC's SLPC (`guc/slpc.py`) sets limits and asks for a frequency;
this block shows the result and keeps the RC6 residency. A GT is in RC6 while the GuC may put it there, the host
holds no forcewake, and no engine works.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, field, flag, not_modelled

RP0 = 156
"""2600 MHz: the highest frequency, as the Arc Pro B50 is specified to boost to."""
RPA = 156
RPE = 54
"""900 MHz; the efficient frequency is resolved by firmware and not published."""
RPN = 24
"""400 MHz."""

_RESIDENCY_UNIT_NS = 1280
_CC6 = 3  # MTL_CC_MASK, bits 12:9 of MTL_MIRROR_TARGET_WP1; as GT_C6 in xe_gt_regs.h

_MAIN = {"cap": ("MTL_RP_STATE_CAP", 0x138000), "rpa": ("MTL_GT_RPA_FREQUENCY", 0x138008)}
_MAIN |= {"rpe": ("MTL_GT_RPE_FREQUENCY", 0x13800C), "rc6": ("GT_GFX_RC6", 0x138108)}
_MAIN |= {"limit": ("GT0_PERF_LIMIT_REASONS", 0x1381A8)}
_MEDIA = {"cap": ("MTL_MEDIAP_STATE_CAP", 0x138020), "rpa": ("MTL_MPA_FREQUENCY", 0x138028)}
_MEDIA |= {"rpe": ("MTL_MPE_FREQUENCY", 0x13802C), "rc6": ("MTL_MEDIA_MC6", 0x138048)}
_MEDIA |= {"limit": ("MTL_MEDIA_PERF_LIMIT_REASONS", 0x138030)}

MIRROR_TARGET_WP1 = 0xC60
RPNSWREQ = 0xA008
RP_CONTROL = 0xA024
POWERGATE_ENABLE = 0xA210
POWERGATE_DOMAIN_STATUS = 0xA2A0

# regs/xe_gt_regs.h, regs/xe_regs.h. Frequencies follow the GuC, not what the driver asks for by register.
_CAP = (field(0, 8, "RP0_CAP"), field(16, 24, "RPN_CAP"))
_RATIO = (field(0, 8, "RATIO"),)
_LIMITS = (
    flag(0, "PROCHOT"),
    flag(1, "THERMAL"),
    flag(5, "RATL"),
    flag(6, "VR_THERMALERT"),
    flag(7, "VR_TDC"),
    flag(8, "POWER_LIMIT_4"),
    flag(10, "POWER_LIMIT_1"),
    flag(11, "POWER_LIMIT_2"),
)
_WORK_POINT = (field(0, 8, "CAGF"), field(9, 12, "CC", {0: "C0", 3: "C6"}))
_REQUEST = (not_modelled(23, "REQ_RATIO", 31),)
_RP_CONTROL = (field(9, 10, "RPSWCTL", {0: "DISABLE", 2: "ENABLE"}),)
_RC_CONTROL = (not_modelled(18, "RC6_ENABLE"), not_modelled(28, "TO_MODE"), not_modelled(31, "HW_ENABLE"))
_GATES = (
    flag(0, "RENDER"),
    flag(1, "MEDIA"),
    *(flag(3 + 2 * n, f"VDN_HCP({n})") for n in range(4)),
    *(flag(4 + 2 * n, f"VDN_MFXVDENC({n})") for n in range(4)),
)


def to_units(mhz: int) -> int:
    """MHz to units of 50/3 MHz, rounded as `xe_guc_pc.c:encode_freq` does."""
    return (mhz * 3 + 25) // 50


class Frequency:
    """The frequency of one GT. Limits are in units of 50/3 MHz."""

    def __init__(self, gt: Gt, registers: RegisterFile, host_awake: Callable[[], bool]) -> None:
        """`host_awake` tells whether the host holds a forcewake domain of this GT."""
        self._gt = gt
        self._registers = registers
        self._host_awake = host_awake
        self.working: Callable[[], bool] = lambda: False
        """Whether an engine of this GT has work; the scheduler sets it."""
        self.minimum = RPN
        self.maximum = RP0
        self._rc6_allowed = False
        self._residency_ns = 0
        self._rc6_since: int | None = None
        self._lock = threading.Lock()
        names = _MEDIA if gt.index else _MAIN
        registers.add(
            [
                gt.register(names["cap"][0], names["cap"][1], reset=RPN << 16 | RP0, access=RO, fields=_CAP),
                gt.register(names["rpa"][0], names["rpa"][1], reset=RPA, access=RO, fields=_RATIO),
                gt.register(names["rpe"][0], names["rpe"][1], reset=RPE, access=RO, fields=_RATIO),
                gt.register(names["rc6"][0], names["rc6"][1], access=RO, read=self._residency),
                gt.register(names["limit"][0], names["limit"][1], access=RO, fields=_LIMITS),
                gt.register(
                    "MTL_MIRROR_TARGET_WP1", MIRROR_TARGET_WP1, access=RO, read=self._actual, fields=_WORK_POINT
                ),
                gt.register("RPNSWREQ", RPNSWREQ, read=self._requested, fields=_REQUEST),
                gt.register("RP_CONTROL", RP_CONTROL, fields=_RP_CONTROL),
                gt.register("RC_CONTROL", 0xA090, fields=_RC_CONTROL),
                gt.register("RC_STATE", 0xA094),
                gt.register("RC_IDLE_HYSTERSIS", 0xA0AC),
                gt.register("MEDIA_POWERGATE_IDLE_HYSTERESIS", 0xA0C4),
                gt.register("RENDER_POWERGATE_IDLE_HYSTERESIS", 0xA0C8),
                gt.register("POWERGATE_ENABLE", POWERGATE_ENABLE, fields=_GATES),
                gt.register("POWERGATE_DOMAIN_STATUS", POWERGATE_DOMAIN_STATUS, access=RO, read=self._power_gates),
            ]
        )

    def reset(self) -> None:
        """No limits but the chip's, RC6 off."""
        self.minimum, self.maximum = RPN, RP0
        self.allow_rc6(False)

    def allow_rc6(self, allowed: bool) -> None:
        """Give the GuC control of RC6 (H2G SETUP_PC_GUCRC), or take it away."""
        self._rc6_allowed = allowed
        self.update()

    def set_limits(self, minimum: int, maximum: int) -> None:
        """Limits as SLPC set them. A minimum above the maximum makes the minimum the only frequency."""
        self.minimum, self.maximum = minimum, maximum

    @property
    def in_rc6(self) -> bool:
        """Whether the GT sleeps."""
        return self._rc6_allowed and not self._host_awake() and not self.working()

    @property
    def hertz(self) -> int:
        """Clocks a second now; 0 while the GT sleeps."""
        return 0 if self.in_rc6 else self._target() * 50_000_000 // 3

    def update(self) -> None:
        """Look again whether the GT is in RC6; call it when anything that decides it may have changed."""
        now = self._gt.gpu.card.clock.ns()
        with self._lock:
            if self._rc6_since is not None:
                self._residency_ns += now - self._rc6_since
            self._rc6_since = now if self.in_rc6 else None

    def _target(self) -> int:
        """The frequency that SLPC requests: the highest allowed one while there is work, else the lowest."""
        return max(self.minimum, self.maximum) if self.working() else self.minimum

    def _residency(self) -> int:
        self.update()
        return self._residency_ns // _RESIDENCY_UNIT_NS & 0xFFFFFFFF

    def _actual(self) -> int:
        return _CC6 << 9 if self.in_rc6 else self._target()

    def _requested(self) -> int:
        return self._target() << 23

    def _power_gates(self) -> int:
        if self.in_rc6:
            return 0
        return 0x1D if self._gt.index else 0x2
