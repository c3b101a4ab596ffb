"""Loading firmware: DMA of the blob, the GuC's status while it comes up, and the parameters it gets (`xe_guc.c`,
`xe_uc_fw.c:uc_fw_xfer`).

The driver programs the DMA engine with the blob's GGTT address and starts it; the boot ROM checks the blob and jumps
into it; the driver then polls GUC_STATUS for READY. The blob's code is not executed: what it would do is the rest of
this package. Its header is read, for the versions; its signature is not checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from struct import Struct

from vfio_user_xe.device_models.xe.function import Gt
from vfio_user_xe.device_models.xe.gt.wopcm import DMA_GUC_WOPCM_OFFSET, GUC_WOPCM_SIZE, LOCKED
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.model.registers import MASKED, RO, RegisterFile

log = logging.getLogger(__name__)

GUC_STATUS = 0xC000
SOFT_SCRATCH = 0xC180
SOFT_SCRATCH_COUNT = 16
HUC_KERNEL_LOAD_INFO = 0xC1DC
UOS_RSA_SCRATCH = 0xC200
DMA_ADDR_0 = 0xC300
DMA_ADDR_1 = 0xC308
DMA_COPY_SIZE = 0xC310
DMA_CTRL = 0xC314

START_DMA = 1 << 0
UOS_MOVE = 1 << 4
HUC_UKERNEL = 1 << 9

MIA_IN_RESET = 1
_AUTH_BAD, _AUTH_GOOD = 1 << 30, 2 << 30
_MIA_RUNNING = 2 << 16
_UKERNEL_READY = 0xF0 << 8
_JUMP_PASSED = 0x76 << 1
_RSA_FAILED = 0x50 << 1
_WOPCM_FAILED = 0x74 << 1
READY = _AUTH_GOOD | _MIA_RUNNING | _UKERNEL_READY | _JUMP_PASSED

_CSS_HEADER = Struct("<16I2I11I3I")
"""`abi/uc_fw_abi.h:struct uc_css_header`: dword 1 header size, 6 total size, 16 version, 17 submission version."""
_CSS_MODULE_TYPE = 6

# GUC_CTL_* (xe_guc_fwif.h): which of the 14 boot parameters is what.
LOG_PARAMS, WA_FLAGS, FEATURES, DEBUG, ADS, DEVICE_ID = range(6)
_PARAMETERS = 14
_ENABLE_SLPC = 1 << 2


class Boot:
    """Firmware state of one GT's GuC, and its boot registers."""

    def __init__(self, gt: Gt, registers: RegisterFile, started: Callable[[], None]) -> None:
        """`started()` is called on the executor when the firmware runs."""
        self._gt = gt
        self._registers = registers
        self._started = started
        self.running = False
        self.version = (0, 0, 0)
        """Of the firmware: 70.x.y."""
        self.submission_version = (0, 0, 0)
        """Of its interface, which VFs negotiate: 1.x.y."""
        self.huc_loaded = False
        self.boots = 0
        registers.add(
            [
                gt.register("GUC_STATUS", GUC_STATUS, reset=MIA_IN_RESET, access=RO),
                gt.register("BOOT_HASH_CHK", 0xC010, access=RO),
                gt.register("GUC_HEADER_INFO", 0xC014, access=RO),
                gt.register("GUC_SHIM_CONTROL", 0xC064),
                *(gt.register(f"SOFT_SCRATCH({n})", SOFT_SCRATCH + 4 * n) for n in range(SOFT_SCRATCH_COUNT)),
                gt.register("HUC_KERNEL_LOAD_INFO", HUC_KERNEL_LOAD_INFO, access=RO, fields={"SUCCESSFUL": (0, 0)}),
                *(gt.register(f"UOS_RSA_SCRATCH({n})", UOS_RSA_SCRATCH + 4 * n) for n in range(64)),
                gt.register("DMA_ADDR_0_LOW", DMA_ADDR_0),
                gt.register("DMA_ADDR_0_HIGH", DMA_ADDR_0 + 4),
                gt.register("DMA_ADDR_1_LOW", DMA_ADDR_1),
                gt.register("DMA_ADDR_1_HIGH", DMA_ADDR_1 + 4),
                gt.register("DMA_COPY_SIZE", DMA_COPY_SIZE),
                gt.register("DMA_CTRL", DMA_CTRL, access=MASKED, write=self._dma_control_written),
                gt.register("GUC_SRAM_STATUS", 0xC398, access=RO),
                gt.register("GUC_MAX_IDLE_COUNT", 0xC3E4),
                gt.register("GUC_INTR_CHICKEN", 0xC50C),
                gt.register("PMINTRMSK", 0xA168),
            ]
        )
        if gt.index == 0:
            # Above the registers that each GT has a copy of: doorbells for both.
            registers.add([gt.register("GT_PM_CONFIG", 0x13816C)])

    def parameter(self, index: int) -> int:
        """Boot parameter `index` (LOG_PARAMS...), as the driver left it in SOFT_SCRATCH(1 + index)."""
        if not 0 <= index < _PARAMETERS:
            raise IndexError(f"boot parameter {index}")
        return self._peek(SOFT_SCRATCH + 4 * (1 + index))

    @property
    def slpc_enabled(self) -> bool:
        """Whether the driver wants the firmware to manage frequencies."""
        return bool(self.parameter(FEATURES) & _ENABLE_SLPC)

    def reset_registers(self) -> None:
        """GDRST, inside the access: the micro-controller is in reset."""
        self._poke(GUC_STATUS, MIA_IN_RESET)
        self._poke(DMA_CTRL, 0)
        self._poke(HUC_KERNEL_LOAD_INFO, 0)

    def reset(self) -> None:
        """The rest of a reset, on the executor."""
        self.running = False
        self.huc_loaded = False

    def run_without_driver(self, version: tuple[int, int, int], interface: tuple[int, int, int]) -> None:
        """The firmware runs, and so does the HuC's, though no driver has loaded any. On the executor."""
        self.huc_loaded = self._gt.index > 0
        self.authenticate_huc()
        self._run(version, interface)

    def authenticate_huc(self) -> bool:
        """H2G AUTHENTICATE_HUC; whether there is a HuC to authenticate."""
        if self.huc_loaded:
            self._poke(HUC_KERNEL_LOAD_INFO, 1)
        return self.huc_loaded

    def _dma_control_written(self, value: int) -> None:
        if value & value >> 16 & START_DMA:
            self._gt.gpu.executor.submit(self._transfer)

    def _transfer(self) -> None:
        """The DMA that DMA_CTRL started. Drivers only request GGTT to WOPCM (`xe_uc_fw.c:uc_fw_xfer`)."""
        control = self._peek(DMA_CTRL)
        address = self._peek(DMA_ADDR_0) | (self._peek(DMA_ADDR_0 + 4) & 0xFFFF) << 32
        length = self._peek(DMA_COPY_SIZE)
        header = self._header(address)
        complete = header is not None and self._readable(address, length)
        if control & HUC_UKERNEL:
            self.huc_loaded = complete
        elif control & UOS_MOVE:
            self._boot(header if complete else None)
        self._poke(DMA_CTRL, control & ~START_DMA)

    def _boot(self, header: tuple[int, ...] | None) -> None:
        if not (self._peek(GUC_WOPCM_SIZE) & LOCKED and self._peek(DMA_GUC_WOPCM_OFFSET) & LOCKED):
            self._poke(GUC_STATUS, _AUTH_BAD | _WOPCM_FAILED)
            return
        if header is None:
            self._poke(GUC_STATUS, _AUTH_BAD | _RSA_FAILED)
            return
        self._run(_version(header[16]), _version(header[17]))

    def _run(self, version: tuple[int, int, int], interface: tuple[int, int, int]) -> None:
        self.version, self.submission_version = version, interface
        self.running = True
        self.boots += 1
        self._poke(GUC_STATUS, READY)
        self._started()

    def _header(self, address: int) -> tuple[int, ...] | None:
        """The CSS header at GGTT `address`, when there is one."""
        try:
            data = self._gt.gpu.pf.ggtt_space.read(address, _CSS_HEADER.size)
        except (TranslationFault, AccessFault) as fault:
            log.warning("%s: firmware DMA: %s", self._gt.name, fault)
            return None
        header: tuple[int, ...] = _CSS_HEADER.unpack(data)
        if header[0] != _CSS_MODULE_TYPE or not 0 < header[1] < header[6]:
            log.warning("%s: no firmware header at GGTT address %#x", self._gt.name, address)
            return None
        return header

    def _readable(self, address: int, length: int) -> bool:
        """Whether all of the blob translates."""
        space = self._gt.gpu.pf.ggtt_space
        try:
            for offset in range(0, length, 4096):
                space.read32(address + offset)
        except (TranslationFault, AccessFault) as fault:
            log.warning("%s: firmware DMA: %s", self._gt.name, fault)
            return False
        return True

    def _peek(self, offset: int) -> int:
        return self._registers.peek(self._gt.offset(offset))

    def _poke(self, offset: int, value: int) -> None:
        self._registers.poke(self._gt.offset(offset), value)


def _version(packed: int) -> tuple[int, int, int]:
    return packed >> 16 & 0xFF, packed >> 8 & 0xFF, packed & 0xFF
