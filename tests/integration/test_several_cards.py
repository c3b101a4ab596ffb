"""A lab with more than one card: what its guest would be started with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from vfio_user_xe.emulator.guest.guest import GuestSpec
from vfio_user_xe.emulator.testing import lab as labs


def test_cards_of_one_guest_are_behind_ports_of_their_own_and_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    specs: list[GuestSpec] = []

    @contextlib.contextmanager
    def guest(spec: GuestSpec) -> Iterator[Any]:
        specs.append(spec)
        yield object()

    monkeypatch.setattr(labs, "BlockingGuest", guest)
    with labs.open_lab(["--vfs", "1"], others=[["--vfs", "2"]]) as lab:
        cards = [lab.card, *lab.others]
        assert [len(card.description.functions) for card in cards] == [2, 3]
        assert all(card.alive for card in cards)
    assert not any(card.alive for card in cards)
    arguments = list(specs[0].machine.arguments)
    ports = [argument for argument in arguments if argument.startswith("pcie-root-port")]
    assert len({port.partition("chassis=")[2].partition(",")[0] for port in ports}) == 2
    assert len({port.partition("id=")[2].partition(",")[0] for port in ports}) == 2
    assert arguments.count("-qtest") == 1, "QEMU has one"
    assert sum("vfio-user-pci" in argument for argument in arguments) == 5
