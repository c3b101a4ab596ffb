"""Interconnects around interconnects: slower, refusing, breaking, writing down what passes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.model.card import Card, CardConfig, CardError
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport
from vfio_user_xe.plugins import delay
from vfio_user_xe.plugins.delay import Delay
from vfio_user_xe.plugins.fault import Fault
from vfio_user_xe.plugins.p2p import P2p


@contextmanager
def card_with(*interconnects: str) -> Iterator[Card]:
    card = Card(CardConfig.default("edu").override(interconnects=interconnects))
    card.start()
    try:
        function = card.functions[0]
        function.attached(FakeTransport())
        function.config.write(COMMAND, 2, 6)
        card.executor.run_sync(lambda: None)
        yield card
    finally:
        card.stop()


def write(card: Card, address: int, data: bytes) -> None:
    card.executor.run_sync(lambda: card.fabric.write(card.functions[0], Space.SYSTEM, address, data, "test"))


def read(card: Card, address: int, length: int) -> bytes:
    return card.executor.run_sync(lambda: card.fabric.read(card.functions[0], Space.SYSTEM, address, length, "test"))


def test_a_delayed_link_takes_its_latency_and_its_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = create_autospec(time.sleep)
    monkeypatch.setattr(delay, "sleep", sleep)
    with card_with("delay:inner=host_dma,latency_us=1000,bandwidth=1MiB") as card:
        write(card, 0, b"x" * 10486)
        (waited,) = sleep.call_args_list
        assert waited.args[0] == pytest.approx(0.001 + 10486 / (1 << 20))
        assert read(card, 0, 3) == b"xxx"
        (entry,) = card.fabric.ledger
        assert (entry.interconnect, entry.writes, entry.bytes_written) == ("host_dma", 1, 10486)


def test_a_denied_access_is_refused_and_names_the_reason() -> None:
    with card_with("deny:inner=host_dma,access=write") as card:
        assert read(card, 0, 4) == bytes(4)
        with pytest.raises(AccessFault, match="denied: guest's memory over host_dma"):
            write(card, 0, b"no")


def test_only_the_accesses_that_are_meant_are_denied() -> None:
    with card_with("deny:inner=host_dma,initiator=vf9") as card:
        write(card, 0, b"yes")
        assert read(card, 0, 3) == b"yes"


def test_a_fault_fails_once_after_as_many_accesses_as_it_was_told() -> None:
    with card_with("fault:inner=host_dma,after=2") as card:
        write(card, 0, b"1")
        write(card, 1, b"2")
        with pytest.raises(AccessFault, match=r"failed \(injected\)"):
            write(card, 2, b"3")
        write(card, 2, b"4")
        assert read(card, 0, 3) == b"124"


def test_a_fault_corrupts_what_is_read_at_its_page_only() -> None:
    with card_with("fault:inner=host_dma,mode=corrupt,page=2,times=0") as card:
        write(card, 0x1000, b"abc")
        write(card, 0x2000, b"abc")
        assert read(card, 0x1000, 3) == b"abc"
        assert read(card, 0x2000, 3) != b"abc"


def test_a_fault_corrupts_what_is_written_where_its_page_begins() -> None:
    with card_with("fault:inner=host_dma,mode=corrupt,page=2") as card:
        write(card, 0x1FFE, b"abcd")
        written = read(card, 0x1FFE, 4)
        assert (written[:2], written[3:]) == (b"ab", b"d")
        assert written[2] != ord("c")


def test_a_fault_at_a_page_names_the_page() -> None:
    with card_with("fault:inner=host_dma,page=2") as card:
        with pytest.raises(AccessFault) as caught:
            write(card, 0x1000, bytes(0x3000))
        assert caught.value.address == 0x2000
        write(card, 0x3000, b"behind it")


def test_faults_are_armed_together_or_each_by_a_point_of_its_own() -> None:
    with card_with("fault:inner=host_dma,point=ram", "fault:inner=iov,armed=false") as card:
        assert {point["name"]: point["armed"] for point in card.faults.as_list()} == {
            "interconnect.fault": False,
            "ram": True,
        }


def test_a_revoked_path_must_be_opened_anew() -> None:
    with card_with("fault:inner=host_dma,mode=revoke") as card:
        function = card.functions[0]
        window = card.executor.run_sync(
            lambda: card.fabric.window(function, Space.SYSTEM, 0, 64, write=True, kind="test")
        )
        with pytest.raises(AccessFault, match="revoked"):
            card.executor.run_sync(lambda: window.write(0, b"x"))
        assert not window.valid
        write(card, 0, b"again")


def test_a_fault_is_healed_and_armed_at_run_time() -> None:
    with card_with("fault:inner=host_dma,armed=false") as card:
        write(card, 0, b"1")
        point = card.faults.point("interconnect.fault", "the one of the interconnect")
        point.arm(times=0)
        with pytest.raises(AccessFault):
            write(card, 0, b"2")
        point.disarm()
        assert read(card, 0, 1) == b"1"


def test_accesses_are_written_down(tmp_path: Path) -> None:
    file = tmp_path / "accesses.jsonl"
    with card_with(f"record:inner=host_dma,data=true,file={file}") as card:
        write(card, 0x40, b"hi")
        read(card, 0x40, 2)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["access"], line["address"], line["length"], line["data"]) for line in lines] == [
        ("w", 0x40, 2, b"hi".hex()),
        ("r", 0x40, 2, b"hi".hex()),
    ]


def test_wrappers_wrap_wrappers(tmp_path: Path) -> None:
    file = tmp_path / "accesses.jsonl"
    with card_with(f"delay:inner=record:inner=host_dma;file={file},latency_us=0") as card:
        write(card, 0, b"deep")
    assert json.loads(file.read_text())["interconnect"] == "host_dma"


def test_options_of_what_is_wrapped_twice_are_set_apart_by_two_semicolons() -> None:
    with card_with("delay:inner=fault:inner=p2p:registers=false;;acs_redirect=true;mode=corrupt,latency_us=0") as card:
        (delay,) = card.fabric.interconnects
        assert isinstance(delay, Delay)
        assert isinstance(delay.inner, Fault)
        assert isinstance(delay.inner.inner, P2p)
        assert (delay.latency, delay.inner.mode) == (0, "corrupt")
        assert (delay.inner.inner.registers, delay.inner.inner.redirected) == (False, True)


def test_an_unknown_inner_interconnect_is_named() -> None:
    with pytest.raises(CardError, match="nowhere"):
        Card(CardConfig.default("edu").override(interconnects=["delay:inner=nowhere"]))
