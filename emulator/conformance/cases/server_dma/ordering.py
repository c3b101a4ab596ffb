"""Commands of both sides at once, and clients that go while DMA waits."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.server_dma.memory import BASE, ORDER, by_messages, expected
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Message


@case(ORDER)
def client_commands_are_answered_while_dma_waits(t: Context) -> None:
    """A server that waits for a DMA reply answers commands meanwhile."""
    device = t.device()
    by_messages(t.client)
    held: list[Message] = []
    t.client.dma_handler = held.append
    done = device.start_dma(numbers.DMA_READ, BASE, 64)
    t.client.serve(lambda: bool(held), what="a DMA_READ")
    for _ in range(20):
        t.equal(device.get(numbers.REG_MAGIC), numbers.MAGIC, "the magic number while DMA waits")
    t.client.dma_map(0, 4096)
    t.client.dma_unmap(0, 4096)
    t.equal(
        device.get(numbers.REG_DMA_DONE), (done - 1) & 0xFFFFFFFF, "the number of DMA commands done while one waits"
    )
    t.client.dma_handler = t.client.answer_dma
    t.client.send_raw(t.client.answer_dma(held[0]))
    t.equal(device.finish_dma(done), 0, "the errno of the DMA command")


@case(ORDER)
def dma_comes_between_pipelined_commands(t: Context) -> None:
    """Unrelated messages of the server may appear between a command and its reply; nothing is mixed up."""
    device = t.device()
    by_messages(t.client)
    done = device.start_dma(numbers.DMA_READ, BASE, 1 << 20)
    ids = []
    for number in range(600):
        body = wire.REGION_ACCESS.pack(4 * (number % 2), numbers.REGISTERS, 4)
        ids.append(t.client.send(wire.REGION_READ, body))
    for number, message_id in enumerate(ids):
        value = int.from_bytes(t.client.wait(message_id).body[16:], "little")
        t.equal(value, numbers.VERSION if number % 2 else numbers.MAGIC, f"register read {number}")
    t.equal(device.finish_dma(done), 0, "the errno of the DMA command")
    t.check(
        t.client.region_read(numbers.MAPPED, 0, 1 << 20) == expected(BASE, 1 << 20), "the device read something else"
    )


@case(ORDER)
def client_may_send_commands_from_inside_its_dma_handler(t: Context) -> None:
    """The client may need an answer before it gives one."""
    device = t.device()
    by_messages(t.client)

    def answer(message: Message) -> bytes:
        t.equal(device.get(numbers.REG_MAGIC), numbers.MAGIC, "the magic number read while a DMA request is open")
        return t.client.answer_dma(message)

    t.client.dma_handler = answer
    t.check(device.read_memory(BASE, 4096) == expected(BASE, 4096), "the device read something else")


@case(ORDER)
def large_transfers_in_both_directions_do_not_lock_up(t: Context) -> None:
    """A client that writes a mebibyte while the server sends one gets both done."""
    device = t.device()
    mapping = by_messages(t.client)
    size = min(1 << 20, t.client.max_data_xfer_size)
    done = device.start_dma(numbers.DMA_WRITE, BASE, 1 << 20, buffer=1 << 20)
    body = wire.REGION_ACCESS.pack(0, numbers.MAPPED, size) + bytes(size)
    ids = [t.client.send(wire.REGION_WRITE, body) for _ in range(4)]
    for message_id in ids:
        t.client.wait(message_id)
    t.equal(device.finish_dma(done), 0, "the errno of the DMA command")
    want = t.client.region_read(numbers.MAPPED, 1 << 20, 1 << 20)
    t.check(bytes(mapping.at(BASE, 1 << 20)) == want, "what the device wrote is not what arrived")


@case("Client Disconnection")
def client_that_dies_owing_a_reply_is_replaced(t: Context) -> None:
    """A server that waits for a DMA reply notices that the client is gone; the next one's DMA works."""
    device = t.device()
    by_messages(t.client)
    held: list[Message] = []
    t.client.dma_handler = held.append
    device.start_dma(numbers.DMA_READ, BASE, 1 << 20)
    t.client.serve(lambda: bool(held), what="a DMA_READ")
    t.drop(t.client)
    by_messages(t.client)
    t.check(t.device().read_memory(BASE, 64) == expected(BASE, 64), "the device read something else")


@case("Client Disconnection")
def dma_of_one_client_does_not_reach_the_next(t: Context) -> None:
    """A request to a client that has disconnected is not sent to the next client."""
    device = t.device()
    by_messages(t.client)
    held: list[Message] = []
    t.client.dma_handler = held.append
    device.start_dma(numbers.DMA_READ, BASE, 1 << 20)
    t.client.serve(lambda: bool(held), what="a DMA_READ")
    t.drop(t.client)
    t.silent(t.client, 0.3)


@case("VFIO_USER_DEVICE_SET_IRQS")
def interrupt_after_dma_finds_the_data_in_place(t: Context) -> None:
    """Data that were written before an interrupt are in memory when the interrupt arrives."""
    device = t.device()
    irq = t.vectors(t.client, 1)
    (event,) = t.client.enable_irqs(irq.index, 1)
    mapping = t.client.map_memory(BASE, 0x10000)
    for number in range(20):
        t.client.region_write(numbers.MAPPED, 0, bytes([number + 1]) * 256)
        device.start_dma(numbers.DMA_WRITE | numbers.DMA_THEN_MSI, BASE, 256)
        event.wait(5.0)
        t.equal(bytes(mapping.at(BASE, 256)), bytes([number + 1]) * 256, "the memory when the interrupt came")
