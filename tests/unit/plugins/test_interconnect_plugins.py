"""`iov` and `host_dma` over a card that is nothing but memory with owners."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Initiator, Space, Window
from vfio_user_xe.emulator.model.card import Card, CardConfig, InterconnectConfig
from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from vfio_user_xe.emulator.pci.function import Function, Identity
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport
from vfio_user_xe.plugins.host_dma import HostDma
from vfio_user_xe.plugins.iov import Iov

BLOCK = 2 << 20
BLOCKS = 8


class Vram:
    """Eight blocks of 2 MiB: the PF addresses all of them, a VF those it owns, in the order it got them."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.memory = Memory(BLOCKS * BLOCK, "vram")
        self.owners = ["pf"] * BLOCKS

    def resolve(self, initiator: Initiator, address: int, length: int, write: bool) -> tuple[str, memoryview] | None:
        number, offset = divmod(address, BLOCK)
        if initiator.index == 0:
            blocks = list(range(BLOCKS))
        else:
            blocks = [block for block, owner in enumerate(self.owners) if owner == initiator.name]
        if number >= BLOCKS:
            return None
        if number >= len(blocks):
            raise AccessFault(initiator, Space.DEVICE, address, "no LMTT entry")
        start = blocks[number] * BLOCK + offset
        return self.owners[blocks[number]], self.memory.view[start : start + min(length, BLOCK - offset)]

    def give(self, block: int, owner: str) -> None:
        loser, self.owners[block] = self.owners[block], owner
        self.card.fabric.revoke(lambda window: window.owner in (loser, owner) and window.space == Space.DEVICE)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    class Model:
        API_VERSION = (2, 0)
        OPTIONS = ()

        def __init__(self, card: Card, options: Any) -> None:
            for index, name in enumerate(("pf", "vf1", "vf2")):
                function = Function(
                    name,
                    index,
                    executor=card.executor,
                    identity=Identity(0x1234, 1),
                    capabilities=[Msi()],
                    bars={0: Bar(PAGE_SIZE, memory=Memory(PAGE_SIZE))},
                    is_vf=index > 0,
                )
                function.attached(FakeTransport())
                function.config.write(COMMAND, 2, COMMAND_MASTER)
                card.functions.append(function)
            card.device_memory = Vram(card)

    from vfio_user_xe.emulator.model import card as card_module
    from vfio_user_xe.emulator.model.plugin_loading import Plugin

    factories: dict[str, Any] = {"toy": Model, "iov": Iov, "host_dma": HostDma}
    monkeypatch.setattr(
        card_module,
        "load_plugin",
        lambda kind, name: Plugin(kind, name, "", "", "", "", factories[name].OPTIONS, (2, 0), factories[name]),
    )
    interconnects = [InterconnectConfig("iov"), InterconnectConfig("host_dma", {"views": True})]
    made = Card(CardConfig("toy", "toy", interconnects, {}))
    made.start()
    yield made
    made.stop()


def vram(card: Card) -> Vram:
    assert isinstance(card.device_memory, Vram)
    return card.device_memory


def client(card: Card, name: str) -> FakeTransport:
    transport = card.function(name).transport
    assert isinstance(transport, FakeTransport)
    return transport


def on_executor(card: Card, call: Any) -> Any:
    return card.executor.run_sync(call, 30)


def open_window(card: Card, name: str, space: str, address: int, length: int, write: bool = True) -> Window:
    window = on_executor(
        card, lambda: card.fabric.window(card.function(name), space, address, length, write=write, kind="test")
    )
    assert isinstance(window, Window)
    return window


def entries(card: Card) -> list[tuple[str, str, str, int, int]]:
    return sorted((e.initiator, e.owner, e.interconnect, e.bytes_read, e.bytes_written) for e in card.fabric.ledger)


# iov


def test_the_pf_reaches_a_vf_s_memory_without_a_copy_and_the_ledger_says_whose_it_was(card: Card) -> None:
    vram(card).give(3, "vf1")
    mine = open_window(card, "vf1", Space.DEVICE, 0x100, 16)
    theirs = open_window(card, "pf", Space.DEVICE, 3 * BLOCK + 0x100, 16)
    mine.write(0, b"written by vf1")
    assert theirs.read(0, 14) == b"written by vf1"
    assert theirs.view is not None
    theirs.view[0] = ord("W")
    assert mine.read(0, 1) == b"W"
    assert entries(card) == [("pf", "vf1", "iov", 14, 0), ("vf1", "vf1", "iov", 1, 14)]


def test_a_vf_cannot_reach_memory_that_is_not_its_own(card: Card) -> None:
    vram(card).give(0, "vf1")
    with pytest.raises(AccessFault, match="vf2: device address 0x0: no LMTT entry"):
        open_window(card, "vf2", Space.DEVICE, 0, 4)
    assert entries(card) == []


def test_an_access_over_blocks_of_two_owners_is_accounted_to_each(card: Card) -> None:
    vram(card).give(1, "vf1")
    on_executor(card, lambda: card.fabric.write(card.function("pf"), Space.DEVICE, BLOCK - 6, b"x" * 16, "vram"))
    assert entries(card) == [("pf", "pf", "iov", 0, 6), ("pf", "vf1", "iov", 0, 10)]


def test_device_addresses_beyond_the_card_s_memory_are_reached_by_nothing(card: Card) -> None:
    with pytest.raises(AccessFault, match="no interconnect reaches it"):
        open_window(card, "pf", Space.DEVICE, BLOCKS * BLOCK, 4)


def test_a_window_is_revoked_when_its_block_changes_hands_and_others_are_not(card: Card) -> None:
    vram(card).give(2, "vf1")
    vram(card).give(3, "vf2")
    old = open_window(card, "pf", Space.DEVICE, 2 * BLOCK, 64)
    other = open_window(card, "pf", Space.DEVICE, 3 * BLOCK, 64)
    vram(card).give(2, "pf")
    assert not old.valid
    assert other.valid
    with pytest.raises(AccessFault, match="path to vf1 was revoked"):
        old.read(0, 1)
    assert open_window(card, "pf", Space.DEVICE, 2 * BLOCK, 64).owner == "pf"


def test_a_copy_in_progress_faults_at_the_next_span_when_the_memory_is_taken_away(card: Card) -> None:
    vram(card).give(2, "vf1")
    copied: list[int] = []
    faults: list[AccessFault] = []
    began, revoked = threading.Event(), threading.Event()

    def copy() -> None:
        window = card.fabric.window(card.function("pf"), Space.DEVICE, 2 * BLOCK, BLOCK, write=True)
        try:
            for offset in range(0, BLOCK, PAGE_SIZE):
                window.write(offset, b"\xaa" * PAGE_SIZE)
                copied.append(offset)
                began.set()
                if len(copied) == 2:
                    revoked.wait(30)
        except AccessFault as fault:
            faults.append(fault)

    card.executor.submit(copy)
    assert began.wait(30)
    vram(card).give(2, "pf")
    revoked.set()
    on_executor(card, lambda: None)
    assert len(faults) == 1
    assert len(copied) <= 2
    assert not any(vram(card).memory.view[2 * BLOCK + 2 * PAGE_SIZE : 3 * BLOCK])


def test_a_card_without_memory_of_its_own_has_no_device_addresses(card: Card) -> None:
    card.device_memory = None
    with pytest.raises(AccessFault, match="no interconnect reaches it"):
        open_window(card, "pf", Space.DEVICE, 0, 4)


# host_dma


def test_each_function_reaches_the_memory_of_its_own_client(card: Card) -> None:
    for name in ("pf", "vf1"):
        on_executor(
            card, lambda name=name: card.fabric.write(card.function(name), Space.SYSTEM, 0x1000, name.encode(), "dma")
        )
    assert bytes(client(card, "pf").memory[0x1000:0x1003]) == b"pf\0"
    assert bytes(client(card, "vf1").memory[0x1000:0x1003]) == b"vf1"
    assert not any(client(card, "vf2").memory)
    assert entries(card) == [("pf", "guest", "host_dma", 0, 2), ("vf1", "guest", "host_dma", 0, 3)]


def test_shared_memory_is_used_without_messages(card: Card) -> None:
    window = open_window(card, "pf", Space.SYSTEM, 0x2000, 0x1000)
    assert window.view is not None
    window.view[0:4] = b"view"
    assert client(card, "pf").memory[0x2000:0x2004] == b"view"
    assert client(card, "pf").messages == []


def test_memory_that_is_not_shared_is_reached_by_messages(card: Card) -> None:
    client(card, "pf").shared = 0x1000
    function = card.function("pf")
    on_executor(card, lambda: card.fabric.write(function, Space.SYSTEM, 0xFFE, b"edge", "dma"))
    assert on_executor(card, lambda: card.fabric.read(function, Space.SYSTEM, 0xFFE, 4, "dma")) == b"edge"
    assert client(card, "pf").messages == [("write", 0x1000, 2), ("read", 0x1000, 2)]
    assert sorted(entries(card)) == [("pf", "guest", "host_dma", 2, 2), ("pf", "unshared", "host_dma", 2, 2)]


def test_a_bar_of_another_card_of_the_process_is_called_by_its_name(card: Card) -> None:
    other = Card(replace(card.config, name="card2"))
    card.beside = [other]
    bar = 0x4000
    pf = other.function("pf")
    pf.config.write(0x10, 4, bar)
    pf.config.write(COMMAND, 2, COMMAND_MASTER | COMMAND_MEMORY)
    client(card, "pf").shared = 0
    function = card.function("pf")
    for address in (bar, bar + PAGE_SIZE):
        on_executor(card, lambda address=address: card.fabric.write(function, Space.SYSTEM, address, b"data", "dma"))
    reached = [("pf", "card2:pf", "host_dma", 0, 4), ("pf", "unshared", "host_dma", 0, 4)]
    assert sorted(entries(card)) == reached
    (path,) = [p for p in card.fabric.ledger.verdicts(["pf", "vf1", "vf2"])["paths"] if p["owner"] == "card2:pf"]
    assert path["path"] == "legacy"
    pf.config.write(COMMAND, 2, COMMAND_MASTER)  # it decodes no memory any more
    on_executor(card, lambda: card.fabric.write(function, Space.SYSTEM, bar, b"data", "dma"))
    assert sorted(entries(card))[1] == ("pf", "unshared", "host_dma", 0, 8)


def test_a_range_whose_end_nobody_mapped_is_reached_up_to_there(card: Card) -> None:
    client(card, "pf").shared = 0
    end = client(card, "pf").size
    function = card.function("pf")
    with pytest.raises(AccessFault) as caught:
        on_executor(card, lambda: card.fabric.write(function, Space.SYSTEM, end - 8, b"0123456789", "dma"))
    assert caught.value.address == end
    assert bytes(client(card, "pf").memory[-8:]) == b"01234567"


def test_messages_are_refused_outside_of_the_executor(card: Card) -> None:
    client(card, "pf").shared = 0
    window = open_window(card, "pf", Space.SYSTEM, 0, 16)
    with pytest.raises(RuntimeError, match="use the executor"):
        window.read(0, 4)
    with pytest.raises(RuntimeError, match="use the executor"):
        window.write(0, b"1234")
    assert client(card, "pf").messages == []
    assert entries(card) == []


def test_a_message_that_the_client_refuses_is_an_access_fault_and_is_not_counted(card: Card) -> None:
    client(card, "pf").shared = 0
    client(card, "pf").refuse = True
    window = open_window(card, "pf", Space.SYSTEM, 0x40, 16)
    with pytest.raises(AccessFault, match=r"system address 0x44: .*the client refuses"):
        on_executor(card, lambda: window.read(4, 4))
    with pytest.raises(AccessFault, match="the client refuses"):
        on_executor(card, lambda: window.write(4, b"1234"))
    assert entries(card) == []


@pytest.mark.parametrize("shared", [1 << 20, 0])
def test_memory_that_is_read_only_is_not_written(card: Card, shared: int) -> None:
    client(card, "pf").shared = shared
    client(card, "pf").writable = False
    open_window(card, "pf", Space.SYSTEM, 0, 4, write=False)
    with pytest.raises(AccessFault, match="asked to write"):
        open_window(card, "pf", Space.SYSTEM, 0, 4, write=True)


def test_an_unmapping_revokes_views_and_message_windows_alike(card: Card) -> None:
    client(card, "pf").shared = 0x2000
    view = open_window(card, "pf", Space.SYSTEM, 0x1000, 0x1000)
    message = open_window(card, "pf", Space.SYSTEM, 0x2000, 0x1000)
    elsewhere = open_window(card, "pf", Space.SYSTEM, 0x4000, 0x1000)
    other = open_window(card, "vf1", Space.SYSTEM, 0x1000, 0x1000)
    card.function("pf").drop_windows(0x1000, 0x2000)
    assert [w.valid for w in (view, message, elsewhere, other)] == [False, False, True, True]
    with pytest.raises(AccessFault, match="revoked"):
        on_executor(card, lambda: message.write(0, b"late"))
    assert client(card, "pf").messages == []


def test_without_a_client_there_is_no_guest_memory(card: Card) -> None:
    window = open_window(card, "pf", Space.SYSTEM, 0, 4)
    card.function("pf").detached()
    with pytest.raises(AccessFault, match="no interconnect reaches it"):
        open_window(card, "pf", Space.SYSTEM, 0, 4)
    on_executor(card, lambda: None)
    assert not window.valid


def test_a_function_that_is_no_bus_master_reaches_no_guest_memory(card: Card) -> None:
    window = open_window(card, "pf", Space.SYSTEM, 0, 4)
    card.function("pf").config.write(COMMAND, 2, 0)
    assert not window.valid
    with pytest.raises(AccessFault, match="no bus master"):
        open_window(card, "pf", Space.SYSTEM, 0, 4)
    open_window(card, "vf1", Space.SYSTEM, 0, 4)


def test_a_reset_takes_the_windows_on_guest_memory_back(card: Card) -> None:
    window = open_window(card, "vf1", Space.SYSTEM, 0, 4)
    other = open_window(card, "vf2", Space.SYSTEM, 0, 4)
    card.function("vf1").function_level_reset()
    on_executor(card, lambda: None)
    assert (window.valid, other.valid) == (False, True)
    with pytest.raises(AccessFault, match="no bus master"):
        open_window(card, "vf1", Space.SYSTEM, 0, 4)


def test_an_initiator_that_is_no_function_has_no_guest_memory(card: Card) -> None:
    class Probe:
        name, index = "probe", 0

    with pytest.raises(AccessFault):
        on_executor(card, lambda: card.fabric.read(Probe(), Space.SYSTEM, 0, 4))


def test_views_can_be_switched_off_to_make_every_access_a_message(card: Card) -> None:
    card.fabric.interconnects = [card.make_interconnect("host_dma", {"views": False})]
    function = card.function("pf")
    on_executor(card, lambda: card.fabric.write(function, Space.SYSTEM, 0x10, b"slow", "dma"))
    assert client(card, "pf").messages == [("write", 0x10, 4)]
