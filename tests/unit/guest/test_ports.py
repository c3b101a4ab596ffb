"""Byte streams between guests."""

from __future__ import annotations

from pathlib import Path

from vfio_user_xe.emulator.guest.ports import PortRole, port_arguments


def test_both_ends_of_a_stream_use_one_socket_and_one_of_them_listens() -> None:
    first, second = (port_arguments({"vm1": role}, Path("/s")) for role in (PortRole.LISTENS, PortRole.CONNECTS))
    assert "socket,id=port-vm1,path=/s/port-vm1.sock,server=on,wait=off" in first
    assert "socket,id=port-vm1,path=/s/port-vm1.sock,server=off,reconnect-ms=200" in second
    port = "virtserialport,bus=ports.0,chardev=port-vm1,name=vm1,id=end-vm1"
    assert port in first
    assert port in second


def test_a_guest_has_one_controller_for_all_its_ports_and_none_without() -> None:
    arguments = port_arguments({"vm1": PortRole.LISTENS, "vm2": PortRole.LISTENS}, Path("/s"))
    assert sum(word.startswith("virtio-serial-pci") for word in arguments) == 1
    assert port_arguments({}, Path("/s")) == []


def test_a_comma_in_the_folder_s_name_does_not_end_qemu_s_option() -> None:
    assert any("path=/a,,b/port-x.sock" in word for word in port_arguments({"x": PortRole.LISTENS}, Path("/a,b")))
