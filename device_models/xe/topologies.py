"""Topologies: which guest has the PF and which the VFs, and who plays the PF's part (docs/topologies.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vfio_user_xe.device_models.xe.guc import pf_provision
from vfio_user_xe.device_models.xe.memory.memory_map import MIB
from vfio_user_xe.emulator.model.card import CardError, Option
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.model_info import Topology
from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.function import FLR, Function, Identity

SAME_GUEST = "same-guest"
"""One guest has the PF and all VFs."""
SPLIT = "split"
"""One guest has the PF and placeholders for the VFs; each VF goes to another guest."""
PASSTHROUGH = "passthrough"
"""One guest has the PF and all VFs, and passes VFs on, each to another guest."""
NESTED = "nested"
"""One guest has the PF and all VFs, and a vIOMMU to pass VFs on to guests of its own."""
VF_ONLY = "vf-only"
"""No guest has the PF: the card plays its part."""
TOPOLOGIES = {
    SAME_GUEST: Topology("one guest has the PF and all VFs"),
    SPLIT: Topology("one guest has the PF and placeholders for the VFs; each VF goes to another guest"),
    PASSTHROUGH: Topology(
        "one guest has the PF and all VFs; each VF that VFIO passes on there is used in another guest"
    ),
    NESTED: Topology("one guest has the PF and all VFs, to pass VFs on to guests of its own", iommu=True),
    VF_ONLY: Topology("no guest has the PF: the card plays its part"),
}

_UNASSIGNED_CLASS = 0xFF0000
"""A device that fits in no class: no driver but one that is told to takes it."""

_PROVISIONING: tuple[Option, ...] = (
    Option("vf_ggtt_size", "size", 0, "vf-only: each VF's GGTT; 0: a fair share", minimum=0, multiple_of=MIB),
    Option("vf_vram_size", "size", 0, "vf-only: each VF's VRAM; 0: a fair share", minimum=0, multiple_of=2 * MIB),
    Option("vf_contexts", "int", 0, "vf-only: each VF's GuC context ids; 0: a fair share", minimum=0, maximum=65535),
    Option("vf_doorbells", "int", 0, "vf-only: each VF's doorbells; 0: a fair share", minimum=0, maximum=256),
    Option("vf_quantum_ms", "int", 16, "vf-only: each VF's execution quantum", minimum=0, maximum=100_000),
    Option("vf_preempt_us", "int", 16_000, "vf-only: each VF's preemption timeout", minimum=0, maximum=100_000_000),
    Option("vf_guc", "str", "1.38.1", "vf-only: version of the GuC's interface that VFs find"),
)
OPTIONS: tuple[Option, ...] = (
    Option("topology", "str", SAME_GUEST, "which guest has which functions", choices=tuple(TOPOLOGIES)),
    *_PROVISIONING,
)


def check(options: Mapping[str, Any]) -> None:
    """Check that the options fit the topology.

    Raises:
        CardError: they do not.
    """
    topology = options["topology"]
    if topology != VF_ONLY:
        for option in _PROVISIONING:
            if options[option.name] != option.default:
                raise CardError(
                    f"is for topology {VF_ONLY}; with {topology} the PF's driver provisions the VFs", option.name
                )
    if topology != SAME_GUEST and not options["vfs"]:
        raise CardError(f"topology {topology} needs VFs, and vfs is 0", "topology")


def provisioning(options: Mapping[str, Any]) -> pf_provision.Wanted:
    """The provisioning that the card's options request, with `VF_ONLY`.

    Raises:
        CardError: an option's value is not allowed.
    """
    return pf_provision.Wanted(
        ggtt=options["vf_ggtt_size"],
        vram=options["vf_vram_size"],
        contexts=options["vf_contexts"],
        doorbells=options["vf_doorbells"],
        quantum_ms=options["vf_quantum_ms"],
        preempt_us=options["vf_preempt_us"],
        guc=_version(options["vf_guc"]),
    )


def placeholder(executor: Executor, identity: Identity, vf: Function, capabilities: Sequence[Capability]) -> Function:
    """What the PF's guest sees of a VF that another guest has: configuration space, and an FLR that resets the VF.

    Its class is none that drivers look for, so that the PF's guest leaves it alone.
    """
    who = Identity(
        identity.vendor, identity.device, identity.subsystem_vendor, identity.subsystem, class_code=_UNASSIGNED_CLASS
    )
    made = Function(
        f"vf{vf.index}-placeholder",
        vf.index,
        executor=executor,
        identity=who,
        capabilities=capabilities,
        bars={},
        is_vf=True,
    )
    made.on_reset.append(_passing_flr_on(vf))
    return made


def _passing_flr_on(vf: Function) -> Callable[[str], None]:
    def was_reset(reason: str) -> None:
        if reason == FLR:
            vf.function_level_reset()

    return was_reset


def _version(text: str) -> tuple[int, int, int]:
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) < 256 for part in parts) or int(parts[0]) != 1:
        raise CardError(
            f'"{text}" is not a version of the interface, such as "1.38.1" (the first number is 1)', "vf_guc"
        )
    return int(parts[0]), int(parts[1]), int(parts[2])
