"""Scenarios 37: two VFs of a VMM in one I/O address space, and what becomes of a mapping of the one's memory for the other.

VF 2 makes the accesses, VF 1 owns the memory: the card is told to let VF 2 read and write at an I/O address, as a device of
a virtual machine does with the address of its sibling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.revocation import show_blocked
from vfio_user_xe.device_models.xe.scenarios.steps import scenario
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from vfio_user_xe.emulator.scenarios.run import Run

IOVA, OTHER_IOVA = 0x4000_0000, 0x6000_0000
LENGTH = 2 * MIB
AT = 0x1000
"""Where in VF 1's memory the accesses are."""
MEMORY_AND_MASTER = COMMAND_MEMORY | COMMAND_MASTER
_VMM = "vmm"
_BAR2 = 0x18
"""Where BAR2's address is in configuration space, as a user of VFIO sees it."""


class Peer:
    """VF 2 as a device that reaches memory by I/O addresses."""

    def __init__(self, machine: XeMachine) -> None:
        self._machine = machine

    def write(self, iova: int, value: int) -> bool:
        """Write a dword; whether it reached anything."""
        data = value.to_bytes(4, "little").hex()
        try:
            self._machine.card.call("write", function="vf2", space="system", address=iova, data=data)
        except CommandError:
            return False
        return True

    def read(self, iova: int) -> int | None:
        """Read a dword; None: nothing answers there."""
        try:
            data = self._machine.card.call("read", function="vf2", space="system", address=iova, length=4)
        except CommandError:
            return None
        return int.from_bytes(bytes.fromhex(data), "little")


@contextlib.contextmanager
def _siblings(run: Run, machine: XeMachine) -> Iterator[tuple[Program, Peer]]:
    """A process with VF 1 as `v` and VF 2 as `w`, both in one type 1 container."""
    with s.program(run, machine) as made:
        machine.card.open_vf(made, "v", 1)
        made.step(f"vfio w {machine.card.vf(2)} v")
        machine.card.settle(2)
        made.do(*(f"config {vf} {COMMAND} 2 {MEMORY_AND_MASTER}" for vf in ("v", "w")))
        machine.card.call("ledger", clear=True)
        yield made, Peer(machine)
        made.do("try release w", "try release v")
    s.settle(machine)


def _reaches(run: Run, made: Program, peer: Peer, iova: int, value: int, what: str) -> None:
    """What VF 2 writes at an I/O address is in VF 1's memory, and the other way round."""
    run.check(peer.write(iova + AT, value), f"{what}: VF 2's write at {iova + AT:#x} reaches nothing")
    found = made.step(f"peek v {AT:#x}").number("value")
    run.check(found == value, f"{what}: VF 1 has {found:#x}, VF 2 wrote {value:#x}")
    run.check(peer.read(iova + AT) == value, f"{what}: VF 2 reads something else")


@scenario(
    "37",
    "type 1: VF 1's memory mapped for VF 2 in one container",
    "DMA reaches it, by the mapping alone; after unmapping nothing is reached",
    group=_VMM,
)
def siblings_in_a_container(run: Run, machine: XeMachine) -> None:
    with _siblings(run, machine) as (made, peer):
        made.step(f"dma-map v {IOVA:#x} 0 {LENGTH:#x}")
        _reaches(run, made, peer, IOVA, 0x1111, "mapped")
        made.step(f"dma-map v {OTHER_IOVA:#x} 0 {LENGTH:#x}")
        _reaches(run, made, peer, OTHER_IOVA, 0x2222, "mapped a second time")
        made.step(f"dma-unmap v {IOVA:#x} {LENGTH:#x}")
        run.check(not peer.write(IOVA + AT, 0x3333), "VF 2 reaches memory that was unmapped")
        _reaches(run, made, peer, OTHER_IOVA, 0x4444, "the other mapping")
        run.fact("ledger", [row for row in machine.card.call("ledger") if row["initiator"] == "vf2"])


@scenario(
    "37b",
    "type 1: the owner's memory is disabled, reset, mapped anew",
    "what is documented: type 1 revokes nothing, a mapping holds until it is unmapped or its owner closes",
    group=_VMM,
)
def owner_is_reset_in_a_container(run: Run, machine: XeMachine) -> None:
    with _siblings(run, machine) as (made, peer):
        made.step(f"dma-map v {IOVA:#x} 0 {LENGTH:#x}")
        made.step(f"config v {COMMAND} 2 0")
        run.evidence("while COMMAND.MEM is off", "reached" if peer.write(IOVA + AT, 1) else "not reached")
        while_off = made.step(f"try dma-map v {OTHER_IOVA:#x} 0 {LENGTH:#x}")
        run.evidence("mapping while COMMAND.MEM is off", while_off.errno)
        made.step(f"config v {COMMAND} 2 {MEMORY_AND_MASTER}")
        _reaches(run, made, peer, IOVA, 0x1111, "after COMMAND.MEM was off and on")
        made.step("reset v")
        s.settle(machine, 1)
        made.step(f"config v {COMMAND} 2 {MEMORY_AND_MASTER}")
        _reaches(run, made, peer, IOVA, 0x2222, "after the owner's reset")
        made.do(f"dma-unmap v {IOVA:#x} {LENGTH:#x}", f"dma-map v {IOVA:#x} {LENGTH:#x} {LENGTH:#x}")
        run.check(peer.write(IOVA + AT, 0x3333), "the new mapping reaches nothing")
        there = made.step(f"peek v {LENGTH + AT:#x}").number("value")
        before = made.step(f"peek v {AT:#x}").number("value")
        run.check((there, before) == (0x3333, 0x2222), f"mapped anew at another offset: {there:#x} and {before:#x}")


@scenario(
    "37c",
    "type 1: the owner closes its device while its memory is mapped for the other",
    "no DMA to a VF that somebody else may open next, or the mapping goes with the owner's process",
    group=_VMM,
)
def owner_closes_in_a_container(run: Run, machine: XeMachine) -> None:
    with _siblings(run, machine) as (made, peer):
        made.step(f"dma-map v {IOVA:#x} 0 {LENGTH:#x}")
        _reaches(run, made, peer, IOVA, 0x1111, "mapped")
        made.step("release v")
        s.settle(machine, 1)
        reached = peer.write(IOVA + AT, 0x2222)
        run.evidence("after the owner closed its device", "VF 2 still reaches it" if reached else "nothing is reached")
        made.step("release w")
        s.settle(machine)
        run.check(not peer.write(IOVA + AT, 0x3333), "VF 2 reaches memory after all of the container was closed")


@scenario(
    "37e",
    "type 1: the owner's BAR2 is moved, as a guest's firmware or kernel does, and mapped where it is then",
    "DMA follows the mapping: the BAR's address is VFIO's own; where it was mapped before nothing is reached",
    group=_VMM,
)
def owner_is_moved_in_a_container(run: Run, machine: XeMachine) -> None:
    with _siblings(run, machine) as (made, peer):
        made.step(f"dma-map v {IOVA:#x} 0 {LENGTH:#x}")
        _reaches(run, made, peer, IOVA, 0x1111, "mapped")
        # A VMM's guest switches decoding off, writes the BAR and switches it on again.
        made.do(
            f"config v {COMMAND} 2 0",
            f"config v {_BAR2:#x} 4 {OTHER_IOVA:#x}",
            f"config v {_BAR2 + 4:#x} 4 0",
            f"config v {COMMAND} 2 {MEMORY_AND_MASTER}",
        )
        _reaches(run, made, peer, IOVA, 0x2222, "after the BAR was moved, where it is still mapped")
        made.do(f"dma-unmap v {IOVA:#x} {LENGTH:#x}", f"dma-map v {OTHER_IOVA:#x} 0 {LENGTH:#x}")
        run.check(not peer.write(IOVA + AT, 0x3333), "VF 2 reaches the memory where it was before")
        _reaches(run, made, peer, OTHER_IOVA, 0x4444, "mapped where the BAR is now")


def _in_an_ioas(run: Run, machine: XeMachine, made: Program) -> None:
    """VF 1 as `v` and VF 2 as `w` by iommufd, in the IOAS `u`, and the dma-buf `d` of VF 1's memory mapped in it."""
    if machine.run("test -c /dev/iommu && test -d /dev/vfio/devices").returncode:
        run.not_applicable("this kernel has no iommufd or no character devices of VFIO (/dev/iommu, /dev/vfio/devices)")
    made.do("iommufd u", f"vfio v {machine.card.vf(1)} u", f"vfio w {machine.card.vf(2)} u")
    s.settle(machine)
    made.do(*(f"config {vf} {COMMAND} 2 {MEMORY_AND_MASTER}" for vf in ("v", "w")))
    made.step(f"export v 2 0+{LENGTH:#x} d")
    mapped = made.step(f"try ioas-map u d {IOVA:#x} {LENGTH:#x}")
    if mapped.errno in ("EOPNOTSUPP", "ENOTTY"):
        run.not_applicable(f"this kernel's iommufd maps no dma-bufs (IOMMU_IOAS_MAP_FILE: {mapped.errno})")
    run.check(mapped.errno == "0", f"IOMMU_IOAS_MAP_FILE: {mapped.errno}")


def _revokes(run: Run, machine: XeMachine, made: Program, command: str, what: str) -> None:
    """A command that takes the owner's memory away for a time returns, although iommufd has it mapped."""
    made.step(f"spawn job {command}")
    joined = made.step("try join job 5000")
    if joined.running:
        show_blocked(run, machine)
        with run.step("what frees it: unmapping in iommufd"):
            made.step(f"try ioas-unmap u {IOVA:#x} {LENGTH:#x}")
            freed = made.step("try join job 5000")
        run.evidence("freed by", "nothing" if freed.running else "unmapping in iommufd")
        if freed.running:
            run.give_up("a task blocks and nothing frees it")
        run.known(defects.REVOCATION_WAITS, f"iommufd keeps it waiting: {what}")
    run.check(joined.errno == "0", f"{what}: {joined.errno}")


def _after_revoking(run: Run, made: Program, peer: Peer, value: int, before: int, what: str) -> None:
    """A mapping that was revoked, of memory that is there again, stays so or is made anew: VF 2 reaches that memory or nothing."""
    reached = peer.write(IOVA + AT, value)
    run.evidence(what, "reached" if reached else "not reached: iommufd does not map again")
    found, read = made.step(f"peek v {AT:#x}").number("value"), peer.read(IOVA + AT)
    wanted = (value, value) if reached else (before, None)
    said = f"VF 1 has {found:#x}, VF 2 reads {'nothing' if read is None else f'{read:#x}'}"
    run.check((found, read) == wanted, f"{what}: VF 2's write {'reaches memory' if reached else 'fails'}, and {said}")


@scenario(
    "37d",
    "iommufd: VF 1's memory as a dma-buf, mapped for VF 2",
    "DMA reaches it; it is revoked at reset and close, and mapped again by nobody else",
    group=_VMM,
)
def siblings_in_an_ioas(run: Run, machine: XeMachine) -> None:
    s.may_hang(run)
    with s.program(run, machine) as made:
        peer = Peer(machine)
        _in_an_ioas(run, machine, made)
        _reaches(run, made, peer, IOVA, 0x1111, "mapped")
        _revokes(run, machine, made, "reset v", "VFIO_DEVICE_RESET")
        s.settle(machine, 1)
        made.step(f"config v {COMMAND} 2 {MEMORY_AND_MASTER}")
        # The PF's driver has cleared the memory.
        _after_revoking(run, made, peer, 0x2222, 0, "after the owner's reset")
        unmapped = made.step(f"try ioas-unmap u {IOVA:#x} {LENGTH:#x}")
        run.check(unmapped.errno == "0", f"IOMMU_IOAS_UNMAP after the reset: {unmapped.errno}")
        made.step(f"ioas-map u d {IOVA:#x} {LENGTH:#x}")
        _reaches(run, made, peer, IOVA, 0x3333, "mapped anew")
        made.step("spawn job close v")
        run.check(made.step("try join job 5000").errno == "0", "close() of the owner does not return")
        s.settle(machine, 1)
        run.check(not peer.write(IOVA + AT, 0x4444), "VF 2 reaches memory of a device that is closed")
        refused = made.step(f"try ioas-map u d {OTHER_IOVA:#x} {LENGTH:#x}")
        run.check(refused.errno == "ENODEV", f"mapping a dead dma-buf: {refused.errno}")
    s.settle(machine)


@scenario(
    "37f",
    "iommufd: the owner's memory is disabled and enabled, and mapped at another address",
    "nothing is reached by a mapping that was revoked; mapped anew it is reached, there and nowhere else",
    group=_VMM,
)
def owner_is_disabled_in_an_ioas(run: Run, machine: XeMachine) -> None:
    s.may_hang(run)
    with s.program(run, machine) as made:
        peer = Peer(machine)
        _in_an_ioas(run, machine, made)
        _reaches(run, made, peer, IOVA, 0x1111, "mapped")
        _revokes(run, machine, made, f"config v {COMMAND} 2 0", "switching COMMAND.MEM off")
        run.check(not peer.write(IOVA + AT, 0x2222), "VF 2 writes to memory that is disabled")
        run.check(peer.read(IOVA + AT) is None, "VF 2 reads memory that is disabled")
        made.step(f"config v {COMMAND} 2 {MEMORY_AND_MASTER}")
        _after_revoking(run, made, peer, 0x3333, 0x1111, "when COMMAND.MEM is on again")
        unmapped = made.step(f"try ioas-unmap u {IOVA:#x} {LENGTH:#x}")
        run.check(unmapped.errno == "0", f"IOMMU_IOAS_UNMAP: {unmapped.errno}")
        run.check(not peer.write(IOVA + AT, 0x4444), "VF 2 reaches memory that was unmapped")
        made.step(f"ioas-map u d {OTHER_IOVA:#x} {LENGTH:#x}")
        _reaches(run, made, peer, OTHER_IOVA, 0x5555, "mapped at another address")
        run.check(not peer.write(IOVA + AT, 0x6666), "VF 2 reaches the memory where it was before")
        found = made.step(f"peek v {AT:#x}").number("value")
        run.check(found == 0x5555, f"VF 1 has {found:#x} after a write of VF 2 that reached nothing")
    s.settle(machine)
