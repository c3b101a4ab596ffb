"""Loading firmware: DMA of the blob, the GuC's status while it comes up, and the parameters it gets (`xe_guc.c`,
`xe_uc_fw.c:uc_fw_xfer`).

The driver programs the DMA engine with the blob's GGTT address and starts it; the boot ROM checks the blob and jumps
into it; the driver then polls GUC_STATUS for READY. The blob's code is not executed: what it would do is the rest of
this package. Its header is read, for the versions; its signature is not checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.gt.wopcm import DMA_GUC_WOPCM_OFFSET, GUC_WOPCM_SIZE, LOCKED
from vfio_user_xe.device_models.xe.guc.formats.firmware import CSS_HEADER, FirmwareHeader, Version, parse_header
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import MASKED, RO, field, flag, not_modelled

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

# regs/xe_guc_regs.h, abi/guc_errors_abi.h
_STATUS = (
    flag(0, "MIA_IN_RESET"),
    field(1, 7, "BOOTROM", {0x50: "RSA_FAILED", 0x74: "WOPCM_FAILED", 0x76: "JUMP_PASSED"}),
    field(8, 15, "UKERNEL", {0xF0: "READY"}),
    field(16, 18, "MIA", {1: "CORE_STATE", 2: "HALT_REQUESTED", 4: "ISR_ENTRY"}),
    field(30, 31, "AUTH_STATUS", {1: "BAD", 2: "GOOD"}),
)
_SHIM_CONTROL = (
    flag(0, "DISABLE_SRAM_INIT_TO_ZEROES"),
    flag(1, "ENABLE_READ_CACHE_LOGIC"),
    flag(2, "ENABLE_MIA_CACHING"),
    flag(4, "MSGCH_ENABLE"),
    flag(9, "ENABLE_READ_CACHE_FOR_SRAM_DATA"),
    flag(10, "ENABLE_READ_CACHE_FOR_WOPCM_DATA"),
    flag(15, "ENABLE_MIA_CLOCK_GATING"),
    flag(21, "SHIM_WC_ENABLE"),
    field(24, 25, "MOCS_INDEX", {1: "UC"}),
)
_DMA_HIGH = (field(0, 15, "ADDRESS"), field(16, 20, "ADDR_SPACE", {7: "WOPCM", 8: "GTT"}))
_DMA_CTRL = (flag(0, "START_DMA"), flag(4, "UOS_MOVE"), flag(9, "HUC_UKERNEL"))
_PM_MASK = (not_modelled(9, "ARAT_EXPIRED_INTRMSK"), not_modelled(31, "DISABLE_REDIRECT_TO_GUC"))

# GUC_CTL_* (xe_guc_fwif.h): which of the 14 boot parameters is what.
LOG_PARAMS, WA_FLAGS, FEATURES, DEBUG, ADS, DEVICE_ID = range(6)
_PARAMETERS = 14


class Boot:
    """Firmware state of one GT's GuC, and its boot registers."""

    def __init__(self, gt: Gt, registers: RegisterFile, started: Callable[[], None]) -> None:
        """`started()` is called on the executor when the firmware runs."""
        self._gt = gt
        self._registers = registers
        self._started = started
        self.on_load: Callable[[], None] = lambda: None
        """Called on the executor before firmware that a driver loads is read."""
        self.running = False
        self.version = (0, 0, 0)
        """Of the firmware: 70.x.y."""
        self.submission_version = (0, 0, 0)
        """Of its interface, which VFs negotiate: 1.x.y."""
        self.header = b""
        """Of the firmware's blob, as the driver loaded it; empty where none was."""
        self.huc_loaded = False
        self.boots = 0
        registers.add(
            [
                gt.register("GUC_STATUS", GUC_STATUS, reset=MIA_IN_RESET, access=RO, fields=_STATUS),
                gt.register("BOOT_HASH_CHK", 0xC010, access=RO),
                gt.register("GUC_HEADER_INFO", 0xC014, access=RO),
                gt.register("GUC_SHIM_CONTROL", 0xC064, fields=_SHIM_CONTROL),
                *(gt.register(f"SOFT_SCRATCH({n})", SOFT_SCRATCH + 4 * n) for n in range(SOFT_SCRATCH_COUNT)),
                gt.register("HUC_KERNEL_LOAD_INFO", HUC_KERNEL_LOAD_INFO, access=RO, fields=[flag(0, "SUCCESSFUL")]),
                *(gt.register(f"UOS_RSA_SCRATCH({n})", UOS_RSA_SCRATCH + 4 * n) for n in range(64)),
                gt.register("DMA_ADDR_0_LOW", DMA_ADDR_0),
                gt.register("DMA_ADDR_0_HIGH", DMA_ADDR_0 + 4, fields=_DMA_HIGH),
                gt.register("DMA_ADDR_1_LOW", DMA_ADDR_1),
                gt.register("DMA_ADDR_1_HIGH", DMA_ADDR_1 + 4, fields=_DMA_HIGH),
                gt.register("DMA_COPY_SIZE", DMA_COPY_SIZE),
                gt.register("DMA_CTRL", DMA_CTRL, access=MASKED, write=self._dma_control_written, fields=_DMA_CTRL),
                gt.register("GUC_SRAM_STATUS", 0xC398, access=RO),
                gt.register("GUC_MAX_IDLE_COUNT", 0xC3E4),
                gt.register("GUC_INTR_CHICKEN", 0xC50C),
                gt.register("PMINTRMSK", 0xA168, fields=_PM_MASK),
            ]
        )
        if gt.index == 0:
            # Above the registers that each GT has a copy of: doorbells for both.
            registers.add([gt.register("GT_PM_CONFIG", 0x13816C, fields=[flag(0, "GT_DOORBELL_ENABLE")])])

    def parameter(self, index: int) -> int:
        """Boot parameter `index` (LOG_PARAMS...), as the driver left it in SOFT_SCRATCH(1 + index)."""
        if not 0 <= index < _PARAMETERS:
            raise IndexError(f"boot parameter {index}")
        return self._peek(SOFT_SCRATCH + 4 * (1 + index))

    def reset_registers(self) -> None:
        """GDRST, inside the access: the micro-controller is in reset."""
        self._poke(GUC_STATUS, MIA_IN_RESET)
        self._poke(DMA_CTRL, 0)
        self._poke(HUC_KERNEL_LOAD_INFO, 0)

    def reset(self) -> None:
        """The rest of a reset, on the executor."""
        self.running = False
        self.huc_loaded = False
        self.header = b""

    def run_without_driver(self, version: Version, interface: Version) -> None:
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
        self.on_load()
        control = self._peek(DMA_CTRL)
        address = self._peek(DMA_ADDR_0) | (self._peek(DMA_ADDR_0 + 4) & 0xFFFF) << 32
        length = self._peek(DMA_COPY_SIZE)
        data, header = self._header(address)
        complete = header is not None and self._readable(address, length)
        if control & HUC_UKERNEL:
            self.huc_loaded = complete
        elif control & UOS_MOVE:
            self._boot(data, header if complete else None)
        self._poke(DMA_CTRL, control & ~START_DMA)

    def _boot(self, data: bytes, header: FirmwareHeader | None) -> None:
        if not (self._peek(GUC_WOPCM_SIZE) & LOCKED and self._peek(DMA_GUC_WOPCM_OFFSET) & LOCKED):
            self._poke(GUC_STATUS, _AUTH_BAD | _WOPCM_FAILED)
            return
        if header is None:
            self._poke(GUC_STATUS, _AUTH_BAD | _RSA_FAILED)
            return
        self.header = data
        self._run(header.version, header.submission_version)

    def _run(self, version: Version, interface: Version) -> None:
        self.version, self.submission_version = version, interface
        self.running = True
        self.boots += 1
        self._poke(GUC_STATUS, READY)
        self._started()

    def _header(self, address: int) -> tuple[bytes, FirmwareHeader | None]:
        """The CSS header at GGTT `address`, when there is one, and its bytes."""
        try:
            data = self._gt.gpu.pf.ggtt_space.read(address, CSS_HEADER.sizeof())
        except (TranslationFault, AccessFault) as fault:
            log.warning("%s: firmware DMA: %s", self._gt.name, fault)
            return b"", None
        header = parse_header(data)
        if header is None:
            log.warning("%s: no firmware header at GGTT address %#x", self._gt.name, address)
        return data, header

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
