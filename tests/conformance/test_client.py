"""The client, against our server: what it promises its users."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator

import pytest

from tests.support.processes import no_descriptors_left, no_threads_left
from tests.support.served import ServedCard, served
from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.conformance.driver import Driver
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Disconnected, EventFd, ProtocolError, RequestError

BASE = 0x1000_0000


@pytest.fixture(scope="module")
def card() -> Iterator[ServedCard]:
    with served() as running:
        yield running


@pytest.fixture
def client(card: ServedCard) -> Iterator[Client]:
    with Client(card.socket) as connected:
        yield connected


def test_refusal_names_command_and_errno(client: Client) -> None:
    with pytest.raises(RequestError, match=r"REGION_READ was refused: EINVAL \(Invalid argument\)") as caught:
        client.region_read(200, 0, 4)
    assert (caught.value.errno, caught.value.command) == (errno.EINVAL, wire.REGION_READ)


def test_nobody_listening_is_disconnected(tmp_path: object) -> None:
    with pytest.raises(Disconnected, match=r"cannot connect to /nowhere/pf.sock"):
        Client("/nowhere/pf.sock")


def test_large_accesses_are_split_at_the_servers_limit(client: Client) -> None:
    client.server_capabilities["max_data_xfer_size"] = 1000
    data = bytes(range(256)) * 40
    client.region_write(device.MAPPED, 4, data)
    assert client.region_read(device.MAPPED, 4, len(data)) == data


def test_region_map_is_what_messages_see(client: Client) -> None:
    mapped = client.map_region(device.SPARSE)
    assert [(offset, len(view)) for offset, view in mapped.areas] == list(device.SPARSE_AREAS)
    mapped.at(0x8010, 4)[:] = b"abcd"
    assert client.region_read(device.SPARSE, 0x8010, 4) == b"abcd"
    with pytest.raises(ValueError, match=r"\[0x3000, 0x3001\) is in none of the mappable areas"):
        mapped.at(0x3000, 1)


def test_replies_are_waited_for_in_any_order(client: Client) -> None:
    first = client.send(wire.REGION_READ, wire.REGION_ACCESS.pack(device.REG_MAGIC, device.REGISTERS, 4))
    second = client.send(wire.REGION_READ, wire.REGION_ACCESS.pack(device.REG_VERSION, device.REGISTERS, 4))
    assert client.wait(second).body[16:] == device.VERSION.to_bytes(4, "little")
    assert client.wait(first).body[16:] == b"VUCD"


def test_several_threads_share_a_client(client: Client) -> None:
    wrong: list[int] = []

    def read(register: int, value: int) -> None:
        wrong.extend(got for _ in range(300) if (got := client.read(device.REGISTERS, register, 4)) != value)

    threads = [
        threading.Thread(target=read, args=arguments)
        for arguments in ((device.REG_MAGIC, device.MAGIC), (device.REG_VERSION, device.VERSION)) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_dma_is_answered_in_the_background(client: Client) -> None:
    mapping = client.map_memory(BASE, 0x10000, shared=False)
    mapping.at(BASE, 4)[:] = b"data"
    (event,) = client.enable_irqs(wire.IRQ_MSIX, 1)
    client.serve_in_background()
    Driver(client).start_dma(device.DMA_READ | device.DMA_THEN_MSI, BASE, 4)
    # Nothing of this client is called while the device asks for the memory.
    assert event.wait(60) == 1
    assert client.region_read(device.MAPPED, 0, 4) == b"data"


def test_memory_without_permission_or_content_is_refused(client: Client) -> None:
    driver = Driver(client)
    client.dma_map(BASE, 0x1000)
    assert driver.dma(device.DMA_READ, BASE, 4) == errno.EFAULT
    client.map_memory(BASE + 0x1000, 0x1000, flags=wire.DMA_READABLE, shared=False)
    assert driver.dma(device.DMA_READ, BASE + 0x1000, 4) == 0


def test_refused_mapping_is_forgotten(client: Client) -> None:
    client.map_memory(BASE, 0x1000)
    with pytest.raises(RequestError):
        client.map_memory(BASE, 0x1000)
    assert len(client.mappings) == 1


def test_wait_that_times_out_can_be_repeated(client: Client) -> None:
    with pytest.raises(TimeoutError, match=r"reply 0x7000 did not come within 0.05 s"):
        client.wait(0x7000, timeout=0.05)
    assert client.device_info()[0] & wire.DEVICE_FLAG_PCI


def test_eventfd_counts_signals() -> None:
    with EventFd() as event:
        assert event.pending() == 0
        os.eventfd_write(event.fd, 3)
        assert event.wait(0.1) == 3
        with pytest.raises(TimeoutError):
            event.wait(0.01)


def test_close_gives_everything_back(card: ServedCard) -> None:
    def once() -> None:
        client = Client(card.socket, twin_socket=True)
        client.map_region(device.MAPPED)
        client.map_memory(BASE, 0x10000)
        client.map_memory(BASE + 0x10000, 0x10000, shared=False)
        client.enable_irqs(wire.IRQ_MSIX, 4)
        client.serve_in_background()
        client.close()
        client.close()
        with pytest.raises(Disconnected):
            client.device_info()

    once()
    with no_descriptors_left(), no_threads_left():
        for _ in range(5):
            once()


def test_server_that_goes_is_noticed() -> None:
    with served() as running:
        client = Client(running.socket)
        client.device_info()
    with client, pytest.raises(Disconnected):
        client.device_info()


def test_reply_with_another_size_is_a_protocol_error(client: Client) -> None:
    class Short(Client):
        def request(self, *arguments: object, **keywords: object) -> object:  # type: ignore[override]
            reply = client.request(*arguments, **keywords)  # type: ignore[arg-type]
            reply.body = reply.body[:-1]
            return reply

    short = Short.__new__(Short)
    short.server_capabilities = {}
    short.wait = client.wait  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match=r"REGION_READ of 4 bytes: count 4, 3 bytes of data"):
        short.region_read(device.REGISTERS, 0, 4)
