"""One description of QEMU's machine, and what each command renders of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support.guest.samples import environment
from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.machine import KVM, TCG, Iommu, Machine
from vfio_user_xe.emulator.guest.qemu import Ports, command_line
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription, FunctionDescription
from vfio_user_xe.emulator.guest.vng import vng_arguments

CARD = CardDescription("mine", "edu", [FunctionDescription("edu", "/run/edu.sock", 0, 0)])


def contains(words: list[str], part: list[str]) -> bool:
    return any(words[at : at + len(part)] == part for at in range(len(words)))


@pytest.mark.parametrize(
    ("accelerator", "intremap", "split"),
    [(KVM, True, True), (None, True, True), (TCG, True, False), (KVM, False, False), (None, False, False)],
)
def test_interrupt_remapping_splits_the_irqchip_where_kvm_may_run_the_guest(
    accelerator: str | None, intremap: bool, split: bool
) -> None:
    board = Machine(iommu=Iommu(intremap=intremap)).board(accelerator)
    assert ("kernel-irqchip=split" in board[1]) is split


def test_a_processor_that_is_asked_for_is_taken_under_every_accelerator() -> None:
    for accelerator in (KVM, TCG, None):
        assert Machine(cpu="EPYC").processor(accelerator) == ["-cpu", "EPYC"]


def test_where_the_accelerator_is_not_known_the_processor_suits_both() -> None:
    assert Machine().processor(None) == Machine().processor(TCG) == ["-cpu", "max,vendor=GenuineIntel,phys-bits=46"]


def test_the_shared_memory_is_as_large_as_the_machine_s() -> None:
    machine = Machine(1536)
    assert "memory-backend-memfd,id=ram,size=1536M,share=on" in machine.board(TCG)
    assert machine.sizes()[:2] == ["-m", "1536M"]


def test_guests_and_vng_have_the_board_that_qemu_args_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machine = Machine(2048)
    guest = command_line(
        environment(tmp_path), Accelerator(TCG, "test"), machine, Path("/k"), Path("/i"), "", Ports(7, (8, 9), 10)
    )
    assert contains(guest, machine.whole(None))
    (option,) = (w for w in vng_arguments(CARD, Path("/q"), memory=2048, kvm=False) if w.startswith("--qemu-opts="))
    assert contains(shlex.split(option.removeprefix("--qemu-opts=")), [*machine.board(None), *machine.processor(None)])
