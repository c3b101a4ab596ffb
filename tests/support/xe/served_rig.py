"""A served card with a PF and two VFs, each driven by a Python driver over a vfio-user connection of its own.

`attacker` is VF 1, `victim` VF 2; `pf` provisions them as the PF's driver does: LMTT in VRAM, KLVs to the GuC. The GuC's
host side is the one of the unit tests (`guc_driver`); here everything it does goes over sockets and memory that is mapped
from them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.support.wait import eventually
from tests.support.xe.commands import GGTT, sdi
from tests.support.xe.contexts import CAT_ERROR, COPY_CLASS, REMOVE_CONTEXT, SET_MODE, lrc_image, registration
from tests.support.xe.guc_driver import GucDriver
from tests.support.xe.layout import BLOCK, GSM, MIB, SRIOV
from tests.support.xe.provisioning import LMEM_CFG, SUCCESS, configure, lmem_cfg, write_lmtt
from vfio_user_xe.device_models.xe.guc import klv
from vfio_user_xe.emulator.testing.lab import CONFIG, LiveCard, open_card
from vfio_user_xe.emulator.vfio_user.client import Client

RAM = 4 * MIB
CANARY = 0x5AFEC0DE
LMTT = 0x8000000
PF_BUFFERS = 0x1000000
PF_VRAM = 0x10000000
RANGE = 0x1000_0000
STARTS = {1: 0x4000_0000, 2: 0x5000_0000}
QUOTA = 16 * MIB
BLOCKS = {1: [400, 310, 402, 311, 404, 312, 406, 313], 2: [300, 301, 302, 303, 320, 321, 322, 323]}
"""DPA blocks of each VF, by GDPA block: scattered for the attacker, next to the victim's."""
COMMAND = 0x04
MSI_CAPABILITY = 0xAC

# Where things are in a VF's GGTT, from the start of its range (which leads to GDPA 0 on).
BUFFERS, CONTEXTS, RESULT = 0x0, 0x10_0000, 0x8_0000
CONTEXT_SIZE = 0x1_0000


class Space:
    """A function's GGTT, as its driver reads and writes it: through its own entries, VRAM window and memory."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def read(self, address: int, length: int) -> bytes:
        return b"".join(bytes(view) for view in self._views(address, length))

    def write(self, address: int, data: bytes) -> None:
        for view in self._views(address, len(data)):
            view[:], data = data[: len(view)], data[len(view) :]

    def _views(self, address: int, length: int) -> Iterator[memoryview]:
        while length:
            entry = self._side.entry(address >> 12)
            count = min(length, 0x1000 - (address & 0xFFF))
            target = (entry & 0x000F_FFFF_FFFF_F000) | address & 0xFFF
            yield self._side.vram(target, count) if entry & 2 else self._side.ram(target, count)
            address += count
            length -= count


class TrappedEntries:
    """A GGTT window that cannot be mapped: a message for each entry."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getitem__(self, page: int) -> int:
        return self._client.read(0, GSM + 8 * page, 8)

    def __setitem__(self, page: int, entry: int) -> None:
        self._client.write(0, GSM + 8 * page, 8, entry)


class Side:
    """One function: its connection, its mapped windows, its guest's memory."""

    def __init__(self, card: LiveCard, vfid: int) -> None:
        self.vfid = vfid
        self.name = f"vf{vfid}" if vfid else "pf"
        self.client: Client = card.client(self.name)
        self.entries: Any = TrappedEntries(self.client)
        if self.client.region_info(0).mappable:
            self._bar0 = self.client.map_region(0)
            self.entries = self._bar0.at(GSM, 8 * MIB).cast("Q")
        self._bar2 = self.client.map_region(2)
        self._ram = self.client.map_memory(0, RAM)
        self.msi = self.client.enable_irqs(1, 1)[0]
        control = self.client.read(CONFIG, MSI_CAPABILITY + 2, 2)
        self.client.write(CONFIG, MSI_CAPABILITY + 2, 2, control | 1)
        self.client.write(CONFIG, COMMAND, 2, 6)
        self.client.serve_in_background()
        self.ggtt_space = Space(self)

    def vram(self, address: int, length: int) -> memoryview:
        return self._bar2.at(address, length)

    def poke(self, address: int, data: bytes) -> None:
        self.vram(address, len(data))[:] = data

    def ram(self, address: int, length: int) -> memoryview:
        return self._ram.at(address, length)

    def entry(self, page: int) -> int:
        return int(self.entries[page])

    def map_vram(self, ggtt: int, address: int, size: int) -> None:
        for offset in range(0, size, 0x1000):
            self.entries[(ggtt + offset) >> 12] = address + offset | 3

    def canaries(self) -> list[int]:
        """Dwords that nobody but this function may change."""
        memories = [self.ram(at, 4) for at in (0, RAM // 2, RAM - 4)]
        if self.vfid:
            memories += [self.vram(at, 4) for at in (QUOTA - 4, QUOTA - BLOCK, QUOTA - 2 * BLOCK)]
        else:
            memories += [self.vram(at, 4) for at in (0, 309 * BLOCK, 314 * BLOCK, 399 * BLOCK, 401 * BLOCK)]
        return [int.from_bytes(view, "little") for view in memories]

    def set_canaries(self) -> None:
        for at in (0, RAM // 2, RAM - 4):
            self.ram(at, 4)[:] = CANARY.to_bytes(4, "little")
        places = (QUOTA - 4, QUOTA - BLOCK, QUOTA - 2 * BLOCK)
        for at in places if self.vfid else (0, 309 * BLOCK, 314 * BLOCK, 399 * BLOCK, 401 * BLOCK):
            self.vram(at, 4)[:] = CANARY.to_bytes(4, "little")


class Bench:
    """What `GucDriver` drives, over sockets."""

    def __init__(self, card: LiveCard, sides: dict[int, Side]) -> None:
        self.card = card
        self._sides = sides

    def read(self, offset: int, vfid: int = 0) -> int:
        return self._sides[vfid].client.read(0, offset, 4)

    def write(self, offset: int, value: int, vfid: int = 0) -> None:
        self._sides[vfid].client.write(0, offset, 4, value)

    def settle(self) -> None:
        """Until the card's executor has done what is queued now: it answers this command."""
        for _ in range(3):
            self.card.call("ledger")

    def ggtt(self, vfid: int) -> Space:
        return self._sides[vfid].ggtt_space


class Rig:
    """A card with its drivers; `starts` and `blocks` are the VFs' GGTT ranges and VRAM."""

    def __init__(
        self, card: LiveCard, starts: Mapping[int, int] = STARTS, blocks: Mapping[int, list[int]] = BLOCKS
    ) -> None:
        self.card = card
        self.starts, self.blocks = starts, blocks
        self.sides = {vfid: Side(card, vfid) for vfid in (0, 1, 2)}
        self.pf_side, self.attacker, self.victim = self.sides.values()
        self.bench = Bench(card, self.sides)
        self.pf_side.map_vram(PF_BUFFERS, PF_VRAM, 2 * MIB)
        self.pf = GucDriver(self.bench, base=PF_BUFFERS)
        self.pf.boot()
        self.pf.start_ct()
        self._provision()
        self.drivers = {0: self.pf, **{vfid: self._start_vf(vfid) for vfid in (1, 2)}}
        for side in self.sides.values():
            side.set_canaries()

    def close(self) -> None:
        for side in self.sides.values():
            side.client.close()

    def _provision(self) -> None:
        pf = self.pf_side
        config = pf.client
        config.write(CONFIG, SRIOV + 0x10, 2, 2)
        config.write(CONFIG, SRIOV + 0x08, 2, 1)
        for vfid, blocks in self.blocks.items():
            write_lmtt(pf.poke, LMTT, vfid, dict(enumerate(blocks)))
        self.bench.write(LMEM_CFG, lmem_cfg(LMTT))
        for vfid in self.blocks:
            self.configure(
                vfid,
                {
                    klv.GGTT_START: self.starts[vfid],
                    klv.GGTT_SIZE: RANGE,
                    klv.LMEM_SIZE: QUOTA,
                    klv.NUM_CONTEXTS: 64,
                    klv.NUM_DOORBELLS: 8,
                    klv.EXEC_QUANTUM: 5,
                    klv.PREEMPT_TIMEOUT: 20_000,
                },
            )
        self.pf.send(0x7002, 1, 0x80000000)
        self.pf.received()

    def configure(self, vfid: int, values: dict[int, int]) -> None:
        assert configure(self.pf, vfid, values) == SUCCESS | len(values)

    def _start_vf(self, vfid: int) -> GucDriver[Bench]:
        side, start = self.sides[vfid], self.starts[vfid]
        side.map_vram(start, 0, 8 * MIB)
        driver = GucDriver(self.bench, vfid=vfid, base=start + BUFFERS)
        assert driver.mmio(0x5507)[0] == 0xF0000000
        driver.start_ct()
        return driver

    def restart(self, vfid: int) -> GucDriver[Bench]:
        """The VF's driver begins anew, with good addresses."""
        self.drivers[vfid] = self._start_vf(vfid)
        return self.drivers[vfid]

    # Work.

    def context(self, vfid: int, number: int, ring: list[int], **image: int) -> int:
        """Memory of a context without a PPGTT that executes `ring`; its LRC descriptor. `image` overrides dwords."""
        base = self.starts[vfid] + CONTEXTS + number * CONTEXT_SIZE
        space = self.sides[vfid].ggtt_space
        space.write(base, bytes(CONTEXT_SIZE))
        values = lrc_image(base + 0x4000, 0x4000, tail=4 * len(ring))
        values |= {int(name[1:], 16): value for name, value in image.items()}
        for index, value in values.items():
            space.write(base + 0x1000 + 4 * index, struct.pack("<I", value))
        space.write(base + 0x4000, struct.pack(f"<{len(ring)}I", *ring))
        return base | 0x19

    def submit(self, vfid: int, number: int, descriptor: int) -> None:
        """Register and enable context `number` on the copy engine."""
        driver = self.drivers[vfid]
        driver.send(*registration(number, COPY_CLASS, 1, descriptor))
        driver.send(SET_MODE, number, 1)

    def remove(self, vfid: int, number: int) -> None:
        self.drivers[vfid].send(REMOVE_CONTEXT, number)
        self.drivers[vfid].received()

    def events(self, vfid: int, wanted: int) -> list[tuple[int, ...]]:
        """Events of the VF until the wanted action is among them. AssertionError when it does not come."""
        found: list[tuple[int, ...]] = []

        def came() -> bool:
            self.bench.settle()
            found.extend(message for _, message in self.drivers[vfid].received())
            return any(message[0] & 0xFFFF == wanted for message in found)

        eventually(came, lambda: f"action {wanted:#x} among {found}")
        return found

    def expect_cat_error(self, vfid: int, number: int) -> None:
        """The GuC tells that context `number` made an access that leads nowhere."""
        found = self.events(vfid, CAT_ERROR)
        assert any(message[0] & 0xFFFF == CAT_ERROR and message[1] == number for message in found), found

    def works(self, vfid: int) -> None:
        """The function's context runs to its end: it stores a value through its GGTT."""
        number, value = 60, 0xC0DE0000 + vfid
        space, result = self.sides[vfid].ggtt_space, self.starts[vfid] + RESULT
        space.write(result, bytes(4))
        descriptor = self.context(vfid, number, store(result, value))
        self.submit(vfid, number, descriptor)
        eventually(lambda: space.read(result, 4) == struct.pack("<I", value), f"the job of VF {vfid} did not run")
        self.remove(vfid, number)

    def others_are_fine(self) -> None:
        """Nothing of PF and victim was changed, and both go on working."""
        assert set(self.pf_side.canaries()) == {CANARY}
        assert set(self.victim.canaries()) == {CANARY}
        self.works(2)
        answer, _ = self.pf.request(0x5503, 0, 0, 0, 0)
        assert answer == (0xF0000000,)
        assert self.card.call("status")["executor"]["failures"] == 0

    def ledger(self, initiator: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.card.call("ledger")
        return [row for row in rows if row["initiator"] == initiator]


def store(address: int, value: int, *, ggtt: bool = True) -> list[int]:
    """MI_STORE_DATA_IMM of a dword, padded to whole qwords."""
    return [*sdi(address, value, flags=GGTT if ggtt else 0)]


@contextmanager
def open_rig(*serve: str, **places: Any) -> Iterator[Rig]:
    """A card of 1 GiB with two VFs, its three drivers running.

    `serve` are further arguments of `vfio-user-xe serve`, `places` as `Rig` takes them.
    """
    with ExitStack() as stack:
        card = stack.enter_context(open_card(["--vfs", "2", "--set", "vram=1GiB", "--set", "vf_bar2=64MiB", *serve]))
        rig = Rig(card, **places)
        stack.callback(rig.close)
        yield rig
