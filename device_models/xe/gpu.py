"""The GPU put together: what functions share, the blocks of the device, its GTs with engines and GuC, and their resets.

Each block is a file of its own, named as the driver names it; this is the only place that knows them all.
"""

from __future__ import annotations

from typing import Protocol

from vfio_user_xe.device_models.xe import compute, render
from vfio_user_xe.device_models.xe.engines.engines import Engines
from vfio_user_xe.device_models.xe.gt import reg_sr
from vfio_user_xe.device_models.xe.gt.clock import Clock
from vfio_user_xe.device_models.xe.gt.eu_stall import EuStall
from vfio_user_xe.device_models.xe.gt.forcewake import Forcewake
from vfio_user_xe.device_models.xe.gt.freq import Frequency
from vfio_user_xe.device_models.xe.gt.fuses import Fuses
from vfio_user_xe.device_models.xe.gt.gdrst import GRDOM_FULL, GRDOM_GUC, Gdrst
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.gt.mcr import Steering
from vfio_user_xe.device_models.xe.gt.mocs import Mocs
from vfio_user_xe.device_models.xe.gt.pat import Pat
from vfio_user_xe.device_models.xe.gt.wopcm import Wopcm
from vfio_user_xe.device_models.xe.guc.capture import Capture
from vfio_user_xe.device_models.xe.guc.engine_activity import EngineActivity
from vfio_user_xe.device_models.xe.guc.firmware import HucAuthentication
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hwconfig import table as hwconfig_table
from vfio_user_xe.device_models.xe.guc.migration import Migration
from vfio_user_xe.device_models.xe.guc.pf_service import PfService
from vfio_user_xe.device_models.xe.guc.relay import Relay
from vfio_user_xe.device_models.xe.guc.self_config import SelfConfig
from vfio_user_xe.device_models.xe.guc.slpc import Slpc
from vfio_user_xe.device_models.xe.guc.sriov import Sriov as GucSriov
from vfio_user_xe.device_models.xe.guc.submission import Submission
from vfio_user_xe.device_models.xe.guc.tlb import TlbInvalidation
from vfio_user_xe.device_models.xe.guc.vf import AbsentMediaGuc, VfRequests
from vfio_user_xe.device_models.xe.memory.formats.ggtt import PTES_SIZE
from vfio_user_xe.device_models.xe.memory.function import Device, XeFunction
from vfio_user_xe.device_models.xe.memory.ggtt import Ggtt
from vfio_user_xe.device_models.xe.memory.ggtt_sharing import GgttSharing
from vfio_user_xe.device_models.xe.memory.memory_map import MemoryMap
from vfio_user_xe.device_models.xe.memory.vf_windows import BAR0_SIZE, GSM_OFFSET
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.device_models.xe.oa.oa import Oa
from vfio_user_xe.device_models.xe.profiles.profile import Profile
from vfio_user_xe.device_models.xe.soc.identity import declare_identity
from vfio_user_xe.device_models.xe.soc.interrupts import Interrupts
from vfio_user_xe.device_models.xe.soc.lmem_cfg import LmemConfig
from vfio_user_xe.device_models.xe.soc.pcode import Pcode
from vfio_user_xe.device_models.xe.soc.telemetry import Telemetry
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.pci.function import FLR, RESET, Function


class Block(Protocol):
    """What a reset of the PF resets."""

    def reset(self) -> None:
        """Back to power-up."""
        ...


class CompleteGt(Gt):
    """A GT with its engines and its GuC."""

    def __init__(self, gpu: Device, index: int) -> None:
        super().__init__(gpu, index)
        self.engines: Engines
        self.guc: Guc
        self.sriov: GucSriov
        self.stalls: EuStall | None = None
        self.oa: Oa


class Gpu(Device):
    """One card's GPU. Functions are added first, the PF before the VFs; then `build` makes the blocks."""

    def __init__(self, card: Card, profile: Profile, vram: Vram) -> None:
        super().__init__(card, profile, vram)
        self.gts: list[CompleteGt] = []
        """The main GT, then the media GT if there is one."""
        self.sharing = GgttSharing(self)
        self.interrupts: Interrupts
        self.lmem: LmemConfig
        self._ggtt_memories: list[Memory] = []
        self._blocks: list[Block] = []

    # Construction.

    def ggtt_memory(self, name: str) -> Memory:
        """BAR0's memory of a function: only the upper half, the GGTT window, is ever used, and so costs anything."""
        memory = Memory(BAR0_SIZE, f"{name}-ggtt")
        self._ggtt_memories.append(memory)
        self.card.memories[f"{name}-ggtt"] = memory
        return memory

    def add(self, pci: Function, registers: RegisterFile, memory: Memory) -> None:
        """Add a function; `memory` is what `ggtt_memory` gave for it. Its VFID must be the next one."""
        ggtt = Ggtt(pci.index, memory.view[GSM_OFFSET : GSM_OFFSET + PTES_SIZE])
        self.functions.append(XeFunction(pci.index, pci, registers, ggtt, self))

    def build(self, *, plays_pf: bool) -> None:
        """Make the blocks that all functions share, then each GT. `plays_pf`: the card plays the PF's driver."""
        registers = self.pf.registers
        declare_identity(registers, self.profile)
        memory_map = MemoryMap.of(self.profile.vram, self.profile.flat_ccs)
        memory_map.declare(registers)
        self.vram.flat_ccs = memory_map.flat_ccs or None
        self.interrupts = Interrupts(self, registers)
        pcode = Pcode(registers)
        Telemetry(registers, self.card.clock)
        self.lmem = LmemConfig(self, registers)
        self._blocks += [self.interrupts, pcode]
        for index in range(len(self.profile.engines)):
            gt = CompleteGt(self, index)
            self.gts.append(gt)
            self._add_gt(gt, PfService if plays_pf else Host)
        if not self.profile.has_media:
            for host in self.gts[0].guc.hosts[1:]:
                absent = AbsentMediaGuc(self, self.gts[0].guc, host)
                host.function.registers.add(absent.mailbox.registers())

    def _add_gt(self, gt: CompleteGt, pf_kind: type[Host]) -> None:
        registers, profile = self.pf.registers, self.profile
        forcewake = Forcewake(gt, registers)
        steering = Steering(gt, registers)
        wopcm = Wopcm(gt, registers)
        frequency = Frequency(gt, registers, lambda: forcewake.awake)
        forcewake.on_change = frequency.update
        Fuses(gt, registers)
        Clock(gt, registers)
        pat = Pat(gt, registers)
        if not gt.index:
            self.vram.compressing = pat.compresses
        Mocs(gt, registers)
        gt.guc = guc = Guc(gt, registers, self.interrupts)
        guc.boot.on_load = self.lmem.take_back
        gt.sriov = sriov = GucSriov(guc, None if gt.index else self.sharing)
        capture = Capture(guc)
        submission = Submission(guc, sriov, capture)
        gt.engines = guc.engines = Engines(gt, submission, {**compute.COMMANDS, **render.COMMANDS})
        registers.add(gt.engines.registers())
        reg_sr.declare(gt, registers)
        if not gt.index:
            gt.stalls = stalls = EuStall(gt, registers, steering, self.pf.ggtt_space)
            for engine in gt.engines.engines:
                engine.stalls, engine.most_threads = stalls, self.profile.part.threads
            self._blocks.append(stalls)
        gt.oa = Oa(gt, registers, gt.engines.engines, frequency, self.pf.ggtt_space)
        self._blocks.append(gt.oa)
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
        for function in self.functions:
            guc.add_host(function, Host if function.vfid else pf_kind)
        Gdrst(gt, registers, lambda domains: self._reset_now(guc, wopcm, domains), lambda d: self._reset_later(gt, d))
        self._blocks += [forcewake, steering, frequency]

    # Resets.

    @staticmethod
    def _reset_now(guc: Guc, wopcm: Wopcm, domains: int) -> None:
        if domains & (GRDOM_FULL | GRDOM_GUC):
            guc.boot.reset_registers()
        if domains & GRDOM_FULL:
            wopcm.gt_reset()

    @staticmethod
    def _reset_later(gt: CompleteGt, domains: int) -> None:
        if domains & GRDOM_FULL:
            gt.engines.reset()
            gt.oa.reset()
            if gt.stalls is not None:
                gt.stalls.reset()
        if domains & (GRDOM_FULL | GRDOM_GUC):
            gt.guc.reset()

    def reset_function(self, function: XeFunction, reason: str) -> None:
        """FLR, machine reset, or VF disabled. On the executor."""
        if function.vfid:
            self._vf_reset(function, reason)
        elif reason in (FLR, RESET):
            self._pf_reset()
        self.spaces.forget(function.vfid)

    def _pf_reset(self) -> None:
        """Everything of the card goes back to power-up; VRAM and GGTT are scrubbed, as firmware does after a reset."""
        for gt in self.gts:
            gt.engines.reset()
            gt.guc.reset()
            for host in gt.guc.hosts:
                host.mailbox.clear()
        self.pf.registers.reset()
        for block in self._blocks:
            block.reset()
        self.lmem.reset()
        self.vram.memory.discard(0, self.vram.memory.size)
        self.sharing.reset()
        for function in self.functions:
            self._clear_ggtt(function)

    def _clear_ggtt(self, function: XeFunction) -> None:
        self._ggtt_memories[function.vfid].discard(0, BAR0_SIZE)
        function.ggtt_space.flush()

    def _vf_reset(self, function: XeFunction, reason: str) -> None:
        # Who passes a VF on resets it by FLR when its guest is reset (vfio_pci_core.c:vfio_pci_core_ioctl_reset).
        is_flr = reason == FLR or (reason == RESET and function.pci.assigned)
        if not is_flr or not self.gts[0].guc.boot.running:
            # Otherwise the PF's driver clears the entries, through its own window.
            self._clear_ggtt(function)
        for gt in self.gts:
            host = gt.guc.hosts[function.vfid]
            if is_flr and host.present:
                host.mailbox.clear_by_flr()
                gt.sriov.function_level_reset(function.vfid)
            else:
                host.mailbox.clear()
                gt.guc.reset_host(host)

    def vfs_enabled(self, vfids: list[int]) -> None:
        """The PF has enabled VFs. On the executor."""
        for gt in self.gts:
            for vfid in vfids:
                gt.guc.hosts[vfid].present = True
        self.lmem.vfs_enabled(vfids)

    def vfs_disabled(self, vfids: list[int]) -> None:
        """The PF is about to disable VFs. On the executor."""
        self.lmem.vfs_disabled(vfids)
        for gt in self.gts:
            for vfid in vfids:
                host = gt.guc.hosts[vfid]
                host.present = False
                gt.guc.reset_host(host)

    def close(self) -> None:
        """Let go of all memory."""
        for memory in self._ggtt_memories:
            memory.close()
        self.vram.close()
