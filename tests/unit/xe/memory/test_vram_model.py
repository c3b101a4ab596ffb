"""VRAM against the plainest model of it: each DPA block has a content and an owner, whoever maps it."""

from __future__ import annotations

from unittest.mock import NonCallableMock

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.initiators import FakeInitiator
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE, Vram
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Fabric, Initiator
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.plugins.iov import Iov

BLOCKS = 6
FUNCTIONS: list[Initiator] = [FakeInitiator(f"vf{n}" if n else "pf", n) for n in range(4)]
PLACES = (0, 0x1000, 0x10_0800, BLOCK_SIZE - 8)
"""Where in a block its content is looked at."""

mappings = st.dictionaries(st.integers(0, BLOCKS - 1), st.integers(0, BLOCKS - 1), max_size=BLOCKS)
exclusive = st.permutations(range(BLOCKS)).flatmap(
    lambda dpas: st.lists(st.integers(0, BLOCKS - 1), unique=True).map(
        lambda gdpas: dict(zip(gdpas, dpas, strict=False))
    )
)
steps = st.lists(st.tuples(st.integers(1, 3), mappings | exclusive), min_size=1, max_size=6)


def word(vram: Vram, who: Initiator, address: int) -> tuple[str, memoryview] | None:
    try:
        return vram.resolve(who, address, 8, True)
    except AccessFault:
        return None


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_what_was_written_is_read_by_whoever_has_the_block_after_any_changes(
    steps: list[tuple[int, dict[int, int]]],
) -> None:
    fabric = Fabric()
    vram = Vram(BLOCKS * BLOCK_SIZE, fabric=fabric)
    fabric.interconnects = [Iov(NonCallableMock(spec=Card, device_memory=vram, fabric=fabric), {})]
    mapped: dict[int, dict[int, int]] = {1: {}, 2: {}, 3: {}}
    for dpa in range(BLOCKS):
        for place in PLACES:
            vram.memory.view[dpa * BLOCK_SIZE + place :][:8] = f"{dpa}@{place:6x}".encode()[:8]
    expected_changes: list[tuple[int, int, str, str]] = []
    moves = [0] * BLOCKS
    for vfid, mapping in steps:
        before = [vram.owner(dpa * BLOCK_SIZE) for dpa in range(BLOCKS)]
        homes = list(vram._homes)
        changed = vram.assign(vfid, mapping)
        mapped[vfid] = mapping
        after = [vram.owner(dpa * BLOCK_SIZE) for dpa in range(BLOCKS)]
        moved = [dpa for dpa in range(BLOCKS) if homes[dpa] != vram._homes[dpa]]
        assert changed == len(moved)
        for dpa in moved:
            moves[dpa] += 1
        assert [vram.changes_of(dpa) for dpa in range(BLOCKS)] == moves
        expected_changes += [
            (dpa, 1, FUNCTIONS[old].name, FUNCTIONS[new].name)
            for dpa, old, new in zip(range(BLOCKS), before, after, strict=True)
            if old != new
        ]
        # Who maps a block alone has it, and a block that nobody maps is the PF's.
        for dpa in range(BLOCKS):
            having = {vfid for vfid, blocks in mapped.items() if dpa in blocks.values()}
            assert vram.owner(dpa * BLOCK_SIZE) in (having or {0})
            assert vram.is_foreign(dpa) == bool(having)
        for function in FUNCTIONS:
            blocks = mapped[function.index] if function.index else {n: n for n in range(BLOCKS)}
            for gdpa in range(BLOCKS):
                for place in PLACES:
                    found = word(vram, function, gdpa * BLOCK_SIZE + place)
                    if gdpa not in blocks:
                        assert found is None
                        # Its client may have the memory mapped: nothing of others may be left there.
                        assert not any(vram.vf_memory(function.index).view[gdpa * BLOCK_SIZE + place :][:8])
                        continue
                    assert found is not None
                    dpa = blocks[gdpa]
                    assert found[0] == FUNCTIONS[vram.owner(dpa * BLOCK_SIZE)].name
                    assert bytes(found[1]) == f"{dpa}@{place:6x}".encode()[:8]
                    assert vram.to_dpa(function, gdpa * BLOCK_SIZE + place) == dpa * BLOCK_SIZE + place
    noted = [
        (change.address // BLOCK_SIZE + n, 1, change.old, change.new)
        for change in fabric.ledger.ownership.changes
        for n in range(change.length // BLOCK_SIZE)
    ]
    assert noted == expected_changes
    vram.close()
