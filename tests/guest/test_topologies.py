"""Which guest has what, with the stock driver everywhere: VFs without a PF, a card in two guests, several cards in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.guest.lab import Lab, open_card, open_guest, open_lab, program
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.testing.lab import LiveCard
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

PF = "0000:01:00.0"
DEVICE = f"/sys/bus/pci/devices/{PF}"
XE = "/sys/bus/pci/drivers/xe"


def settings() -> dict[str, Any]:
    """Of guests with xe and the program that works on several functions."""
    return {"modules": ["xe"], "files": program("xe_functions"), "memory": 1536}


def sh(guest: BlockingGuest, command: str, timeout: float = 60) -> str:
    """Run a command that must succeed; what it said."""
    return guest.run(command, timeout=timeout, check=True).stdout.rstrip("\n")


def jobs(guest: BlockingGuest, *functions: str) -> None:
    """Jobs on every engine of these functions at once; each verifies its results."""
    done = guest.run(f"xe-functions jobs {' '.join(functions)}", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok: ") == len(functions), done.stdout


def errors(guest: BlockingGuest) -> list[str]:
    """What the driver complained of."""
    return [
        line for line in sh(guest, "dmesg").splitlines() if "*ERROR*" in line or ("failed" in line and "xe " in line)
    ]


def bound(guest: BlockingGuest) -> list[str]:
    """Functions that xe drives."""
    return sh(guest, f"ls {XE} | grep : || true").split()


def busy(control: str | None, vfid: int) -> int:
    """Nanoseconds that a function has had engines until now."""
    assert control is not None
    with ControlClient(control) as client:
        return sum(engine["busy_ns"].get(str(vfid), 0) for engine in client.call("engines"))


@pytest.fixture(scope="class")
def lab() -> Iterator[Lab]:
    arguments = ["--topology", "vf-only", "--vfs", "2", "--set", "media=true", "--set", "vf_vram_size=256MiB"]
    with open_lab(arguments, **settings()) as lab:
        lab.sh("modprobe xe", timeout=120)
        yield lab


class TestVfOnly:
    def test_xe_probes_vfs_without_any_pf_driver_and_they_work_at_once(self, lab: Lab) -> None:
        assert bound(lab.guest) == ["0000:01:00.0", "0000:01:00.1"]
        log = lab.sh("dmesg")
        assert log.count("Running in SR-IOV VF mode") == 2
        assert "SR-IOV PF mode" not in log
        assert errors(lab.guest) == []
        jobs(lab.guest, "0000:01:00.0", "0000:01:00.1")
        debugfs = "/sys/kernel/debug/dri/0000:01:00.0/gt0/vf"
        assert "0.1.38.1" in lab.sh(f"cat {debugfs}/abi_versions")
        assert [vf["negotiated"] for vf in lab.card.call("pf_part")] == ["1.0", "1.0"]
        assert [vf["vram"]["size"] for vf in lab.card.call("pf_part")] == [256 << 20] * 2

    def test_a_vf_that_was_reset_is_empty_and_probes_again_beside_one_that_works_on(self, lab: Lab) -> None:
        lab.sh(f"echo {PF} > {XE}/unbind")
        lab.card.call("write", function="vf1", space="device", address=0x100000, data="5a" * 64)
        lab.sh(f"echo 1 > {DEVICE}/reset")
        left = lab.card.call("read", function="vf1", space="device", address=0, length=16 << 20)
        assert not left.strip("0"), "the reset left something of the VF"
        jobs(lab.guest, "0000:01:00.1")
        lab.sh(f"echo {PF} > {XE}/bind", timeout=90)
        jobs(lab.guest, "0000:01:00.0", "0000:01:00.1")
        assert errors(lab.guest) == []


@dataclass(slots=True)
class Split:
    """A card, the guest that has its PF, and the guest that has its VFs."""

    card: LiveCard
    pf: BlockingGuest
    vfs: BlockingGuest


@pytest.fixture(scope="class")
def split() -> Iterator[Split]:
    common = settings()
    with open_card(["--topology", "split", "--vfs", "2"]) as card, open_guest(card, **common) as pf:
        sh(pf, "modprobe xe", timeout=120)
        sh(pf, f"echo 1 > {DEVICE}/sriov_numvfs")
        with open_guest(card, functions=["vf1", "vf2"], **common) as vfs:
            sh(vfs, "modprobe xe", timeout=120)
            yield Split(card, pf, vfs)


class TestSplit:
    def test_a_guest_has_a_vf_of_a_card_whose_pf_another_guest_has(self, split: Split) -> None:
        assert sh(split.pf, "lspci -n -s 1:").splitlines()[1].split()[1] == "ff00:", "the placeholder's class"
        assert bound(split.pf) == [PF]
        assert bound(split.vfs) == ["0000:01:00.0"], "only VF 1 is enabled"
        assert "Running in SR-IOV VF mode" in sh(split.vfs, "dmesg")
        jobs(split.vfs, "0000:01:00.0")
        jobs(split.pf, PF)
        assert errors(split.pf) == []

    def test_both_guests_work_at_the_same_time(self, split: Split) -> None:
        sh(
            split.vfs,
            f"(xe-functions hold {PF} /tmp/end > /tmp/hold 2>&1; echo exit $? >> /tmp/hold) >/dev/null 3>&- &",
        )
        sh(split.vfs, "until grep -q -e running -e exit /tmp/hold; do sleep 0.1; done; grep running /tmp/hold")
        before = busy(split.card.description.control, 1)
        jobs(split.pf, PF)
        assert busy(split.card.description.control, 1) > before
        assert "finished" in sh(
            split.vfs, "touch /tmp/end; until grep exit /tmp/hold; do sleep 0.1; done; cat /tmp/hold"
        )

    def test_the_pf_s_guest_resets_the_vf_by_its_placeholder(self, split: Split) -> None:
        sh(split.vfs, f"echo {PF} > {XE}/unbind")
        before = sh(split.pf, "dmesg").count("VF1 FLR")
        sh(split.pf, f"echo 1 > {DEVICE}/virtfn0/reset")
        sh(split.pf, f"until [ $(dmesg | grep -c 'VF1 FLR') -gt {before} ]; do sleep 0.1; done")
        sh(split.vfs, f"echo {PF} > {XE}/bind", timeout=90)
        jobs(split.vfs, PF)
        assert errors(split.pf) == []

    def test_vfs_come_and_go_with_the_pf_s_driver(self, split: Split) -> None:
        sh(split.vfs, f"echo {PF} > {XE}/unbind")
        sh(split.pf, f"echo 0 > {DEVICE}/sriov_numvfs; echo 2 > {DEVICE}/sriov_numvfs")
        for function in ("0000:01:00.0", "0000:01:00.1"):
            sh(split.vfs, f"echo {function} > {XE}/bind", timeout=90)
        jobs(split.vfs, "0000:01:00.0", "0000:01:00.1")
        assert errors(split.pf) == []


@pytest.fixture(scope="class")
def cards() -> Iterator[tuple[BlockingGuest, list[str | None]]]:
    """A guest with three cards, two of them of one server process, and their control sockets."""
    common = settings()
    with (
        open_card(["--cards", "2", "--vfs", "1"]) as two,
        open_card(["--vfs", "1"]) as one,
        open_guest(two, one, **common) as guest,
    ):
        sh(guest, "modprobe xe", timeout=120)
        yield guest, [description.control for card in (two, one) for description in card.descriptions]


class TestSeveralCards:
    def test_all_pfs_and_vfs_work_at_once(self, cards: tuple[BlockingGuest, list[str | None]]) -> None:
        guest, _ = cards
        functions = [f"0000:0{bus}:00.{function}" for bus in (1, 2, 3) for function in (0, 1)]
        for pf in functions[::2]:
            sh(guest, f"echo 1 > /sys/bus/pci/devices/{pf}/sriov_numvfs", timeout=90)
        assert bound(guest) == functions
        jobs(guest, *functions)
        assert errors(guest) == []

    def test_work_on_one_card_is_none_on_the_others(self, cards: tuple[BlockingGuest, list[str | None]]) -> None:
        guest, controls = cards
        before = [busy(control, 1) for control in controls]
        jobs(guest, "0000:02:00.1")
        after = [busy(control, 1) for control in controls]
        assert [now > then for then, now in zip(before, after, strict=True)] == [False, True, False]

    def test_one_card_s_vfs_go_and_the_others_stay(self, cards: tuple[BlockingGuest, list[str | None]]) -> None:
        guest, _ = cards
        sh(guest, "echo 0 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", timeout=60)
        jobs(guest, "0000:01:00.0", "0000:02:00.1", "0000:03:00.1")
        assert errors(guest) == []
