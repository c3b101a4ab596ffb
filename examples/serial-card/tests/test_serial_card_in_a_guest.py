"""The card under Linux's own 8250_pci."""

from __future__ import annotations

import hashlib
import re
import time

import pytest

from vfio_user_xe.emulator.testing.lab import Lab

pytestmark = [
    pytest.mark.guest,
    pytest.mark.vfio_user_card("--model", "serial-card"),
]


@pytest.fixture
def tty(lab: Lab) -> str:
    """The port that the kernel made of the card; ttyS0 and ttyS1 are the machine's."""
    return "/dev/" + lab.sh("dmesg | sed -n 's/.*0000:01:00.0: \\(ttyS[0-9]*\\) .*/\\1/p'")


def test_the_stock_driver_finds_a_16550a_with_an_interrupt(lab: Lab) -> None:
    line = lab.sh("dmesg | grep '0000:01:00.0: ttyS'")
    assert re.search(r"MMIO:? ?0x[0-9a-f]+ \(irq = [1-9]\d*, base_baud = 115200\) is a 16550A", line)
    assert lab.sh("basename $(readlink /sys/bus/pci/devices/0000:01:00.0/driver)") == "serial"
    assert lab.sh("ls /sys/bus/pci/devices/0000:01:00.0/msi_irqs | wc -l") == "1"


def test_speed_and_format_arrive_in_the_device(lab: Lab, tty: str) -> None:
    # The driver programs an open port only.
    lab.sh(f"exec 3<>{tty}; stty -F {tty} 9600 cs7 parenb -parodd cstopb; sleep 0.1")
    line = lab.card.call("serial_line")
    assert (line["baud"], line["data_bits"], line["stop_bits"], line["parity"]) == (9600, 7, 2, "even")


def test_bytes_go_both_ways(lab: Lab, tty: str) -> None:
    lab.card.call("serial_received", clear=True)
    outward = bytes(range(256)) * 16
    inward = bytes(reversed(range(256))) * 16
    lab.guest.put("/tmp/outward", outward)
    lab.sh(
        f"""
        (exec 3<>{tty}; stty -F {tty} raw -echo 115200 cs8 -parenb -cstopb
        touch /tmp/open
        head -c {len(inward)} <&3 | sha256sum > /tmp/inward; cat /tmp/outward >&3
        cat /proc/interrupts > /tmp/interrupts; touch /tmp/done) >/dev/null 2>&1 &
        while [ ! -e /tmp/open ]; do sleep 0.05; done
        """
    )
    lab.card.call("serial_send", data=inward.hex())
    lab.sh("while [ ! -e /tmp/done ]; do sleep 0.05; done")
    assert lab.sh("cat /tmp/inward").split()[0] == hashlib.sha256(inward).hexdigest()
    deadline = time.monotonic() + 20
    while len(received := bytes.fromhex(lab.card.call("serial_received"))) < len(outward):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert received == outward
    interrupts = next(line for line in lab.sh("cat /tmp/interrupts").splitlines() if tty.removeprefix("/dev/") in line)
    assert int(interrupts.split()[1]) > 0
