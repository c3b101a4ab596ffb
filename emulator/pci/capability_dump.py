"""Capabilities as a guest finds them: both chains of configuration space, walked and parsed, for the control socket.

The layout of a capability is what its `registers()` declare: the construct structure is made from them, so there is one
description. The headers, which the chains are made of, are described here.
"""

from __future__ import annotations

from typing import Any

from construct import BytesInteger, Construct, Int8ul, Pointer, Struct

from vfio_user_xe.emulator.model.layout import plain, word
from vfio_user_xe.emulator.pci.capability import CAPABILITY_POINTER, Capability
from vfio_user_xe.emulator.pci.config_space import CONFIG_SIZE, EXTENDED_START
from vfio_user_xe.emulator.pci.function import Function

HEADER = Struct("id" / Int8ul, "next" / Int8ul)
EXTENDED_HEADER = word(("id", 16), ("version", 4), ("next", 12))


def dump(function: Function) -> list[dict[str, Any]]:
    """The capabilities of `function` in the order of the chains: where, id, name, and the registers' values by name.

    A capability in the chain that was not declared has no name: the chain is walked as it reads. From any thread.
    """
    data = function.config.peek(0, CONFIG_SIZE).to_bytes(CONFIG_SIZE, "little")
    declared = {capability.offset: capability for capability in function.capabilities}
    return [
        *_chain(data, declared, HEADER, data[CAPABILITY_POINTER]),
        *_chain(data, declared, EXTENDED_HEADER, EXTENDED_START),
    ]


def _chain(data: bytes, declared: dict[int, Capability], header: Construct, offset: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        head = plain(header.parse(data[offset:]))
        if not head["id"]:
            break
        entry = {"offset": offset, **{name: value for name, value in head.items() if name != "next"}}
        if offset in declared:
            capability = declared[offset]
            entry |= {"name": capability.name, "registers": plain(_layout(capability).parse(data[offset:]))}
        found.append(entry)
        offset = head["next"]
    return found


def _layout(capability: Capability) -> Construct:
    """The registers that `capability` declares, as a structure from its first byte on."""
    return Struct(
        *(
            register.name.lower() / Pointer(register.offset, BytesInteger(register.size, swapped=True))
            for register in capability.registers()
        )
    )
