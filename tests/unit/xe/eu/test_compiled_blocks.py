"""Untyped 2-D blocks of the compiled back end, held against `compute.block2d`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.xe.eu.kernel import END, reader
from tests.unit.xe.eu.test_compiled_memory import BASE, FOREVER, Bench
from vfio_user_xe.device_models.xe.compute.block2d import Blocks
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory, numbers, parts
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled.layout import Reason
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.eu.ir import Send
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage

EFFORT = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LOAD, STORE = 3, 7
SIZE = 32 * 4096


class Flat:
    """Bytes at `BASE`, as much of `UnitMemory` as blocks need."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self.content = content

    def load(self, addresses: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
        return numbers(self.content[self._places(addresses, size)], size)

    def store(self, addresses: NDArray[np.uint64], values: NDArray[np.uint64], size: int) -> None:
        self.content[self._places(addresses, size)] = parts(values, size)

    def _places(self, addresses: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        return (addresses - np.uint64(BASE)).astype(np.int64)[:, None] + np.arange(size)


@st.composite
def payloads(draw: Any, size: int) -> NDArray[np.uint32]:
    """A block over a matrix that lies in memory, somewhere over its edges."""
    pitch = draw(st.integers(1, 1024))
    words = np.zeros(16, dtype=np.uint32)
    high = draw(st.integers(1, 60))
    words[:2] = np.array([BASE + draw(st.integers(0, SIZE - 1024 * 64 - 8))], dtype=np.uint64).view(np.uint32)
    words[2], words[3], words[4] = draw(st.integers(0, pitch - 1)), high - 1, pitch - 1
    words[5:7] = np.array([draw(st.integers(-20, pitch // size)), draw(st.integers(-10, high))], np.int32).view(
        np.uint32
    )
    width, height, count = draw(st.integers(1, 40)), draw(st.integers(1, 32)), draw(st.integers(1, 4))
    words[7] = width - 1 | height - 1 << 8 | count - 1 << 16
    return words


@EFFORT
@given(st.data())
def test_blocks_are_loaded_as_the_reference_does(data: Any) -> None:
    code = data.draw(st.integers(0, 3))
    form = data.draw(st.sampled_from([0, 1 << 15, 1 << 7]))
    length = data.draw(st.integers(0, 31))
    extended = data.draw(st.sampled_from([0, 3 << 12, 0x3FF << 12, 5 << 22, 0x3FF << 22]))
    text = f"(W) send.ugm (1|M0)  r20  r10  null:0  {extended:#x}  {length << 20 | 1 << 25 | LOAD | code << 9 | 1 << 8 | form:#x}"
    words = data.draw(payloads(1 << code))
    bench = Bench(text, {10: words, 20: np.full(31 * 16, 0xA5A5A5A5, np.uint32)})
    bench.give_all()
    bench.memory = np.random.default_rng(5).integers(0, 256, SIZE, dtype=np.uint8)
    expected = blocks(text, words).response(flat(bench.memory), length * 64)
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert np.array_equal(bench.grf(20, np.uint8, length * 64), expected)
    assert (bench.grf(20, np.uint8, 31 * 64)[length * 64 :] == 0xA5).all()


@EFFORT
@given(st.data())
def test_blocks_are_stored_as_the_reference_does(data: Any) -> None:
    code, length = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 31))
    text = f"(W) send.ugm (1|M0)  null  r10  r20:{length}  0x0  {1 << 25 | STORE | code << 9 | 1 << 8:#x}"
    words = data.draw(payloads(1 << code))
    stored = np.random.default_rng(6).integers(0, 256, length * 64, dtype=np.uint8)
    bench = Bench(text, {10: words, 20: stored})
    bench.give_all()
    bench.memory = np.random.default_rng(5).integers(0, 256, SIZE, dtype=np.uint8)
    memory = Flat(bench.memory)
    blocks(text, words).store(cast("UnitMemory", memory), np.concatenate([words.view(np.uint8), stored]))
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert np.array_equal(bench.memory, memory.content)


def test_a_block_over_a_page_that_is_missing_does_nothing_before_it_is_there() -> None:
    words = np.zeros(16, dtype=np.uint32)
    words[:2] = np.array([BASE], dtype=np.uint64).view(np.uint32)
    words[2], words[3], words[4], words[7] = 63, 99, 4095, 15 | 3 << 8
    bench = Bench("(W) send.ugm (1|M0)  null  r10  r20:1  0x0  0x02000107", {10: words, 20: np.arange(16)})
    for page in (0, 1, 3):
        bench.give(page)
    assert bench.slot.run(FOREVER) is Reason.MISS
    assert bench.slot.miss.address == BASE + 2 * 4096
    assert not bench.memory.any()
    bench.give(2)
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert bench.memory[8 * 4096 : 0 : -1].any()


def flat(content: NDArray[np.uint8]) -> UnitMemory:
    return cast("UnitMemory", Flat(content))


def blocks(text: str, words: NDArray[np.uint32]) -> Blocks:
    code = assemble(text + "\n" + END)
    send = decode(reader(code), 0).instructions[0]
    assert isinstance(send, Send)
    assert isinstance(send.message, LscMessage)
    return Blocks(send.message, words.view(np.uint8))
