from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.guest.samples import environment
from vfio_user_xe.emulator.guest import accelerator as accelerators
from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.environment import Environment, Qemu
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.machine import Iommu, Machine
from vfio_user_xe.emulator.guest.qemu import Ports, command_line, kernel_command_line

TCG = Accelerator("tcg", "test")
KVM = Accelerator("kvm", "test")


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return environment(tmp_path)


def command(fetched: Environment, accelerator: Accelerator, machine: Machine) -> list[str]:
    return command_line(fetched, accelerator, machine, Path("/k"), Path("/i"), "quiet", Ports(7, (8, 9), 10))


def value(arguments: list[str], option: str) -> str:
    assert arguments.count(option) == 1, option
    return arguments[arguments.index(option) + 1]


def test_guest_memory_can_be_mapped_by_a_vfio_user_server(fetched: Environment) -> None:
    arguments = command(fetched, TCG, Machine(memory=768))
    assert value(arguments, "-object") == "memory-backend-memfd,id=ram,size=768M,share=on"
    assert value(arguments, "-machine") == "q35,memory-backend=ram"
    assert value(arguments, "-m") == "768M"


def test_the_processor_has_room_for_64_bit_bars_under_tcg(fetched: Environment) -> None:
    assert value(command(fetched, TCG, Machine()), "-cpu") == "max,vendor=GenuineIntel,phys-bits=46"
    assert value(command(fetched, KVM, Machine()), "-cpu") == "host"
    assert value(command(fetched, KVM, Machine(cpu="EPYC,phys-bits=46")), "-cpu") == "EPYC,phys-bits=46"


def test_the_viommu_comes_before_the_devices_behind_it(fetched: Environment) -> None:
    machine = Machine(iommu=Iommu(intremap=False), arguments=("-device", "vfio-user-pci"))
    arguments = command(fetched, TCG, machine)
    devices = [arguments[at + 1] for at, word in enumerate(arguments) if word == "-device"]
    assert devices == ["intel-iommu,intremap=off,caching-mode=on", "vfio-user-pci"]
    assert "intel_iommu=on" in kernel_command_line(machine)
    assert "intel_iommu=on" not in kernel_command_line(Machine())


def test_interrupt_remapping_under_kvm_splits_the_irqchip(fetched: Environment) -> None:
    assert "kernel-irqchip=split" in value(command(fetched, KVM, Machine(iommu=Iommu())), "-machine")
    assert "kernel-irqchip" not in value(command(fetched, TCG, Machine(iommu=Iommu())), "-machine")


def test_ovmf_writes_its_variables_nowhere(fetched: Environment) -> None:
    for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"):
        path = fetched.root / "usr/share/OVMF" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    arguments = command(fetched, TCG, Machine(ovmf=True))
    code, variables = (arguments[at + 1] for at, word in enumerate(arguments) if word == "-drive")
    assert "readonly=on" in code
    assert "snapshot=on" in variables


def test_a_users_kernel_parameters_come_last() -> None:
    assert kernel_command_line(Machine(), "xe.max_vfs=3 loglevel=8").endswith(" xe.max_vfs=3 loglevel=8")


def fake_kvm(fetched: Environment, monkeypatch: pytest.MonkeyPatch, script: str) -> Environment:
    """An environment whose QEMU is a shell script, on a host with /dev/kvm."""
    program = fetched.root / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(accelerators, "device_problem", lambda: "")
    return Environment(fetched.root, fetched.manifest, Qemu((str(program),), {}, "11.1", "test"))


def test_kvm_is_used_after_it_has_booted_a_kernel(fetched: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = accelerators.choose(fake_kvm(fetched, monkeypatch, "echo kvm-runs-guests"))
    assert chosen.name == "kvm"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'KVM internal error. Suberror: 1' >&2; echo 'emulation failure' >&2; sleep 60", "emulation failure"),
        ("echo 'failed to initialize kvm: Permission denied' >&2; exit 1", "Permission denied"),
        ("exit 1", "exit code 1"),
    ],
)
def test_kvm_that_runs_no_guest_is_not_used_and_the_reason_told(
    fetched: Environment, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    chosen = accelerators.choose(fake_kvm(fetched, monkeypatch, script))
    assert chosen.name == "tcg"
    assert chosen.reason.startswith("TCG, because KVM did not boot a kernel")
    assert reason in chosen.reason


def test_a_silent_kvm_is_given_up(fetched: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "_PROOF_SECONDS", 0.3)
    assert "no result within" in accelerators.choose(fake_kvm(fetched, monkeypatch, "sleep 60")).reason


def test_the_proof_is_made_once_until_the_machine_restarts(
    fetched: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven = accelerators.choose(fake_kvm(fetched, monkeypatch, "echo kvm-runs-guests"))
    broken = fake_kvm(fetched, monkeypatch, "exit 1")
    assert accelerators.choose(broken) == proven
    monkeypatch.setattr(accelerators, "_boot_id", lambda: "after a restart")
    assert accelerators.choose(broken).name == "tcg"


def test_a_damaged_memory_of_the_proof_is_made_anew(
    fetched: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proven = fake_kvm(fetched, monkeypatch, "echo kvm-runs-guests")
    accelerators.choose(proven)
    remembered = tmp_path / "cache/vfio-user-xe/accelerator.json"
    remembered.write_text(json.dumps({"key": 1}))
    assert accelerators.choose(proven).name == "kvm"


def test_without_the_device_tcg_is_used(fetched: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", refuse)
    chosen = accelerators.choose(fetched)
    assert chosen == Accelerator("tcg", "TCG, because this machine has no /dev/kvm")


def test_an_accelerator_that_was_asked_for_is_not_questioned(fetched: Environment) -> None:
    assert accelerators.choose(fetched, "kvm").name == "kvm"
    assert accelerators.choose(fetched, "tcg").name == "tcg"
    with pytest.raises(GuestError, match="'xen': allowed are auto, kvm and tcg"):
        accelerators.choose(fetched, "xen")


def test_the_kernel_is_told_the_rate_of_its_counter_where_it_is_known() -> None:
    assert "tsc_early_khz=2300000" in kernel_command_line(Machine(), tsc_khz=2_300_000).split()
    assert "tsc_early_khz" not in kernel_command_line(Machine())
