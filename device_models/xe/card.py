"""Battlemage: an Arc graphics card with its PF, its VFs, and everything that they share.

This is what the card file's `model = "xe"` names. It reads the options and makes the functions, as guests see them;
`gpu.py` puts the blocks behind them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from vfio_user_xe.device_models.xe import inspect, screenshot, topologies
from vfio_user_xe.device_models.xe.compute.back_end import prepare as prepare_back_end
from vfio_user_xe.device_models.xe.gpu import Gpu
from vfio_user_xe.device_models.xe.guc.dump import dump
from vfio_user_xe.device_models.xe.guc.pf_provision import Plan
from vfio_user_xe.device_models.xe.guc.pf_service import PfPart
from vfio_user_xe.device_models.xe.info import INFO
from vfio_user_xe.device_models.xe.memory.memory_map import GIB, MIB
from vfio_user_xe.device_models.xe.memory.translations import ppgtt_command
from vfio_user_xe.device_models.xe.memory.vf_windows import (
    BAR0_SIZE,
    MAPPED,
    TRAPPED,
    WINDOW_MODES,
    registers_bar,
    trapped_registers_bar,
    trapped_vram_bar,
    vram_bar,
)
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.device_models.xe.profiles.parts import PARTS
from vfio_user_xe.device_models.xe.profiles.profile import (
    GRAPHICS_VERSIONS,
    MAX_COMPUTE,
    MEDIA_VERSION,
    Profile,
    main_gt_engines,
    media_gt_engines,
)
from vfio_user_xe.device_models.xe.soc.identity import Gttmmadr, configuration, declare_vf_cap
from vfio_user_xe.device_models.xe.soc.interrupts import declare_for_vf
from vfio_user_xe.device_models.xe.soc.pci import SRIOV, pf_capabilities, vf_capabilities
from vfio_user_xe.device_models.xe.topologies import PASSTHROUGH, SPLIT, VF_ONLY
from vfio_user_xe.emulator.model.card import Card, CardError, Option
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.model.model_info import ModelInfo
from vfio_user_xe.emulator.model.registers import PF, VF
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Ari
from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.function import Function, Identity
from vfio_user_xe.emulator.pci.passthrough import Gate, Passthrough
from vfio_user_xe.emulator.pci.sriov import Sriov

INTEL = 0x8086
CLASS_VGA = 0x030000

PF_REGISTERS = 4 * MIB
VF_REGISTERS = 0x191000
"""A VF has registers up to its mailboxes at 0x190310."""
MAX_VFS = 63
"""GGTT entries have room for more, LMTT's directory has 64 entries, the PF's included (`xe_lmtt_ml.c`)."""


class Battlemage:
    """Intel's Arc Battlemage: the PF, its VFs, and the IOV interconnect between them."""

    API_VERSION: ClassVar[tuple[int, int]] = (2, 0)
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
        Option("device_id", "int", 0xE212, "PCI device id", choices=tuple(PARTS), hexadecimal=True),
        Option(
            "xe_cores",
            "int",
            0,
            "Xe cores that are not fused off, at most those of the device id; 0: all of them",
            minimum=0,
            maximum=max(part.xe_cores for part in PARTS.values()),
        ),
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
        prepare_back_end()
        self.gpu = gpu = Gpu(card, self.profile, vram)
        self._pf_registers = Gttmmadr("pf", PF_REGISTERS, PF)
        self._serial = options["serial"]
        self._vf_vram, self._vf_ggtt = options["vf_vram"], options["vf_ggtt"]
        self._subsystem = (options["subsystem_vendor"], options["subsystem_id"])
        self.passed: list[Passthrough] = []
        """With topology "passthrough", by VFID from 1."""
        card.device_memory = vram
        card.memories["vram"] = vram.memory
        sriov = self._add_functions(card)
        gpu.build(plays_pf=self._topology == VF_ONLY)
        if self._topology == VF_ONLY:
            self._play_pf(options)
        if sriov is not None:
            sriov.on_enable.append(self.gpu.vfs_enabled)
            sriov.on_disable.append(self.gpu.vfs_disabled)
        for function in gpu.functions:
            function.pci.on_reset.append(partial(gpu.reset_function, function))
        card.commands["vram_map"] = gpu.lmem.describe
        if self.passed:
            card.commands["passthrough"] = lambda: [passed.describe() for passed in self.passed]
        card.commands["ppgtt"] = ppgtt_command(gpu)
        card.commands["guc"] = lambda: [gt.guc.inspect() for gt in gpu.gts]
        card.commands["guc_memory"] = lambda: [dump(gt.guc) for gt in gpu.gts]
        card.commands["engines"] = lambda: [engine for gt in gpu.gts for engine in gt.engines.inspect()]
        inspect.register(card, gpu, lambda: gpu.lmem.root)
        screenshot.register(card, gpu)
        card.on_stop.append(gpu.close)

    # Construction.

    def _add_functions(self, card: Card) -> Sriov | None:
        profile = self.profile
        sriov = None
        if profile.total_vfs and self._topology != VF_ONLY:
            sriov = Sriov(
                profile.total_vfs,
                profile.device_id,
                {0: BAR0_SIZE, 2: profile.vf_bar2},
                offset=SRIOV,
                programs_bars=self._topology != SPLIT,
            )
        identity = Identity(INTEL, profile.device_id, *self._subsystem, CLASS_VGA)
        memory = self.gpu.ggtt_memory("pf")
        pf = Function(
            "pf",
            0,
            executor=card.executor,
            identity=identity,
            capabilities=pf_capabilities(profile, self._serial, sriov is not None),
            bars={
                0: registers_bar(self._pf_registers, memory, profile.part.prefetchable_registers),
                2: vram_bar(profile.bar2, self.gpu.vram.memory),
            },
            sriov=sriov,
        )
        pf.config.add(configuration())
        declare_vf_cap(self._pf_registers)
        self._add(card, pf, self._pf_registers, memory)
        hosts: list[Function] = []
        for vfid in range(1, profile.total_vfs + 1):
            registers = Gttmmadr(f"vf{vfid}", VF_REGISTERS, VF)
            registers.unmodelled_storage = False
            declare_vf_cap(registers)
            declare_for_vf(registers)
            memory = self.gpu.ggtt_memory(f"vf{vfid}")
            bars = self._vf_bars(card, vfid, registers, memory)
            if self._topology == PASSTHROUGH:
                assert sriov is not None
                vf, seen = self._passed_on(card, pf, vfid, identity, bars)
                if registers not in card.register_files:
                    card.register_files.append(registers)
                hosts.append(seen)
            else:
                vf = seen = self._vf(card, vfid, identity, bars, assigned=self._topology in (SPLIT, VF_ONLY))
            self._add(card, vf, registers, memory)
            if sriov is not None:
                sriov.attach(seen)
        vfs = card.functions[1:]
        if self._topology == VF_ONLY:
            card.served = vfs
        elif self._topology == SPLIT:
            placeholders = [topologies.placeholder(card.executor, identity, vf, self._vf_capabilities()) for vf in vfs]
            card.served = [pf, *placeholders, *vfs]
        elif self._topology == PASSTHROUGH:
            card.served = [pf, *hosts, *vfs]
        return sriov

    def _play_pf(self, options: Mapping[str, Any]) -> None:
        """No driver has the PF: VFs are there from the start, and the card does for them what it would."""
        gpu, wanted = self.gpu, topologies.provisioning(options)
        part = PfPart(gpu, [gt.guc for gt in gpu.gts], Plan.of(self.profile, wanted), wanted.guc, gpu.lmem)

        def start() -> None:
            part.start()
            gpu.vfs_enabled(list(range(1, self.profile.total_vfs + 1)))

        card = gpu.card
        card.on_start.append(lambda: card.executor.submit(start))
        card.commands["pf_part"] = part.describe

    def _vf_capabilities(self) -> list[Capability]:
        return vf_capabilities(self._serial)

    def _vf_bars(self, card: Card, vfid: int, registers: Gttmmadr, memory: Memory) -> dict[int, Bar]:
        size = self.profile.vf_bar2
        if self._vf_ggtt == TRAPPED:
            bar0 = trapped_registers_bar(self.gpu, vfid, registers, self.gpu.sharing)
            card.register_files.append(registers)
        else:
            bar0 = registers_bar(registers, memory)
        if self._vf_vram == TRAPPED:
            return {0: bar0, 2: trapped_vram_bar(size, self.gpu, vfid)}
        return {0: bar0, 2: vram_bar(size, self.gpu.vram.vf_memory(vfid))}

    def _vf(
        self, card: Card, vfid: int, identity: Identity, bars: Mapping[int, Bar], *, assigned: bool, name: str = ""
    ) -> Function:
        # With ARI, which names the next function, a guest would find no other at the same device.
        capabilities = [one for one in self._vf_capabilities() if not (assigned and isinstance(one, Ari))]
        return Function(
            name or f"vf{vfid}",
            vfid,
            executor=card.executor,
            identity=identity,
            capabilities=capabilities,
            bars=bars,
            is_vf=True,
            assigned=assigned,
        )

    def _passed_on(
        self, card: Card, pf: Function, vfid: int, identity: Identity, bars: Mapping[int, Bar]
    ) -> tuple[Function, Function]:
        """A VF as the guest has it that uses it, and as the PF's guest has it."""
        gate = Gate()
        vf = self._vf(card, vfid, identity, gate.over(bars), assigned=True)
        host = self._vf(card, vfid, identity, bars, assigned=False, name=f"vf{vfid}-host")
        self.passed.append(Passthrough(pf, host, vf, gate))
        return vf, host

    def _add(self, card: Card, pci: Function, registers: Gttmmadr, memory: Memory) -> None:
        card.functions.append(pci)
        self.gpu.add(pci, registers, memory)


def _profile(options: Mapping[str, Any]) -> Profile:
    vram, bar2 = options["vram"], options["bar2"]
    if bar2 & (bar2 - 1) or 0 < bar2 < 2 * MIB:
        raise CardError("must be 0 or a power of two of at least 2 MiB", key="bar2")
    cores = PARTS[options["device_id"]].xe_cores
    if options["xe_cores"] > cores:
        raise CardError(f"device id {options['device_id']:#x} has {cores} Xe cores at most", key="xe_cores")
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
        xe_cores=options["xe_cores"],
    )
