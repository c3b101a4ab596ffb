"""The pool under two cards; no guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vfio_user_xe.emulator.api import AccessFault, Card, CardConfig, CardError, Space

POOL = 0xFE00_0000
SIZE = 1 << 20


def edu(file: Path, *more: str) -> Card:
    """A card with the teaching device and the pool."""
    pool = ",".join([f"memory-pool:file={file}", *more])
    return Card(CardConfig.default("edu").override(interconnects=[pool, "host_dma"]))


@pytest.fixture
def cards(tmp_path: Path) -> Iterator[tuple[Card, Card]]:
    """Two cards, each with half of the pool."""
    two = edu(tmp_path / "pool", "shares=2", "share=0"), edu(tmp_path / "pool", "shares=2", "share=1")
    for card in two:
        card.start()
    yield two
    for card in two:
        card.stop()


def write(card: Card, address: int, data: bytes) -> None:
    """As the card's device does it: on the executor."""
    card.executor.run_sync(lambda: card.fabric.write(card.functions[0], Space.SYSTEM, address, data))


def read(card: Card, address: int, length: int) -> bytes:
    """See `write`."""
    return card.executor.run_sync(lambda: card.fabric.read(card.functions[0], Space.SYSTEM, address, length))


def test_what_one_card_writes_the_other_reads(cards: tuple[Card, Card]) -> None:
    one, two = cards
    write(one, POOL + 16, b"from one")
    write(two, POOL + SIZE // 2, b"from two")
    assert read(two, POOL + 16, 8) == b"from one"
    assert read(one, POOL + SIZE // 2, 8) == b"from two"
    (wrote, was_read) = ([row for row in card.fabric.ledger if row.owner == "pool"] for card in cards)
    assert wrote[0].bytes_written == was_read[0].bytes_read == 8


def test_a_card_writes_to_its_own_share_only(cards: tuple[Card, Card]) -> None:
    one, two = cards
    with pytest.raises(AccessFault, match=r"share of the pool is \[0xfe000000, 0xfe080000\)"):
        write(one, POOL + SIZE // 2, b"x")
    with pytest.raises(AccessFault):
        write(one, POOL + SIZE // 2 - 4, bytes(8))
    assert read(two, POOL + SIZE // 2, 1) == b"\0", "not even the part that is beyond the share"


def test_the_memory_outlives_the_card(tmp_path: Path) -> None:
    first = edu(tmp_path / "pool")
    first.start()
    write(first, POOL, b"kept")
    first.stop()
    second = edu(tmp_path / "pool")
    second.start()
    assert read(second, POOL, 4) == b"kept"
    second.stop()
    assert (tmp_path / "pool").read_bytes()[:4] == b"kept"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("shares=2", "share=2"), "share: there are only 2 shares"),
        (("shares=3",), "shares: 3 shares of 0x100000 bytes are not whole pages"),
        (("size=8192", "shares=4"), "not whole pages"),
        (("size=8191",), "multiple"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(CardError, match=message):
        edu(tmp_path / "pool", *options)


def test_a_file_of_another_size_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_bytes(b"years of work")
    with pytest.raises(CardError, match="0xd bytes long, not 0x100000"):
        edu(tmp_path / "thesis")
    assert (tmp_path / "thesis").read_bytes() == b"years of work"
