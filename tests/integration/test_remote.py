"""Memory of a card in another server process: `remote`, and `p2p` with peers. The owner is a process, the importer is here."""

from __future__ import annotations

import gc
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import NonCallableMock, create_autospec

import pytest

from tests.support.processes import descriptors, is_stopped, no_descriptors_left
from tests.support.wait import eventually
from tests.support.xe.commands import END, SOURCE_VA, TARGET_VA, mem_copy, sdi
from tests.support.xe.engine_lab import DATA_VA, Lab
from tests.support.xe.remote_owner import FLR, PCIE, PF_BAR0, PF_BAR2, VF_BAR2, Owner, serving
from tests.support.xe.rig import MIB
from tests.support.xe.served_rig import BLOCKS, LMTT, STARTS, Rig, open_rig, store
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space, Window
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.options import check_options
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport
from vfio_user_xe.emulator.testing.lab import CONFIG, open_card
from vfio_user_xe.emulator.vfio_user import memory_client
from vfio_user_xe.emulator.vfio_user.memory_client import dial
from vfio_user_xe.plugins.remote import Remote

REMOTE = 1 << 40
SCRATCH = 0x190240
FOUR = 4


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner may be slow to answer on a busy machine; what the importer makes of that has a test of its own."""
    monkeypatch.setattr(memory_client, "PATIENCE", 60.0)


@pytest.fixture(scope="module")
def shared() -> Iterator[Owner]:
    with serving() as made:
        yield made


@pytest.fixture
def owner(shared: Owner) -> Owner:
    """One that no test ends."""
    shared.program()
    return shared


@pytest.fixture
def mortal() -> Iterator[Owner]:
    with serving() as made:
        yield made


@contextmanager
def importing(*interconnects: str) -> Iterator[Card]:
    config = CardConfig.default("xe").override(
        vfs=1, settings=["name=a", "vram=1GiB"], interconnects=[*interconnects, "iov", "host_dma"]
    )
    card = Card(config)
    card.dial = dial
    card.start()
    try:
        card.functions[0].attached(FakeTransport())
        card.functions[0].config.write(COMMAND, 2, 6)
        yield card
    finally:
        card.stop()


def remote(owner: Owner, *more: str) -> str:
    return ",".join([f"remote:card={owner.folder}", *more])


def on(card: Card, work: Callable[[], Any]) -> Any:
    return card.executor.run_sync(work, 30)


def read(card: Card, address: int, length: int, space: str = Space.DEVICE) -> bytes:
    return bytes(on(card, lambda: card.fabric.read(card.functions[0], space, address, length, "vram")))


def write(card: Card, address: int, data: bytes, space: str = Space.DEVICE) -> None:
    on(card, lambda: card.fabric.write(card.functions[0], space, address, data, "vram"))


def held(card: Card, address: int = REMOTE, length: int = MIB, space: str = Space.DEVICE) -> Window:
    window = on(card, lambda: card.fabric.window(card.functions[0], space, address, length, write=True, kind="vram"))
    assert isinstance(window, Window)
    return window


def test_memory_of_a_vf_in_another_process_is_read_and_written_in_place(owner: Owner) -> None:
    owner.memory(0x3000, 5)[:] = b"hello"
    with importing(remote(owner)) as card:
        assert read(card, REMOTE + 0x3000, 5) == b"hello"
        write(card, REMOTE + 0x3005, b" world")
        assert bytes(owner.memory(0x3000, 11)) == b"hello world"
        assert held(card).view is not None
        (leases,) = owner.card.call("leases")
        assert (leases["function"], leases["address"], leases["length"]) == ("vf1", 0, 64 * MIB)
    eventually(lambda: owner.card.call("leases") == [])


def test_accesses_are_accounted_to_the_owner_named_with_its_card(owner: Owner) -> None:
    with importing(remote(owner)) as card:
        read(card, REMOTE, 64)
        write(card, REMOTE, bytes(32))
        (entry,) = card.fabric.ledger
        assert (entry.initiator, entry.owner, entry.interconnect, entry.kind) == ("pf", "b:vf1", "remote", "vram")
        assert (entry.bytes_read, entry.bytes_written) == (64, 32)
        verdicts = card.fabric.ledger.verdicts(["pf", "vf1"])
        assert [(path["owner"], path["path"]) for path in verdicts["paths"]] == [("b:vf1", "remote")]


def test_a_part_of_it_appears_where_the_options_say_and_ends_there(owner: Owner) -> None:
    owner.memory(MIB, 4)[:] = b"part"
    options = ("offset=1MiB", "length=4KiB", "address=0x200000000", "space=system", "write=false")
    with importing(remote(owner, *options)) as card:
        assert read(card, 0x2_0000_0000, 4, Space.SYSTEM) == b"part"
        with pytest.raises(AccessFault, match="may only be read"):
            write(card, 0x2_0000_0000, b"x", Space.SYSTEM)
        with pytest.raises(AccessFault, match="no interconnect reaches it"):
            read(card, 0x2_0000_1000, 4, Space.SYSTEM)


def test_the_pf_s_memory_is_given_up_to_the_first_block_that_is_a_vf_s(owner: Owner) -> None:
    vram = 1 << 30
    with importing(remote(owner, "function=pf", "length=1GiB")) as card:
        window = held(card, length=vram)
        assert (window.owner, window.length) == ("b:pf", vram - 64 * MIB)
        assert held(card, REMOTE + window.length).owner == "b:vf1"


@pytest.mark.parametrize("how", ["VF disabled", "FLR of the VF", "FLR of the PF"])
def test_windows_are_invalid_when_the_owner_takes_its_memory_back(owner: Owner, how: str) -> None:
    with importing(remote(owner)) as card:
        window = held(card)
        window.write(0, b"before")
        assert window.view is not None
        if how == "VF disabled":
            owner.disable()
        else:
            (owner.vf if "VF" in how else owner.pf).write(CONFIG, PCIE + 8, 2, FLR)
            owner.settle()
        # The owner waits until it is known here, but for a moment only (leases.PATIENCE).
        eventually(lambda: not window.valid)
        with pytest.raises(AccessFault, match="path to b:vf1 was revoked"):
            window.read(0, 1)
        with pytest.raises(AccessFault, match="the path was revoked: "):
            read(card, REMOTE, 4)


def test_after_a_revocation_the_memory_is_asked_for_anew(owner: Owner) -> None:
    with importing(remote(owner)) as card:
        held(card).write(0, b"secret")
        window = held(card)
        view = window.view
        assert view is not None
        owner.disable()
        eventually(lambda: not window.valid)
        with pytest.raises(AccessFault, match="was revoked"):
            read(card, REMOTE, 4)
        with pytest.raises(AccessFault, match="LMTT gives vf1 nothing there"):
            read(card, REMOTE, 4)
        assert not any(view), "who still looks at the old place sees that the block has moved"
        owner.enable()
        assert len(read(card, REMOTE, 6)) == 6


def test_a_path_that_nobody_held_is_no_fault(owner: Owner) -> None:
    with importing(remote(owner)) as card:
        read(card, REMOTE, 4)
        owner.vf.write(CONFIG, PCIE + 8, 2, FLR)
        owner.settle()
        assert len(read(card, REMOTE, 4)) == 4


def test_the_owner_s_sudden_death_takes_its_memory_along(mortal: Owner) -> None:
    with importing(remote(mortal)) as card:
        window = held(card)
        os.kill(mortal.card.pid, signal.SIGKILL)
        eventually(lambda: not window.valid)
        with pytest.raises(AccessFault, match="the card b is gone"):
            read(card, REMOTE, 4)
        with pytest.raises(AccessFault, match="no card is served at"):
            read(card, REMOTE, 4)
        assert card.executor.failures == 0


def test_a_card_that_hangs_costs_the_access_not_the_importer(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_client, "PATIENCE", 2.0)
    with importing(remote(owner)) as card:
        os.kill(owner.card.pid, signal.SIGSTOP)
        try:
            eventually(lambda: is_stopped(owner.card.pid))
            with pytest.raises(AccessFault, match="did not answer"):
                read(card, REMOTE, 4)
        finally:
            os.kill(owner.card.pid, signal.SIGCONT)
        eventually(lambda: _works(card))
        eventually(lambda: len(owner.card.call("leases")) == 1)


def _works(card: Card) -> bool:
    try:
        return len(read(card, REMOTE, 4)) == FOUR
    except AccessFault:
        return False


def test_an_importer_that_dies_gives_its_leases_back(owner: Owner) -> None:
    arguments = ["--set", "vram=1GiB", "--interconnect", remote(owner), "--interconnect", "iov"]
    with open_card(arguments) as importer:
        importer.call("read", function="pf", space="device", address=REMOTE, length=4)
        assert len(owner.card.call("leases")) == 1
        os.kill(importer.pid, signal.SIGKILL)
        eventually(lambda: owner.card.call("leases") == [])
        owner.disable()


def test_descriptors_are_given_back_on_both_sides(owner: Owner) -> None:
    owner.settle()
    there = len(descriptors(owner.card.pid))
    with no_descriptors_left():
        for _ in range(3):
            with importing(remote(owner)) as card:
                for _ in range(5):
                    read(card, REMOTE, 4)
                    owner.vf.write(CONFIG, PCIE + 8, 2, FLR)
                    owner.settle()
        eventually(lambda: len(descriptors(owner.card.pid)) <= there)
        del card
        gc.collect()


def test_an_import_that_a_wrapper_is_around_is_revoked_too(owner: Owner) -> None:
    inner = remote(owner).replace(",", ";")
    with importing(f"delay:inner={inner},latency_us=0") as card:
        window = held(card)
        window.write(0, b"slow")
        owner.disable()
        eventually(lambda: not window.valid)
        with pytest.raises(AccessFault, match="the path was revoked"):
            read(card, REMOTE, 4)


# p2p to another card


def test_a_bus_address_reaches_the_bar_of_a_card_in_another_process(owner: Owner) -> None:
    owner.memory(0x5000, 4)[:] = b"peer"
    with importing(f"p2p:peers={owner.folder}") as card:
        assert read(card, VF_BAR2 + 0x5000, 4, Space.SYSTEM) == b"peer"
        write(card, PF_BAR2 + 0x100, b"to the pf", Space.SYSTEM)
        assert bytes(owner.pf.map_region(2).at(0x100, 9)) == b"to the pf"
        rows = {(row.owner, row.interconnect) for row in card.fabric.ledger}
        assert rows == {("b:vf1", "p2p"), ("b:pf", "p2p")}
        paths = card.fabric.ledger.verdicts(["pf", "vf1"])["paths"]
        assert {path["path"] for path in paths} == {"legacy"}


def test_registers_of_another_card_are_reached_by_messages(owner: Owner) -> None:
    with importing(f"p2p:peers={owner.folder}") as card:
        write(card, PF_BAR0 + SCRATCH, (0x12345678).to_bytes(4, "little"), Space.SYSTEM)
        assert owner.pf.read(0, SCRATCH, 4) == 0x12345678
        assert read(card, PF_BAR0 + SCRATCH, 4, Space.SYSTEM) == (0x12345678).to_bytes(4, "little")


def test_a_bar_of_another_card_that_is_switched_off_is_left_to_the_next_interconnect(owner: Owner) -> None:
    with importing(f"p2p:peers={owner.folder}") as card:
        window = held(card, PF_BAR2, space=Space.SYSTEM)
        owner.pf.write(CONFIG, COMMAND, 2, 4)
        eventually(lambda: not window.valid)
        with pytest.raises(AccessFault, match=r"the path was revoked: pf's BAR2 is not decoded|no interconnect"):
            read(card, PF_BAR2, 4, Space.SYSTEM)
        eventually(lambda: _faults_with(card, PF_BAR2, "no interconnect reaches it"))
        owner.pf.write(CONFIG, COMMAND, 2, 6)
        eventually(lambda: not _faults_with(card, PF_BAR2, ""))


def _faults_with(card: Card, address: int, reason: str) -> bool:
    try:
        read(card, address, 4, Space.SYSTEM)
    except AccessFault as fault:
        return reason in fault.reason
    return False


def test_a_vf_bar_of_another_card_without_memory_behind_it_reads_all_ones(owner: Owner) -> None:
    with importing(f"p2p:peers={owner.folder}") as card:
        # An LMTT that gives nothing to anybody.
        owner.pf.map_region(2).at(0x8000000, 4096)[:] = bytes(4096)
        owner.pf.write(0, 0x48B0, 4, 1 << 31 | 0x8000000 >> 16)
        owner.settle()
        assert read(card, VF_BAR2 + 0x1000, 4, Space.SYSTEM) == b"\xff" * 4
        assert {row.owner for row in card.fabric.ledger} == {"none"}
        nothing = held(card, VF_BAR2 + 0x1000, 4, Space.SYSTEM)
        owner.program()
        eventually(lambda: not nothing.valid)
        owner.memory(0x1000, 4)[:] = b"some"
        assert read(card, VF_BAR2 + 0x1000, 4, Space.SYSTEM) == b"some"


def test_a_peer_may_come_later_and_nobody_is_missed_before(tmp_path: Any) -> None:
    with importing(f"p2p:peers={tmp_path / 'nobody'}") as card:
        write(card, 0x1000, b"ram", Space.SYSTEM)
        assert {row.interconnect for row in card.fabric.ledger} == {"host_dma"}


# What the owner's side tells.


def test_the_command_prints_times_and_the_history_of_one_page(owner: Owner) -> None:
    last = (1 << 30) - 4096
    owner.card.call("read", function="vf1", space="device", address=0, length=4)
    command = [sys.executable, "-m", "vfio_user_xe.emulator", "ledger", "--socket-dir", str(owner.folder)]

    def run(*arguments: str) -> list[str]:
        shown = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=200, check=True)
        return shown.stdout.splitlines()

    assert re.search(r"vf1 .*control.* \d+\.\d{3} s .* \d+\.\d{3} s", "\n".join(run()))
    history = run("--page", hex(last))
    assert history[-1].endswith("went from pf to vf1")
    assert not any("went from" in line for line in run("--page", "0"))


# An engine in the middle of a copy.


@pytest.mark.parametrize("how", ["taken away", "killed"])
def test_a_copy_under_way_ends_in_a_fault_of_its_job_and_the_next_job_runs(mortal: Owner, how: str) -> None:
    size = 32 * MIB
    lab = Lab()
    try:
        executor = create_autospec(Executor, instance=True)
        executor.settle.return_value, executor.submit.side_effect = True, lab.executor.submit
        card = NonCallableMock(
            spec=Card, fabric=lab.fabric, dial=dial, executor=executor, clock=CardClock(), on_stop=[]
        )
        card.name = "a"
        options = check_options(Remote.OPTIONS, {"card": str(mortal.folder)})
        lab.fabric.interconnects = [Remote(card, options), *lab.fabric.interconnects]
        job = lab.job()
        for offset in range(0, size, 2 * MIB):
            large = 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY
            job.tables.entry(SOURCE_VA + offset, 1, REMOTE + offset | large)
            job.tables.entry(TARGET_VA + offset, 1, 24 * MIB + offset | large)
        mortal.memory(0, size)[:] = b"\x5a" * size
        job.batch(*mem_copy(size // 256, flags=1 << 19), END)
        job.ring(*job.start())
        job.submit()
        copied = lab.fabric.ledger.entry("pf", "b:vf1", "remote", "vram")
        lab.run(until=lambda: copied.reads > 0)
        if how == "killed":
            os.kill(mortal.card.pid, signal.SIGKILL)
            eventually(lambda: all(w.entry.interconnect != "remote" for w in lab.fabric.open_windows()))
        else:
            mortal.disable()
        lab.run()
        (fault,) = lab.listener.faults
        assert "the path was revoked" in str(fault)
        assert 0 < copied.bytes_read < size
        assert lab.vram.memory.view[24 * MIB : 24 * MIB + 4] == b"ZZZZ"
        assert lab.vram.memory.view[24 * MIB + copied.bytes_read : 24 * MIB + size] == bytes(size - copied.bytes_read)
        after = lab.execute(*sdi(DATA_VA, 0xCAFE))
        assert after.data() == [0xCAFE]
        for close in card.on_stop:
            close()
    finally:
        lab.close()


def test_a_job_of_a_served_card_reaches_the_other_server_s_memory_and_faults_when_that_is_killed(mortal: Owner) -> None:
    links = [remote(mortal), "iov", "p2p", "host_dma"]
    with open_rig(*(word for link in links for word in ("--interconnect", link))) as rig:
        target = STARTS[1] + 32 * MIB
        rig.attacker.entries[target >> 12] = REMOTE | 3
        rig.submit(1, 1, rig.context(1, 1, store(target + 8, 0x600D)))
        eventually(lambda: bytes(mortal.memory(8, 4)) == (0x600D).to_bytes(4, "little"))
        rig.remove(1, 1)
        rows = [(row["owner"], row["interconnect"]) for row in rig.ledger("vf1") if row["interconnect"] == "remote"]
        assert rows == [("b:vf1", "remote")]
        assert rig.card.call("verdicts")["foreign"], "a VF in another function's memory"

        os.kill(mortal.card.pid, signal.SIGKILL)
        eventually(lambda: all(window["interconnect"] != "remote" for window in rig.card.call("windows")))
        rig.submit(1, 2, rig.context(1, 2, store(target + 8, 0xBAD)))
        rig.expect_cat_error(1, 2)
        rig.restart(1)
        rig.works(1)
        rig.others_are_fine()


# An owner whose PF has a driver.

BLOCK = 2 * MIB


@contextmanager
def provisioned() -> Iterator[tuple[Rig, Card]]:
    """The card `b` with LMTT and drivers for all its functions; the importer of VF 1's 16 MiB."""
    with open_rig("--set", "name=b") as rig, importing(f"remote:card={rig.card.folder},length=16MiB") as card:
        yield rig, card


def test_memory_that_the_pf_s_driver_provisions_anew_is_taken_back() -> None:
    with provisioned() as (rig, card):
        rig.attacker.vram(BLOCK, 3)[:] = b"old"
        window = held(card, REMOTE + BLOCK)
        assert window.read(0, 3) == b"old"
        # GDPA block 1 is another DPA block from now on; what was there is the PF's.
        leaf = LMTT + 0x20000 + 0x10000
        rig.pf_side.vram(leaf + 4, 4)[:] = struct.pack("<I", 440 << 5 | 1)
        rig.pf_side.vram(440 * BLOCK, 3)[:] = b"new"
        rig.bench.write(0x48B0, 1 << 31 | LMTT >> 16)
        rig.bench.settle()
        assert not window.valid
        with pytest.raises(AccessFault, match="the path was revoked: the memory has changed hands"):
            read(card, REMOTE + BLOCK, 3)
        assert read(card, REMOTE + BLOCK, 3) == b"new"
        assert bytes(rig.pf_side.vram(BLOCKS[1][1] * BLOCK, 3)) == b"old"


def test_while_the_pf_s_driver_resets_the_owner_its_memory_is_refused_and_the_importer_knows_why() -> None:
    flr_start, flr_finish = 4, 5
    with provisioned() as (rig, card):
        window = held(card)
        answer, _ = rig.pf.request(0x5506, 1, flr_start)
        assert answer == (0xF0000000,)
        assert not window.valid
        for reason in ("the path was revoked: vf1 is being reset", "vf1 is being reset"):
            with pytest.raises(AccessFault, match=reason):
                read(card, REMOTE, 4)
        ownership = card.fabric.ledger.ownership
        eventually(lambda: [reset["owner"] for reset in ownership.resets_as_list()] == ["b:vf1"])
        rig.pf.request(0x5506, 1, flr_finish)
        eventually(lambda: all(reset["ended"] is not None for reset in ownership.resets_as_list()))
        assert len(read(card, REMOTE, 4)) == FOUR
        assert card.fabric.ledger.verdicts(["pf", "vf1"])["stale"] == []
