"""Byte streams between guests: a virtio serial port at each end, and a UNIX socket that QEMU carries them over.

In a guest the port is a character device, /dev/vportNpM, whose name is in /sys/class/virtio-ports. It hangs up (POLLHUP) while no
other machine is at the end of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

# A slot that QEMU gives to no device by itself as long as lower ones are free, so the card's place stays what it is.
_ADDRESS = "1d"
_RECONNECT_MS = 200


class PortRole(StrEnum):
    """Which end of a stream a guest has."""

    LISTENS = "listens"
    """The stream is there as long as this guest."""
    CONNECTS = "connects"
    """Again and again until the other one listens."""


def port_arguments(ports: Mapping[str, PortRole], folder: Path) -> list[str]:
    """The ports for QEMU's command line: by name, the same in both guests, over sockets in `folder`."""
    if not ports:
        return []
    arguments = ["-device", f"virtio-serial-pci,id=ports,bus=pcie.0,addr={_ADDRESS}"]
    for name, role in ports.items():
        path = str(folder / f"port-{name}.sock").replace(",", ",,")
        way = "server=on,wait=off" if role is PortRole.LISTENS else f"server=off,reconnect-ms={_RECONNECT_MS}"
        arguments += ["-chardev", f"socket,id=port-{name},path={path},{way}"]
        arguments += ["-device", f"virtserialport,bus=ports.0,chardev=port-{name},name={name},id=end-{name}"]
    return arguments
