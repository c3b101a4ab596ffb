"""Trace channels that every card has: register accesses, configuration space, interrupts, and windows of the fabric.

Each hooks itself in while it is switched on and leaves no trace of itself when it is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vfio_user_xe.emulator.fabric.interconnect import Fabric, Window
from vfio_user_xe.emulator.fabric.leases import Lease, Leases
from vfio_user_xe.emulator.model.registers import RegisterFile
from vfio_user_xe.emulator.observe.trace import Channel, Tracer
from vfio_user_xe.emulator.pci.transport import CONFIG_REGION

if TYPE_CHECKING:
    from vfio_user_xe.emulator.pci.function import Function


def trace_registers(tracer: Tracer, file: RegisterFile) -> None:
    """Accesses of `file` on the channel "mmio", by register and field name."""
    channel = tracer.channel("mmio", "registers read and written, by name")

    def observer(offset: int, value: int, *, write: bool) -> None:
        channel.emit(file.name, "write" if write else "read", lambda: describe_access(file, offset, value))

    channel.on_switch.append(lambda on: file.observe(observer if on else None))


def describe_access(file: RegisterFile, offset: int, value: int) -> Mapping[str, Any]:
    """An access in names: the register, its offset, the value, and the fields of it that are not 0."""
    register = file.registers.get(offset)
    fields: dict[str, Any] = {"register": file.name_of(offset), "offset": offset, "value": value}
    if register is not None and register.fields and offset == register.offset:
        fields |= {name: part for name, part in register.decode(value).items() if part}
    return fields


def trace_function(tracer: Tracer, function: Function) -> None:
    """Configuration space on the channel "config", interrupts on "irq"."""
    config = tracer.channel("config", "configuration space read and written")
    config.on_switch.append(lambda on: _wrap_config(config, function, on))
    irq = tracer.channel("irq", "interrupts signalled")
    irq.on_switch.append(lambda on: _wrap_interrupts(irq, function, on))


def trace_fabric(tracer: Tracer, fabric: Fabric, leases: Leases) -> None:
    """Windows and leases, given and taken back, on the channel "fabric"."""
    channel = tracer.channel("fabric", "paths to memory, opened and revoked: who, where, whose, by which interconnect")

    def opened(window: Window, interconnect: str, write: bool) -> None:
        fields = {
            "space": window.space,
            "address": window.address,
            "length": window.length,
            "for": "write" if write else "read",
            "kind": window.entry.kind,
            "interconnect": interconnect,
            "owner": window.owner,
        }
        channel.emit(window.initiator.name, "window", fields)

    def taken(window: Window) -> None:
        fields = {
            "space": window.space,
            "address": window.address,
            "length": window.length,
            "kind": window.entry.kind,
            "interconnect": window.entry.interconnect,
            "owner": window.owner,
        }
        channel.emit(window.initiator.name, "revoked", fields)

    def leased(event: str, lease: Lease) -> None:
        channel.emit(lease.function, event, lease.as_dict())

    def switch(on: bool) -> None:
        fabric.on_open = opened if on else None
        fabric.on_taken = taken if on else None
        leases.on_event = leased if on else None

    channel.on_switch.append(switch)


def _wrap_config(channel: Channel, function: Function, on: bool) -> None:
    region = function.regions[CONFIG_REGION]
    handler = region.handler if region is not None else None
    if handler is None:
        return
    # Attributes of the instance hide the class's methods while they are there.
    overrides = vars(handler)
    for name in ("read", "write"):
        overrides.pop(name, None)
    if not on:
        return
    plain_read, plain_write = handler.read, handler.write

    def read(offset: int, size: int) -> int:
        value = plain_read(offset, size)
        channel.emit(function.name, "read", {"offset": offset, "size": size, "value": value})
        return value

    def write(offset: int, size: int, value: int) -> None:
        channel.emit(function.name, "write", {"offset": offset, "size": size, "value": value})
        plain_write(offset, size, value)

    overrides.update(read=read, write=write)


def _wrap_interrupts(channel: Channel, function: Function, on: bool) -> None:
    overrides = vars(function)
    overrides.pop("raise_msi", None)
    if not on:
        return
    plain = function.raise_msi

    def raise_msi(vector: int = 0) -> bool:
        delivered = plain(vector)
        channel.emit(function.name, "msi", {"vector": vector, "delivered": delivered})
        return delivered

    overrides["raise_msi"] = raise_msi
