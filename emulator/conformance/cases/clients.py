"""What other clients send, message by message: a server that answers each rule may still not answer their ways.

rust-vmm's `vfio_user` (96c82d1; cloud-hypervisor attaches devices with it) checks little of what comes, and reads exactly as many
bytes as it expects: more of them, or fewer, and it is out of step, or ends.
"""

from __future__ import annotations

import json

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.dma.ranges import memory_of
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, EventFd, Message

CLIENTS = "Clients: rust-vmm vfio_user"
_PROPOSAL = {"capabilities": {"max_msg_fds": 1, "max_data_xfer_size": 1 << 20, "migration": {"pgsize": 4096}}}
_BASE, _SIZE = 1 << 32, 1 << 20


def _send(t: Context, client: Client, message_id: int, command: int, body: bytes, *fds: int) -> bytes:
    """One command that must succeed; the payload of the reply."""
    reply: Message = t.exchange(client, command, body, fds, message_id=message_id)
    t.check(
        not reply.failed, f"{wire.COMMAND_NAMES[command]} was refused with errno {reply.error}, but must be accepted"
    )
    return reply.body


def _started(t: Context) -> tuple[Client, dict[str, object]]:
    """Connected as rust-vmm's client is; the version data of the reply."""
    client = t.raw()
    body = wire.VERSION_BODY.pack(0, 1) + json.dumps(_PROPOSAL, separators=(",", ":")).encode() + b"\0"
    data = _send(t, client, 0, wire.VERSION, body)[wire.VERSION_BODY.size :]
    t.check(data, "the reply to VERSION has no data: this client ends then")
    document = json.loads(data[:-1])
    t.check(isinstance(document, dict), "the version data is not a JSON object")
    return client, document


@case(CLIENTS, silent=True)
def rust_vmm_gets_an_object_of_capabilities(t: Context) -> None:
    """Its proposal is answered by data that have an object `capabilities`, though the specification does not want it."""
    _, document = _started(t)
    t.check(isinstance(document.get("capabilities"), dict), "the version data have no object 'capabilities'")


@case(CLIENTS, silent=True)
def rust_vmm_finds_the_regions(t: Context) -> None:
    """DEVICE_GET_INFO has an argsz of 32; a region with capabilities is asked for twice, with one message id."""
    client, _ = _started(t)
    info = _send(t, client, 1, wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(32, 0, 0, 0))
    t.equal(len(info), wire.DEVICE_INFO.size, "the payload of DEVICE_GET_INFO's reply")
    _, flags, regions, _ = wire.DEVICE_INFO.unpack(info)
    t.check(flags & wire.DEVICE_FLAG_PCI, "the device is no PCI device")
    message_id = 2
    for index in range(regions):
        request = wire.REGION_INFO.pack(wire.REGION_INFO.size, 0, index, 0, 0, 0)
        fixed = _send(t, client, message_id, wire.DEVICE_GET_REGION_INFO, request)
        t.equal(len(fixed), wire.REGION_INFO.size, f"the payload for region {index} with an argsz of 32")
        argsz = wire.REGION_INFO.unpack(fixed)[0]
        if argsz > wire.REGION_INFO.size:
            request = wire.REGION_INFO.pack(argsz, 0, index, 0, 0, 0)
            whole = _send(t, client, message_id, wire.DEVICE_GET_REGION_INFO, request)
            t.equal(len(whole), argsz, f"the payload for region {index} with the argsz that it was told")
            message_id += 1
        message_id += 1


@case(CLIENTS, silent=True)
def rust_vmm_maps_wires_and_resets(t: Context) -> None:
    """Memory, an eventfd, configuration space, and back: replies have the sizes that it reads, no more and no less."""
    client, _ = _started(t)
    device = _send(t, client, 1, wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(32, 0, 0, 0))
    _, flags, _, indices = wire.DEVICE_INFO.unpack(device)
    vectors = [0] * indices
    for index in range(indices):
        body = _send(t, client, 2 + index, wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, index, 0))
        t.equal(len(body), wire.IRQ_INFO.size, "the payload of DEVICE_GET_IRQ_INFO's reply")
        vectors[index] = wire.IRQ_INFO.unpack(body)[3]
    memory = memory_of(t, _SIZE)
    permissions = wire.DMA_READABLE | wire.DMA_WRITABLE
    body = wire.DMA_MAP_BODY.pack(wire.DMA_MAP_BODY.size, permissions, 0, _BASE, _SIZE)
    t.equal(_send(t, client, 20, wire.DMA_MAP, body, memory.fd), b"", "the payload of DMA_MAP's reply")
    wired = max(range(indices), key=lambda index: vectors[index], default=0)
    if indices and vectors[wired]:
        event = EventFd()
        t.finally_(event.close)
        trigger = wire.IRQ_SET_ACTION_TRIGGER
        body = wire.IRQ_SET.pack(wire.IRQ_SET.size, wire.IRQ_SET_DATA_EVENTFD | trigger, wired, 0, 1)
        t.equal(_send(t, client, 21, wire.DEVICE_SET_IRQS, body, event.fd), b"", "the payload of SET_IRQS' reply")
        body = wire.IRQ_SET.pack(wire.IRQ_SET.size, wire.IRQ_SET_DATA_NONE | trigger, wired, 0, 0)
        t.equal(_send(t, client, 22, wire.DEVICE_SET_IRQS, body), b"", "the payload of SET_IRQS' reply")
    access = wire.REGION_ACCESS.pack(4, wire.CONFIG, 2)
    got = _send(t, client, 23, wire.REGION_READ, access)
    t.equal(len(got), wire.REGION_ACCESS.size + 2, "the payload of REGION_READ's reply")
    written = _send(t, client, 24, wire.REGION_WRITE, access + got[wire.REGION_ACCESS.size :])
    t.equal(len(written), wire.REGION_ACCESS.size, "the payload of REGION_WRITE's reply")
    gone = _send(t, client, 25, wire.DMA_UNMAP, wire.DMA_UNMAP_BODY.pack(wire.DMA_UNMAP_BODY.size, 0, _BASE, _SIZE))
    t.equal(len(gone), wire.DMA_UNMAP_BODY.size, "the payload of DMA_UNMAP's reply")
    if flags & wire.DEVICE_FLAG_RESET:
        t.equal(_send(t, client, 26, wire.DEVICE_RESET, b""), b"", "the payload of DEVICE_RESET's reply")
