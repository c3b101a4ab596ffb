"""Memory of another card, with a peer that does what a peer may do at the worst moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space, Window
from vfio_user_xe.emulator.fabric.peers import Grant, PeerBar, PeerError, PeerListener
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport

REMOTE = 1 << 40
SIZE = 1 << 20


class Peer:
    """A card called "b" whose VF 1 has 1 MiB; `on_open` is called with every grant before it is given."""

    def __init__(self, listener: PeerListener) -> None:
        self.card, self.alive, self.asked = "b", True, False
        self.listener = listener
        self.memory = Memory(SIZE)
        self.opened = 0
        self.on_open: Callable[[Grant], None] = lambda grant: None
        self.decoded: list[PeerBar] = []
        self.released: list[Grant] = []
        self.pieces = [SIZE]
        """Where one piece of the memory ends and the next begins; below `hole` there is none."""
        self.hole = 0

    def bars(self) -> list[PeerBar]:
        return self.decoded

    def open(self, function: str, address: int, length: int, bar: int | None = None) -> Grant:
        self.opened += 1
        if address < self.hole:
            raise PeerError("nothing there", "hole")
        count = min(address + length, next(end for end in self.pieces if end > address)) - address
        grant = Grant(self.opened, function, bar, address, count, function, os.dup(self.memory.fd), address)
        self.on_open(grant)
        return grant

    def release(self, grant: Grant) -> None:
        self.released.append(grant)

    def revoke(self, grant: Grant) -> None:
        grant.valid = False
        self.listener.revoked(grant, "because")

    def read(self, function: str, bar: int, offset: int, length: int) -> bytes:
        raise PeerError("no registers")

    def write(self, function: str, bar: int, offset: int, data: bytes) -> None:
        raise PeerError("no registers")

    def close(self) -> None:
        self.alive = False


class Bench:
    """A card with an interconnect to `Peer`s."""

    def __init__(self, interconnect: str) -> None:
        config = CardConfig.default("edu").override(interconnects=[interconnect, "host_dma"])
        self.card = Card(config)
        self.dials = 0
        self.peer: Peer
        self.card.dial = self.dial
        self.card.start()
        self.card.functions[0].attached(FakeTransport())
        self.card.functions[0].config.write(COMMAND, 2, 6)
        self.fail: Exception | None = None

    def dial(self, folder: str, listener: PeerListener) -> Peer:
        self.dials += 1
        if self.fail is not None:
            raise self.fail
        self.peer = Peer(listener)
        return self.peer

    def window(self, space: str = Space.DEVICE, address: int = REMOTE) -> Window:
        fabric, function = self.card.fabric, self.card.functions[0]
        return self.card.executor.run_sync(lambda: fabric.window(function, space, address, 64, write=True), 10)


@pytest.fixture
def bench(request: Any) -> Iterator[Bench]:
    made = Bench(getattr(request, "param", f"remote:card=/b,length={SIZE}"))
    yield made
    made.card.stop()


def test_memory_that_is_taken_back_as_it_is_given_is_not_used(bench: Bench) -> None:
    bench.window()
    bench.peer.on_open = bench.peer.revoke
    bench.card.executor.run_sync(lambda: bench.peer.revoke(_only(bench)))
    with pytest.raises(AccessFault, match="revoked while the lease was given"):
        bench.window()
    assert bench.card.fabric.open_windows() == []


def _only(bench: Bench) -> Grant:
    (interconnect, _) = bench.card.fabric.interconnects
    (mapped,) = interconnect._memory._mapped  # type: ignore[attr-defined]
    grant: Grant = mapped.grant
    return grant


def test_memory_that_is_taken_back_as_the_window_is_opened_is_asked_for_anew(bench: Bench) -> None:
    bench.window()
    first = _only(bench)
    opened = bench.card.fabric.interconnects[0].open
    once = [True]

    def taken_back_in_between(*arguments: Any) -> Window | None:
        window = opened(*arguments)
        if once and once.pop():
            bench.peer.revoke(first)
        return window

    bench.card.fabric.interconnects[0].open = taken_back_in_between  # type: ignore[method-assign]
    window = bench.window()
    assert window.valid
    assert bench.peer.opened == 2


def test_a_piece_that_ends_before_the_address_is_given_back(bench: Bench) -> None:
    bench.window()
    bench.card.executor.run_sync(lambda: bench.peer.revoke(_only(bench)))
    bench.peer.pieces = [0x8000, SIZE]
    window = bench.window(address=REMOTE + 0x9000)
    assert window.valid
    assert [grant.length for grant in bench.peer.released] == [0x8000]
    assert _only(bench).address == 0x9000
    assert bench.window(address=REMOTE + 0x100).valid


def test_memory_that_begins_behind_a_hole_is_found(bench: Bench) -> None:
    bench.window()
    bench.card.executor.run_sync(lambda: bench.peer.revoke(_only(bench)))
    bench.peer.hole = 0x4000
    assert bench.window(address=REMOTE + 0x5000).valid
    with pytest.raises(AccessFault, match="nothing there"):
        bench.window(address=REMOTE + 0x3000)


def test_every_initiator_that_had_a_window_faults_once(bench: Bench) -> None:
    window = bench.window()
    bench.peer.revoke(_only(bench))
    assert not window.valid
    with pytest.raises(AccessFault, match="the path was revoked: because"):
        bench.window()
    assert bench.window().valid
    assert bench.dials == 1


@pytest.mark.parametrize("bench", ["p2p:peers=/b"], indirect=True)
def test_a_peer_that_is_not_there_is_not_asked_at_every_access(bench: Bench) -> None:
    now = [100.0]
    bench.card.clock.seconds = lambda: now[0]
    bench.fail = PeerError("nobody")
    for _ in range(5):
        bench.window(Space.SYSTEM, 0x1000)
    assert bench.dials == 1
    now[0] += 1

    def hangs(folder: str, listener: PeerListener) -> Peer:
        bench.dials += 1
        now[0] += 2
        raise PeerError("did not answer")

    bench.card.dial = hangs
    bench.window(Space.SYSTEM, 0x1000)
    now[0] += 15
    bench.window(Space.SYSTEM, 0x1000)
    assert bench.dials == 2, "the longer it took, the longer until the next attempt"
    now[0] += 10
    bench.card.dial = bench.dial
    bench.fail = None
    bench.window(Space.SYSTEM, 0x1000)
    bench.peer.decoded = [PeerBar(0xF0000000, SIZE, "vf1", 2)]
    assert bench.window(Space.SYSTEM, 0xF0001000).owner == "b:vf1"


def test_a_card_that_is_not_served_says_so() -> None:
    card = Card(CardConfig.default("edu").override(interconnects=["remote:card=/b"]))
    card.start()
    try:
        with pytest.raises(AccessFault, match="the card edu is not served, it cannot reach others"):
            card.executor.run_sync(lambda: card.fabric.read(card.functions[0], Space.DEVICE, REMOTE, 4))
    finally:
        card.stop()
