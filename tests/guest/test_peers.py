"""Two cards of one machine, each in a server process of its own: what one reaches of the other by bus address."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.guest.lab import open_card, open_guest
from tests.support.viewer import VIEWER, pixels
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import CommandFailed, MissingEnvironment
from vfio_user_xe.emulator.testing.lab import LiveCard

pytestmark = pytest.mark.guest

SERVE = ("--vfs", "1", "--set", "vram=1GiB", "--set", "vf_bar2=64MiB")


class Machine(NamedTuple):
    """Card `a` has `p2p` with `b` as its peer; `b` knows of nobody."""

    guest: BlockingGuest
    a: LiveCard
    b: LiveCard

    def bar(self, device: str, index: int) -> int:
        """Its bus address, as the kernel tells it."""
        line = self.guest.run(f"sed -n {index + 1}p /sys/bus/pci/devices/{device}/resource", check=True).stdout
        return int(line.split()[0], 16)

    def put(self, address: int, value: int) -> None:
        """A dword, by the guest's processor."""
        self.guest.run(f"busybox devmem {address:#x} 32 {value:#x}", check=True)

    def get(self, address: int) -> int:
        return int(self.guest.run(f"busybox devmem {address:#x} 32", check=True).stdout, 16)


PF_A, PF_B, VF_B = "0000:01:00.0", "0000:02:00.0", "0000:02:00.1"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    try:
        locate()
    except MissingEnvironment as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")
    with ExitStack() as stack:
        b = stack.enter_context(open_card([*SERVE, "--set", "name=b"]))
        links = ("iov", f"p2p:peers={b.folder}", "host_dma")
        words = [word for link in links for word in ("--interconnect", link)]
        a = stack.enter_context(open_card([*SERVE, "--set", "name=a", *words]))
        guest = stack.enter_context(open_guest(a, b, modules=["pci-pf-stub"]))
        guest.run(
            f"""
            modprobe pci-pf-stub
            for pf in {PF_A} {PF_B}; do
                echo pci-pf-stub > /sys/bus/pci/devices/$pf/driver_override
                echo $pf > /sys/bus/pci/drivers/pci-pf-stub/bind || true
                setpci -s $pf COMMAND=0006
                echo 1 > /sys/bus/pci/devices/$pf/sriov_numvfs
            done
            """,
            check=True,
            timeout=120,
        )
        yield Machine(guest, a, b)


def read(card: LiveCard, address: int) -> int:
    """A dword, as the card's PF reads it by DMA."""
    data = card.call("read", function="pf", space="system", address=address, length=4)
    return int.from_bytes(bytes.fromhex(data), "little")


def paths(card: LiveCard) -> set[tuple[str, str]]:
    return {(row["owner"], row["interconnect"]) for row in card.call("ledger", clear=True)}


def test_one_card_reaches_memory_of_the_other_by_the_addresses_that_the_kernel_gave(machine: Machine) -> None:
    machine.a.call("ledger", clear=True)
    for device, owner, value in ((PF_B, "b:pf", 0x11112222), (VF_B, "b:vf1", 0x33334444)):
        address = machine.bar(device, 2) + 0x10000
        machine.put(address, value)
        assert read(machine.a, address) == value
        machine.a.call("write", function="pf", space="system", address=address + 4, data="78563412")
        assert machine.get(address + 4) == 0x12345678
        assert paths(machine.a) == {(owner, "p2p")}
    assert {lease["owner"] for lease in machine.b.call("leases")} == {"pf", "vf1"}


def test_registers_of_the_other_card_are_reached_too(machine: Machine) -> None:
    scratch = machine.bar(VF_B, 0) + 0x190244
    machine.put(scratch, 0xCAFE)
    assert read(machine.a, scratch) == 0xCAFE


def test_without_peers_the_same_memory_is_reached_through_the_machine_and_is_nobody_s(machine: Machine) -> None:
    machine.b.call("ledger", clear=True)
    address = machine.bar(PF_A, 2) + 0x20000
    machine.put(address, 0x55556666)
    assert read(machine.b, address) == 0x55556666
    assert paths(machine.b) == {("unshared", "host_dma")}


def test_what_the_guest_draws_into_its_vf_is_a_picture_on_the_host(machine: Machine, tmp_path: Path) -> None:
    colours = [0xFF0000, 0x00FF00, 0x0000FF, 0x123456]
    for number, colour in enumerate(colours):
        machine.put(machine.bar(VF_B, 2) + 0x100000 + 4 * number, colour)
    command = [
        sys.executable,
        "-m",
        "vfio_user_xe.emulator",
        "export",
        "--socket-dir",
        str(machine.b.folder),
        "--function",
        "vf1",
    ]
    exporting = subprocess.Popen([*command, "--offset", "1MiB", "--once"], stdout=subprocess.PIPE, text=True)
    try:
        assert exporting.stdout is not None
        socket = json.loads(exporting.stdout.readline())["socket"]
        viewer = [sys.executable, str(VIEWER), socket, str(tmp_path / "screen.png"), "--width", "2", "--height", "2"]
        subprocess.run(viewer, check=True, timeout=30)
        assert exporting.wait(30) == 0
    finally:
        if exporting.poll() is None:
            exporting.kill()
        exporting.communicate()
    shown = [red << 16 | green << 8 | blue for row in pixels(tmp_path / "screen.png") for red, green, blue in row]
    assert shown == colours


def test_a_vf_that_goes_takes_its_bar_along_and_one_that_comes_back_is_found(machine: Machine) -> None:
    address = machine.bar(VF_B, 2)
    machine.put(address, 0x77778888)
    assert read(machine.a, address) == 0x77778888
    machine.guest.run(f"echo 0 > /sys/bus/pci/devices/{PF_B}/sriov_numvfs", check=True, timeout=60)
    assert all(lease["owner"] != "vf1" for lease in machine.b.call("leases"))
    machine.a.call("ledger", clear=True)
    with suppress(CommandError):
        read(machine.a, address)  # nothing is there
    assert ("b:vf1", "p2p") not in paths(machine.a)
    machine.guest.run(f"echo 1 > /sys/bus/pci/devices/{PF_B}/sriov_numvfs", check=True, timeout=60)
    machine.put(address, 0x9999AAAA)
    assert read(machine.a, address) == 0x9999AAAA
    assert ("b:vf1", "p2p") in paths(machine.a)


def test_a_peer_that_decodes_nothing_is_not_asked(machine: Machine) -> None:
    address = machine.bar(PF_B, 2)
    machine.guest.run(f"setpci -s {PF_B} COMMAND=0004", check=True)
    try:
        with pytest.raises((CommandError, CommandFailed)):
            read(machine.a, address)
        assert all(lease["bar"] is None for lease in machine.b.call("leases") if lease["function"] == "pf")
    finally:
        machine.guest.run(f"setpci -s {PF_B} COMMAND=0006", check=True)
    machine.put(address, 0xBBBBCCCC)
    assert read(machine.a, address) == 0xBBBBCCCC
