"""A VF's driver that sends what it likes to the GuC, over sockets: PF and another VF go on, and nothing of theirs changes."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from random import Random
from typing import ClassVar

from tests.fuzz.campaign.target import Target, dword
from tests.support.xe.provisioning import SUCCESS, klvs
from tests.support.xe.served_rig import (
    BUFFERS,
    CONTEXTS,
    LMTT,
    QUOTA,
    RANGE,
    STARTS,
    Rig,
    open_rig,
    store,
)
from vfio_user_xe.device_models.xe.guc import klv
from vfio_user_xe.device_models.xe.guc.actions import H2G

START, VICTIM = STARTS[1], STARTS[2]
_GOOD = {klv.GGTT_START: START, klv.GGTT_SIZE: RANGE, klv.LMEM_SIZE: QUOTA, klv.NUM_CONTEXTS: 64, klv.NUM_DOORBELLS: 8}
_KEYS = sorted(klv.KEYS)
_ACTIONS = tuple(H2G)


def address(random: Random) -> int:
    """A GGTT address: of its own, the victim's, or of nobody."""
    return random.choice((START, START + BUFFERS, START + CONTEXTS, VICTIM, LMTT, 0, 1 << 31, 0xFFFFF000)) + (
        random.randrange(0, 0x10000, 4) if random.random() < 0.5 else 0
    )


def word(random: Random) -> int:
    """A word of a message."""
    return address(random) & 0xFFFFFFFF if random.random() < 0.3 else dword(random)


class OnTheRig(Target):
    """A served card with PF and two VFs; the attacker is VF 1."""

    unit, fresh = "messages", 40
    seconds: ClassVar[float] = 240.0

    def open(self) -> None:
        self._stack = ExitStack()
        self.rig: Rig = self._stack.enter_context(open_rig())

    def close(self) -> None:
        self._stack.close()
        self.__dict__.pop("rig", None)  # what it has mapped goes with it

    def check(self) -> None:
        """The attacker's driver begins anew and works, as do the others."""
        rig = self.rig
        rig.restart(1)
        rig.works(1)
        rig.others_are_fine()


class GucMessages(OnTheRig):
    """Requests with known and unknown actions, of any length, in rings and in the mailbox."""

    name = "guc"

    def case(self, random: Random) -> int:
        driver = self.rig.drivers[1]
        many = random.randrange(5, 60)
        for _ in range(many):
            action = random.choice(_ACTIONS) if random.random() < 0.85 else random.getrandbits(16)
            head = action | (random.getrandbits(12) << 16 if random.random() < 0.2 else 0)
            words = [word(random) for _ in range(random.choice((0, 1, 2, 3, 4, 5, 8, 12, 20, 60)))]
            if random.random() < 0.1:
                driver.mmio(head | random.randrange(8) << 28, *words[:3])
            else:
                driver.send(head, *words, kind=random.choice((0, 0, 1, 2, 2, 3, 5, 6, 7)))
            if random.random() < 0.2:
                driver.received()
        self.check()
        return many


class Klvs(OnTheRig):
    """Keys, lengths and values that a PF may configure a VF with, and a VF may ask for."""

    name, unit = "klvs", "keys"

    def case(self, random: Random) -> int:
        pf, keys = self.rig.pf, 0
        for _ in range(random.randrange(1, 8)):
            words: list[int] = []
            for _ in range(random.randrange(1, 12)):
                key = random.choice(_KEYS) if random.random() < 0.9 else random.getrandbits(16)
                length = random.choice((1, 1, 2, 2, 0, 3, 0xFFFF))
                words += [key << 16 | length, *(word(random) for _ in range(min(length, 4)))]
                keys += 1
            pf.poke_dwords(pf.buffer, *words)
            pf.request(0x5503, 1, pf.buffer, 0, random.choice((len(words), len(words) - 1, len(words) + 1, 0)))
            self.rig.drivers[1].mmio(0x5508, random.choice(_KEYS) << 16)
        # As a PF does before it gives a VF something else: nothing at all, then what it is to have.
        self._configure(dict.fromkeys(_GOOD, 0))
        assert self._configure(_GOOD) == SUCCESS | len(_GOOD)
        self.check()
        return keys

    def _configure(self, values: dict[int, int]) -> int:
        pf, words = self.rig.pf, klvs(values)
        pf.poke_dwords(pf.buffer, *words)
        return pf.request(0x5503, 1, pf.buffer, 0, len(words))[0][0]


class Contexts(OnTheRig):
    """Contexts whose image, ring and descriptor are anything."""

    name, unit = "contexts", "contexts"

    def case(self, random: Random) -> int:
        rig, many = self.rig, random.randrange(1, 8)
        for number in range(1, many + 1):
            target = address(random) if random.random() < 0.5 else START + CONTEXTS
            descriptor = rig.context(1, number, store(target, 0xBAD))
            image = START + CONTEXTS + number * 0x10000 + 0x1000
            space = rig.attacker.ggtt_space
            for _ in range(random.randrange(0, 12)):
                space.write(image + 4 * random.randrange(0x60), struct.pack("<I", word(random)))
            if random.random() < 0.2:
                descriptor = (address(random) & ~0xFFF) | random.getrandbits(12)
            rig.submit(1, number, descriptor)
        self.check()
        return many


class PageTables(OnTheRig):
    """GGTT entries and page tables of a VF that lead anywhere."""

    name, unit = "page-tables", "entries"

    def case(self, random: Random) -> int:
        rig, entries = self.rig, 0
        side = rig.attacker
        spare = (START + (32 << 20)) >> 12
        for _ in range(random.randrange(1, 40)):
            page = spare + random.randrange(64) if random.random() < 0.7 else (VICTIM >> 12) + random.randrange(64)
            side.entries[page] = random.choice((random.getrandbits(64), dword(random) << 12 | 3, QUOTA | 3, 1, 0))
            entries += 1
        for number in range(1, random.randrange(2, 5)):
            rig.submit(1, number, rig.context(1, number, store((spare + random.randrange(64)) << 12, 0xBAD)))
        for page in range(spare, spare + 64):
            side.entries[page] = 0
        self.check()
        return entries
