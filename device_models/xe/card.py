"""Battlemage: an Arc graphics card with its PF, its VFs, and everything that they share.

This is what the card file's `model = "xe"` names. It reads the options, makes the functions, and puts the blocks
together; each block is a file of its own, named as the driver names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from vfio_user_xe.device_models.xe import compute, inspect, topologies
from vfio_user_xe.device_models.xe.engines import Engines, hw_engine
from vfio_user_xe.device_models.xe.function import Gpu, Gt, XeFunction
from vfio_user_xe.device_models.xe.gt import reg_sr
from vfio_user_xe.device_models.xe.gt.clock import Clock
from vfio_user_xe.device_models.xe.gt.forcewake import Forcewake
from vfio_user_xe.device_models.xe.gt.freq import Frequency
from vfio_user_xe.device_models.xe.gt.fuses import Fuses
from vfio_user_xe.device_models.xe.gt.gdrst import GRDOM_FULL, GRDOM_GUC, Gdrst
from vfio_user_xe.device_models.xe.gt.mcr import Steering
from vfio_user_xe.device_models.xe.gt.mocs import Mocs
from vfio_user_xe.device_models.xe.gt.pat import Pat
from vfio_user_xe.device_models.xe.gt.wopcm import Wopcm
from vfio_user_xe.device_models.xe.guc import Client, Guc
from vfio_user_xe.device_models.xe.guc.capture import Capture
from vfio_user_xe.device_models.xe.guc.engine_activity import EngineActivity
from vfio_user_xe.device_models.xe.guc.firmware import HucAuthentication
from vfio_user_xe.device_models.xe.guc.hwconfig import table as hwconfig_table
from vfio_user_xe.device_models.xe.guc.migration import Migration
from vfio_user_xe.device_models.xe.guc.pf_provision import Plan
from vfio_user_xe.device_models.xe.guc.pf_service import PfPart, PfService
from vfio_user_xe.device_models.xe.guc.relay import Relay
from vfio_user_xe.device_models.xe.guc.self_config import SelfConfig
from vfio_user_xe.device_models.xe.guc.slpc import Slpc
from vfio_user_xe.device_models.xe.guc.sriov import Sriov as GucSriov
from vfio_user_xe.device_models.xe.guc.submission import Submission
from vfio_user_xe.device_models.xe.guc.tlb import TlbInvalidation
from vfio_user_xe.device_models.xe.guc.vf import AbsentMediaGuc, VfRequests
from vfio_user_xe.device_models.xe.info import INFO
from vfio_user_xe.device_models.xe.memory.formats.ggtt import PTES_SIZE
from vfio_user_xe.device_models.xe.memory.ggtt import Ggtt
from vfio_user_xe.device_models.xe.memory.ggtt_sharing import GgttSharing
from vfio_user_xe.device_models.xe.memory.memory_map import GIB, MIB, MemoryMap
from vfio_user_xe.device_models.xe.memory.translations import ppgtt_command
from vfio_user_xe.device_models.xe.memory.vf_windows import (
    BAR0_SIZE,
    GSM_OFFSET,
    MAPPED,
    TRAPPED,
    WINDOW_MODES,
    registers_bar,
    trapped_registers_bar,
    trapped_vram_bar,
    vram_bar,
)
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.device_models.xe.profiles.profile import (
    GRAPHICS_VERSIONS,
    MAX_COMPUTE,
    MEDIA_VERSION,
    Profile,
    main_gt_engines,
    media_gt_engines,
)
from vfio_user_xe.device_models.xe.soc.identity import Gttmmadr, configuration, declare_identity, declare_vf_cap
from vfio_user_xe.device_models.xe.soc.interrupts import Interrupts, declare_for_vf
from vfio_user_xe.device_models.xe.soc.lmem_cfg import LmemConfig
from vfio_user_xe.device_models.xe.soc.pcode import Pcode
from vfio_user_xe.device_models.xe.soc.telemetry import Telemetry
from vfio_user_xe.device_models.xe.topologies import SPLIT, VF_ONLY
from vfio_user_xe.emulator.model.card import Card, CardError, Option
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.model.model_info import ModelInfo
from vfio_user_xe.emulator.model.registers import PF, VF
from vfio_user_xe.emulator.pci.capabilities import Ari, Capability, DeviceSerialNumber, Msi, PciExpress, PowerManagement
from vfio_user_xe.emulator.pci.function import FLR, RESET, Function, Identity
from vfio_user_xe.emulator.pci.sriov import Sriov

INTEL = 0x8086
CLASS_VGA = 0x030000
DEVICE_IDS = (0xE202, 0xE209, 0xE20B, 0xE20C, 0xE20D, 0xE210, 0xE211, 0xE212, 0xE216, 0xE220, 0xE221, 0xE222, 0xE223)
"""Battlemage's ids (include/drm/intel/pciids.h:INTEL_BMG_IDS); 0xe212 is the Arc Pro B50."""

PF_REGISTERS = 4 * MIB
VF_REGISTERS = 0x191000
"""A VF has registers up to its mailboxes at 0x190310."""
MAX_VFS = 63
"""GGTT entries have room for more, LMTT's directory has 64 entries, the PF's included (`xe_lmtt_ml.c`)."""

# Where the real cards have them.
_PCIE, _MSI, _PM, _DSN, _ARI, _SRIOV = 0x70, 0xAC, 0xD0, 0x100, 0x200, 0x320


class Battlemage:
    """The device model of the card."""

    API_VERSION: ClassVar[tuple[int, int]] = (1, 1)
    INFO: ClassVar[ModelInfo] = INFO
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option(
            "vram",
            "size",
            4 * GIB,
            "size of VRAM; of less than 2 GiB xe gives VFs nothing by itself",
            minimum=GIB,
            maximum=64 * GIB,
            multiple_of=GIB,
        ),
        Option("bar2", "size", 0, "size of the PF's BAR2, a power of two; 0: all of VRAM", minimum=0),
        Option("vfs", "int", 7, "number of VFs (TotalVFs); 0: no SR-IOV capability", minimum=0, maximum=MAX_VFS),
        Option(
            "vf_bar2", "size", 256 * MIB, "size of each VF's BAR2", minimum=2 * MIB, maximum=64 * GIB, power_of_two=True
        ),
        Option("vf_vram", "str", MAPPED, "how guests reach VF BAR2 (see docs/sriov.md)", choices=WINDOW_MODES),
        Option("vf_ggtt", "str", MAPPED, "how guests reach VFs' GGTT windows", choices=WINDOW_MODES),
        Option("device_id", "int", 0xE212, "PCI device id", choices=DEVICE_IDS, hexadecimal=True),
        Option(
            "subsystem_vendor", "int", INTEL, "PCI subsystem vendor id", minimum=0, maximum=0xFFFF, hexadecimal=True
        ),
        Option("subsystem_id", "int", 0x1114, "PCI subsystem id", minimum=0, maximum=0xFFFF, hexadecimal=True),
        Option("graphics", "str", "20.02", "graphics IP version", choices=tuple(GRAPHICS_VERSIONS)),
        Option("media", "bool", False, "whether there is a media GT (with a GuC of its own, VCS and VECS)"),
        Option("flat_ccs", "bool", False, "whether flat CCS (memory compression) is on"),
        Option("ccs", "int", 1, "number of compute engines", minimum=0, maximum=MAX_COMPUTE),
        Option("serial", "int", 0x0000C0FFEE000001, "PCI device serial number", minimum=0, hexadecimal=True),
        *topologies.OPTIONS,
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.profile = _profile(options)
        topologies.check(options)
        self._topology = options["topology"]
        vram = Vram(self.profile.vram, fabric=card.fabric)
        self.gpu = gpu = Gpu(card, self.profile, vram)
        self._ggtt_memories: list[Memory] = []
        self._sriovs: list[GucSriov] = []
        self._pf_registers = Gttmmadr("pf", PF_REGISTERS, PF)
        self._serial = options["serial"]
        self._vf_vram, self._vf_ggtt = options["vf_vram"], options["vf_ggtt"]
        self.sharing = GgttSharing(gpu)
        self._subsystem = (options["subsystem_vendor"], options["subsystem_id"])
        card.device_memory = vram
        card.memories["vram"] = vram.memory
        sriov = self._add_functions(card)
        self._resets = self._add_blocks()
        if self._topology == VF_ONLY:
            self._play_pf(options)
        if sriov is not None:
            sriov.on_enable.append(self._vfs_enabled)
            sriov.on_disable.append(self._vfs_disabled)
        for function in gpu.functions:
            function.pci.on_reset.append(partial(self._function_reset, function))
        card.commands["vram_map"] = self.lmem.describe
        card.commands["ppgtt"] = ppgtt_command(gpu)
        card.commands["guc"] = lambda: [gt.guc.inspect() for gt in gpu.gts]
        card.commands["engines"] = lambda: [engine for gt in gpu.gts for engine in gt.engines.inspect()]
        inspect.register(card, gpu, lambda: self.lmem.root)
        card.on_stop.append(self._close)

    # Construction.

    def _add_functions(self, card: Card) -> Sriov | None:
        profile = self.profile
        sriov = None
        if profile.total_vfs and self._topology != VF_ONLY:
            sriov = Sriov(
                profile.total_vfs,
                profile.device_id,
                {0: BAR0_SIZE, 2: profile.vf_bar2},
                offset=_SRIOV,
                programs_bars=self._topology != SPLIT,
            )
        identity = Identity(INTEL, profile.device_id, *self._subsystem, CLASS_VGA)
        memory = self._ggtt_memory("pf")
        pf = Function(
            "pf",
            0,
            executor=card.executor,
            identity=identity,
            capabilities=[
                PciExpress(_PCIE, flr=True),
                Msi(1, _MSI),
                PowerManagement(_PM),
                DeviceSerialNumber(self._serial, _DSN),
                *([Ari(_ARI)] if sriov else []),
            ],
            bars={
                0: registers_bar(self._pf_registers, memory),
                2: vram_bar(profile.bar2, self.gpu.vram.memory),
            },
            sriov=sriov,
        )
        pf.config.add(configuration())
        declare_vf_cap(self._pf_registers)
        self._add(card, pf, self._pf_registers, memory)
        for vfid in range(1, profile.total_vfs + 1):
            registers = Gttmmadr(f"vf{vfid}", VF_REGISTERS, VF)
            registers.unmodelled_storage = False
            declare_vf_cap(registers)
            declare_for_vf(registers)
            memory = self._ggtt_memory(f"vf{vfid}")
            vf = self._vf(card, vfid, identity, registers, memory)
            self._add(card, vf, registers, memory)
            if sriov is not None:
                sriov.attach(vf)
        vfs = card.functions[1:]
        if self._topology == VF_ONLY:
            card.served = vfs
        elif self._topology == SPLIT:
            seen = [topologies.placeholder(card.executor, identity, vf, self._vf_capabilities()) for vf in vfs]
            card.served = [pf, *seen, *vfs]
        return sriov

    def _play_pf(self, options: Mapping[str, Any]) -> None:
        """No driver has the PF: VFs are there from the start, and the card does for them what it would."""
        wanted = topologies.provisioning(options)
        part = PfPart(self.gpu, Plan.of(self.profile, wanted), wanted.guc, self.lmem)

        def start() -> None:
            part.start()
            self._vfs_enabled(list(range(1, self.profile.total_vfs + 1)))

        card = self.gpu.card
        card.on_start.append(lambda: card.executor.submit(start))
        card.commands["pf_part"] = part.describe

    def _vf_capabilities(self) -> list[Capability]:
        return [PciExpress(_PCIE, flr=True), Msi(1, _MSI), DeviceSerialNumber(self._serial, _DSN), Ari(_ARI)]

    def _vf(self, card: Card, vfid: int, identity: Identity, registers: Gttmmadr, memory: Memory) -> Function:
        size = self.profile.vf_bar2
        if self._vf_ggtt == TRAPPED:
            bar0 = trapped_registers_bar(self.gpu, vfid, registers, self.sharing)
            card.register_files.append(registers)
        else:
            bar0 = registers_bar(registers, memory)
        if self._vf_vram == TRAPPED:
            bar2 = trapped_vram_bar(size, self.gpu, vfid)
        else:
            bar2 = vram_bar(size, self.gpu.vram.vf_memory(vfid))
        assigned = self._topology in (SPLIT, VF_ONLY)
        # With ARI, which names the next function, a guest would find no other at the same device.
        capabilities = [one for one in self._vf_capabilities() if not (assigned and isinstance(one, Ari))]
        return Function(
            f"vf{vfid}",
            vfid,
            executor=card.executor,
            identity=identity,
            capabilities=capabilities,
            bars={0: bar0, 2: bar2},
            is_vf=True,
            assigned=assigned,
        )

    def _add(self, card: Card, pci: Function, registers: Gttmmadr, memory: Memory) -> None:
        card.functions.append(pci)
        ggtt = Ggtt(pci.index, memory.view[GSM_OFFSET : GSM_OFFSET + PTES_SIZE])
        self.gpu.functions.append(XeFunction(pci.index, pci, registers, ggtt, self.gpu))

    def _ggtt_memory(self, name: str) -> Memory:
        """BAR0's memory: only the upper half, the GGTT window, is ever used, and so costs anything."""
        memory = Memory(BAR0_SIZE, f"{name}-ggtt")
        self._ggtt_memories.append(memory)
        self.gpu.card.memories[f"{name}-ggtt"] = memory
        return memory

    def _add_blocks(self) -> list[Any]:
        """Make the blocks that all functions share, then each GT. Returns those that a PF reset resets."""
        gpu, registers = self.gpu, self._pf_registers
        declare_identity(registers, self.profile)
        memory_map = MemoryMap.of(self.profile.vram, self.profile.flat_ccs)
        memory_map.declare(registers)
        gpu.vram.flat_ccs = memory_map.flat_ccs or None
        gpu.interrupts = Interrupts(gpu, registers)
        pcode = Pcode(registers)
        Telemetry(registers, gpu.card.clock)
        self.lmem = LmemConfig(gpu, registers)
        resets: list[Any] = [gpu.interrupts, pcode]
        for index in range(len(self.profile.engines)):
            gt = Gt(gpu, index)
            gpu.gts.append(gt)
            resets += self._add_gt(gt)
        if not self.profile.has_media:
            for client in gpu.gts[0].guc.clients[1:]:
                absent = AbsentMediaGuc(gpu, gpu.gts[0].guc, client)
                client.function.registers.add(absent.mailbox.registers())
        return resets

    def _add_gt(self, gt: Gt) -> list[Any]:
        registers, profile = self._pf_registers, self.profile
        forcewake = Forcewake(gt, registers)
        steering = Steering(gt, registers)
        wopcm = Wopcm(gt, registers)
        frequency = Frequency(gt, registers, lambda: forcewake.awake)
        forcewake.on_change = frequency.update
        Fuses(gt, registers)
        Clock(gt, registers)
        pat = Pat(gt, registers)
        if not gt.index:
            self.gpu.vram.compressing = pat.compresses
        Mocs(gt, registers)
        gt.guc = guc = Guc(gt, registers)
        sriov = GucSriov(guc, None if gt.index else self.sharing)
        capture = Capture(guc, registers)
        submission = Submission(guc, sriov, capture)
        gt.engines = Engines(gt, submission, compute.COMMANDS)
        self._add_engine_registers(gt)
        reg_sr.declare(gt, registers)
        frequency.working = lambda: any(engine.context is not None for engine in gt.engines.engines)
        Slpc(guc, frequency)
        activity = EngineActivity(guc, registers, sriov.quantum)
        sriov.on_scheduling.append(activity.wake)
        submission.on_work.append(activity.wake)
        activity.on_tick.append(frequency.update)
        TlbInvalidation(guc, registers, self.lmem.update)
        SelfConfig(guc, hwconfig_table(profile))
        HucAuthentication(guc)
        Relay(guc)
        VfRequests(guc, sriov, profile.media if gt.index else profile.graphics)
        guc.admit = Migration(guc, sriov, submission).admit
        self._sriovs.append(sriov)
        for function in self.gpu.functions:
            plays_pf = self._topology == VF_ONLY and not function.vfid
            guc.add_client(function, PfService if plays_pf else Client)
        Gdrst(gt, registers, lambda domains: self._reset_now(guc, wopcm, domains), lambda d: self._reset_later(gt, d))
        return [forcewake, steering, frequency]

    def _add_engine_registers(self, gt: Gt) -> None:
        live = gt.engines.registers()
        taken = {offset for register in live for offset in range(register.offset, register.offset + register.width, 4)}
        self._pf_registers.add(live)
        for info in gt.infos:
            self._pf_registers.add(hw_engine.registers_of(info, taken))

    # Resets.

    @staticmethod
    def _reset_now(guc: Guc, wopcm: Wopcm, domains: int) -> None:
        if domains & (GRDOM_FULL | GRDOM_GUC):
            guc.boot.reset_registers()
        if domains & GRDOM_FULL:
            wopcm.gt_reset()

    @staticmethod
    def _reset_later(gt: Gt, domains: int) -> None:
        if domains & GRDOM_FULL:
            gt.engines.reset()
        if domains & (GRDOM_FULL | GRDOM_GUC):
            gt.guc.reset()

    def _function_reset(self, function: XeFunction, reason: str) -> None:
        """FLR, machine reset, or VF disabled. On the executor."""
        if function.vfid:
            self._vf_reset(function, reason)
        elif reason in (FLR, RESET):
            self._pf_reset()
        self.gpu.spaces.forget(function.vfid)

    def _pf_reset(self) -> None:
        """Everything of the card goes back to power-up; VRAM and GGTT are scrubbed, as firmware does after a reset."""
        for gt in self.gpu.gts:
            gt.engines.reset()
            gt.guc.reset()
            for client in gt.guc.clients:
                client.mailbox.clear()
        self._pf_registers.reset()
        for block in self._resets:
            block.reset()
        self.lmem.reset()
        self.gpu.vram.memory.discard(0, self.gpu.vram.memory.size)
        self.sharing.reset()
        for function in self.gpu.functions:
            self._clear_ggtt(function)

    def _clear_ggtt(self, function: XeFunction) -> None:
        self._ggtt_memories[function.vfid].discard(0, BAR0_SIZE)
        function.ggtt_space.flush()

    def _vf_reset(self, function: XeFunction, reason: str) -> None:
        # Who passes a VF on resets it by FLR when its guest is reset (vfio_pci_core.c:vfio_pci_core_ioctl_reset).
        is_flr = reason == FLR or (reason == RESET and function.pci.assigned)
        if not is_flr or not self.gpu.gts[0].guc.boot.running:
            # Otherwise the PF's driver clears the entries, through its own window.
            self._clear_ggtt(function)
        for gt, sriov in zip(self.gpu.gts, self._sriovs, strict=True):
            client = gt.guc.clients[function.vfid]
            client.mailbox.clear()
            if is_flr and client.present:
                sriov.function_level_reset(function.vfid)
            else:
                gt.guc.reset_client(client)

    def _vfs_enabled(self, vfids: list[int]) -> None:
        for gt in self.gpu.gts:
            for vfid in vfids:
                gt.guc.clients[vfid].present = True
        self.lmem.vfs_enabled(vfids)

    def _vfs_disabled(self, vfids: list[int]) -> None:
        self.lmem.vfs_disabled(vfids)
        for gt in self.gpu.gts:
            for vfid in vfids:
                client = gt.guc.clients[vfid]
                client.present = False
                gt.guc.reset_client(client)

    def _close(self) -> None:
        for memory in self._ggtt_memories:
            memory.close()
        self.gpu.vram.close()


def _profile(options: Mapping[str, Any]) -> Profile:
    vram, bar2 = options["vram"], options["bar2"]
    if bar2 & (bar2 - 1) or 0 < bar2 < 2 * MIB:
        raise CardError("must be 0 or a power of two of at least 2 MiB", key="bar2")
    engines = [main_gt_engines(options["ccs"])]
    if options["media"]:
        engines.append(media_gt_engines(decode=2, enhance=2))
    return Profile(
        device_id=options["device_id"],
        graphics=GRAPHICS_VERSIONS[options["graphics"]],
        media=MEDIA_VERSION if options["media"] else 0,
        engines=tuple(engines),
        vram=vram,
        bar2=bar2 or 1 << (vram - 1).bit_length(),
        flat_ccs=options["flat_ccs"],
        total_vfs=options["vfs"],
        vf_bar2=options["vf_bar2"],
    )
