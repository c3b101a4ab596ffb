"""Messages of the compiled back end, in memory that a map gives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.xe.eu.compiled_rig import loaded
from tests.unit.xe.eu.kernel import END, reader
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled.kernel import compile_program
from vfio_user_xe.device_models.xe.eu.compiled.layout import Access, Reason
from vfio_user_xe.device_models.xe.eu.compiled.memory import Map, MapFull, Used, aligned
from vfio_user_xe.device_models.xe.eu.compiled.messages import plain_send, surface_key
from vfio_user_xe.device_models.xe.eu.compiled.slot import Miss, Slot, Walk
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.eu.ir import Send
from vfio_user_xe.device_models.xe.eu.messages.message import Surface, SurfaceKind

BASE = 0x1234_5000_0000
BOTH = Access.READ | Access.WRITE
FOREVER = 1 << 40
LOAD, STORE = 0, 4
D8, D16, D32, D64, D8U32, D16U32 = range(6)
A32, A64 = 2, 3
SIZES = {D8: (1, 1), D16: (2, 2), D32: (4, 4), D64: (8, 8), D8U32: (1, 4), D16U32: (2, 4)}
VECTORS = {1: 0, 2: 1, 3: 2, 4: 3, 8: 4}


def descriptor(op: int, data: int, vector: int, address: int, response: int, length0: int, surface: int = 0) -> str:
    """Of an LSC message (execution.md 2.2)."""
    value = op | address << 7 | data << 9 | VECTORS[vector] << 12 | response << 20 | length0 << 25 | surface << 29
    return f"0x{value:08x}"


def registers_for(lanes: int, size: int) -> int:
    return max(1, -(-lanes * size // 64))


class Bench:
    """One thread, and 128 KiB of memory at `BASE` in pages of 4 KiB, that lie in the host in another order."""

    def __init__(
        self, text: str, registers: dict[int, NDArray[Any]], dispatch: int = 0xFFFF_FFFF, slm: int = 0
    ) -> None:
        library = loaded()
        self.map = Map(library)
        self.host = aligned(32 * 4096)
        self.order = [(7 * page + 3) % 32 for page in range(32)]
        payload = np.zeros((1, 200 * 64), dtype=np.uint8)
        for number, values in registers.items():
            data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
            payload[0, number * 64 : number * 64 + len(data)] = data
        self.kernel = compile_program(decode(reader(assemble(text + "\n" + END)), 0), library)
        assert not self.kernel.interpreted
        self.slot = Slot(self.map, 1, slm)
        self.slot.begin(Walk(self.kernel, payload, [dispatch], 0, (1, 1, 1), cr0=0x4C0))

    def give(self, page: int, access: Access = BOTH, ledger: int = 0) -> None:
        self.map.insert(BASE + page * 4096, 12, self.host.ctypes.data + self.order[page] * 4096, access, ledger)

    def give_all(self) -> None:
        for page in range(32):
            self.give(page)

    @property
    def memory(self) -> NDArray[np.uint8]:
        """As the function sees it."""
        return self.host.reshape(32, 4096)[self.order].reshape(-1).copy()

    @memory.setter
    def memory(self, content: NDArray[np.uint8]) -> None:
        self.host.reshape(32, 4096)[self.order] = content.reshape(32, 4096)

    def grf(self, number: int, kind: Any, count: int) -> NDArray[Any]:
        start = number * 64
        return self.slot.registers[0, start : start + count * np.dtype(kind).itemsize].copy().view(kind)


@st.composite
def offsets(draw: Any, lanes: int, size: int) -> NDArray[np.uint64]:
    """Where each lane's element lies: in a row, all at one place, or anywhere, in one page and over page borders too."""
    kind = draw(st.sampled_from(["row", "one", "any", "page", "border"]))
    first = draw(st.integers(0, 100_000))
    match kind:
        case "row":
            where = [first + lane * size for lane in range(lanes)]
        case "one":
            where = [first] * lanes
        case "page":
            page = 4096 * draw(st.integers(0, 31))
            where = [page + draw(st.integers(0, 4096 - size)) for _ in range(lanes)]
        case "border":
            where = [4096 * draw(st.integers(1, 31)) - draw(st.integers(0, size)) for _ in range(lanes)]
        case _:
            where = [draw(st.integers(0, 131_072 - size)) for _ in range(lanes)]
    return np.array(where, dtype=np.uint64)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_load_brings_each_lane_its_element(data: Any) -> None:
    lanes = data.draw(st.sampled_from([16, 32]))
    kind = data.draw(st.sampled_from(list(SIZES)))
    vector = data.draw(st.sampled_from([1, 2, 3, 4]))
    size, register = SIZES[kind]
    where = data.draw(offsets(lanes, size * vector))
    dispatch = data.draw(st.integers(1, (1 << lanes) - 1))
    step = registers_for(lanes, register)
    message = descriptor(LOAD, kind, vector, A64, step * vector, registers_for(lanes, 8))
    bench = Bench(f"send.ugm ({lanes}|M0)  r40  r10  null:0  0x0  {message}", {10: where + np.uint64(BASE)}, dispatch)
    content = np.random.default_rng(1).integers(0, 256, 32 * 4096, dtype=np.uint8)
    bench.memory = content
    bench.give_all()
    assert bench.slot.run(FOREVER) is Reason.GONE
    for component in range(vector):
        found = bench.grf(40 + component * step, np.uint8, lanes * register).reshape(lanes, register)
        for lane in range(lanes):
            start = int(where[lane]) + component * size
            expected = np.zeros(register, dtype=np.uint8)
            if dispatch >> lane & 1:
                expected[:size] = content[start : start + size]
            assert np.array_equal(found[lane], expected)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_store_writes_what_lanes_that_are_on_have(data: Any) -> None:
    lanes = data.draw(st.sampled_from([16, 32]))
    kind = data.draw(st.sampled_from(list(SIZES)))
    vector = data.draw(st.sampled_from([1, 2, 4]))
    size, register = SIZES[kind]
    where = data.draw(offsets(lanes, size * vector))
    dispatch = data.draw(st.integers(1, (1 << lanes) - 1))
    step = registers_for(lanes, register)
    values = np.random.default_rng(2).integers(0, 256, (vector, step * 64), dtype=np.uint8)
    message = descriptor(STORE, kind, vector, A64, 0, registers_for(lanes, 8))
    text = f"send.ugm ({lanes}|M0)  null  r10  r40:{step * vector}  0x0  {message}"
    bench = Bench(text, {10: where + np.uint64(BASE), 40: values}, dispatch)
    bench.give_all()
    assert bench.slot.run(FOREVER) is Reason.GONE
    expected = np.zeros(32 * 4096, dtype=np.uint8)
    for lane in range(lanes):
        if dispatch >> lane & 1:
            for component in range(vector):
                start = int(where[lane]) + component * size
                expected[start : start + size] = values[component, lane * register : lane * register + size]
    assert np.array_equal(bench.memory, expected)


SHORT_STORES = {
    "64 components in one register": STORE | A64 << 7 | D8U32 << 9 | 7 << 12 | 4 << 25,
    "64 components of an entry in one register": STORE | A32 << 7 | D32 << 9 | 7 << 12 | 2 << 25,
    "two components in one register": STORE | A64 << 7 | D32 << 9 | 1 << 12 | 4 << 25,
    "addresses of four registers in one": STORE | A64 << 7 | D32 << 9 | 1 << 25,
}


@pytest.mark.parametrize("message", SHORT_STORES.values(), ids=SHORT_STORES)
@pytest.mark.parametrize("function", ["ugm", "slm", "urb"])
def test_a_store_of_more_than_its_payload_has_is_left_to_the_interpreter(function: str, message: int) -> None:
    # In the last register: what is behind the registers is not the thread's.
    text = f"send.{function} (32|M0)  null  r10  r255:1  0x0  0x{message:08x}\n{END}"
    instruction = decode(reader(assemble(text)), 0).instructions[0]
    assert isinstance(instruction, Send)
    assert plain_send(instruction) is None


@pytest.mark.parametrize("function", ["ugm", "slm", "tgm"])
@pytest.mark.parametrize(("predicate", "answered"), [("", True), ("(f0.0) ", False)])
def test_a_fence_answers_with_zeros_if_a_lane_takes_part(function: str, predicate: str, answered: bool) -> None:
    # The compiler waits for the register, and does not look into it (IGC: every fence of a barrier).
    filled = np.full((3, 16), 0x55AA55AA, dtype=np.uint32)
    bench = Bench(f"{predicate}send.{function} (16|M0)  r41  r10  null:0  0x0  0x0210001f", {40: filled}, 0xFFFF)
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert bench.grf(41, np.uint32, 16).tolist() == [0 if answered else 0x55AA55AA] * 16
    for beside in (40, 42):
        assert (bench.grf(beside, np.uint32, 16) == 0x55AA55AA).all()


@pytest.mark.parametrize(("first", "second", "handled"), [(2, 2, True), (3, 1, False), (4, 0, True)])
def test_a_sample_with_a_parameter_in_both_parts_of_its_payload_is_left_to_the_interpreter(
    first: int, second: int, handled: bool
) -> None:
    # 32 lanes: u and v have two registers each.
    other = f"r20:{second}" if second else "null:0"
    text = f"send.smpl (32|M0)  r60  r14  {other}  0x0  0x{first << 25 | 8 << 20 | 2 << 17 | 1:08x}\n{END}"
    instruction = decode(reader(assemble(text)), 0).instructions[0]
    assert isinstance(instruction, Send)
    assert (plain_send(instruction) is not None) is handled


@pytest.mark.parametrize("lost", [0, 5, 31])
def test_missing_page_stops_the_thread_before_anything_is_written(lost: int) -> None:
    where = np.arange(32, dtype=np.uint64) * np.uint64(4096) + np.uint64(BASE)
    message = descriptor(STORE, D32, 1, A64, 0, 4)
    bench = Bench(
        f"send.ugm (32|M0)  null  r10  r40:2  0x0  {message}", {10: where, 40: np.arange(32, dtype=np.uint32)}
    )
    for page in range(32):
        if page != lost:
            bench.give(page)
    assert bench.slot.run(FOREVER) is Reason.MISS
    assert bench.slot.miss == Miss(BASE + lost * 4096, 4, True)
    assert not bench.memory.any()
    assert bench.map.harvest() == []
    bench.give(lost)
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert np.array_equal(bench.memory.view(np.uint32)[::1024], np.arange(32))


def test_page_without_write_access_is_missing_for_a_store_and_not_for_a_load() -> None:
    where = np.full(16, BASE, dtype=np.uint64)
    load, store = descriptor(LOAD, D32, 1, A64, 1, 2), descriptor(STORE, D32, 1, A64, 0, 2)
    text = f"send.ugm (16|M0)  r40  r10  null:0  0x0  {load}\nsend.ugm (16|M0)  null  r10  r40:1  0x0  {store}"
    bench = Bench(text, {10: where}, 0xFFFF)
    bench.give(0, Access.READ)
    assert bench.slot.run(FOREVER) is Reason.MISS
    assert bench.slot.miss.writes


def test_accesses_are_counted_by_ledger_number() -> None:
    where = np.arange(16, dtype=np.uint64) * np.uint64(4) + np.uint64(BASE)
    load, store = descriptor(LOAD, D32, 1, A64, 1, 2), descriptor(STORE, D32, 1, A64, 0, 2)
    text = f"send.ugm (16|M0)  r40  r10  null:0  0x0  {load}\nsend.ugm (16|M0)  null  r12  r40:1  0x0  {store}"
    bench = Bench(text, {10: where, 12: where[::-1] + np.uint64(4096)}, 0xFFFF)
    bench.give(0, ledger=5)
    bench.give(1, ledger=6)
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert bench.map.harvest() == [Used(5, 1, 64, 0, 0), Used(6, 0, 0, 16, 64)]
    assert bench.map.harvest() == []


def test_removed_pages_are_missing_again() -> None:
    bench = Bench("", {})
    bench.give_all()
    bench.map.remove(BASE + 4096, 8192)
    where = np.full(16, BASE + 4096 + 64, dtype=np.uint64)
    message = descriptor(LOAD, D32, 1, A64, 1, 2)
    again = Bench(f"send.ugm (16|M0)  r40  r10  null:0  0x0  {message}", {10: where}, 0xFFFF)
    slot = Slot(bench.map, 1)
    slot.begin(Walk(again.kernel, np.zeros((1, 64), np.uint8), [0xFFFF], 0, (1, 1, 1)))
    slot.registers[0, 640 : 640 + 128] = where.view(np.uint8)
    assert slot.run(FOREVER) is Reason.MISS


def test_full_map_says_so_and_grows() -> None:
    map_ = Map(loaded())
    memory = aligned(4096)

    def enter(pages: range) -> None:
        for page in pages:
            map_.insert(page << 12, 12, memory.ctypes.data, BOTH)

    with pytest.raises(MapFull):
        enter(range(1 << 20))
    entered = map_.struct.used
    map_.grow()
    enter(range(1 << 21, (1 << 21) + 1))
    assert map_.struct.used == entered + 1


OPERATIONS = {
    0x08: lambda old, a, b: old + 1,
    0x09: lambda old, a, b: old - 1,
    0x0A: lambda old, a, b: old,
    0x0B: lambda old, a, b: a,
    0x0C: lambda old, a, b: old + a,
    0x0D: lambda old, a, b: old - a,
    0x0E: lambda old, a, b: min(_signed(old), _signed(a)),
    0x0F: lambda old, a, b: max(_signed(old), _signed(a)),
    0x10: lambda old, a, b: min(old, a),
    0x11: lambda old, a, b: max(old, a),
    0x12: lambda old, a, b: b if old == a else old,
    0x18: lambda old, a, b: old & a,
    0x19: lambda old, a, b: old | a,
    0x1A: lambda old, a, b: old ^ a,
}


def _signed(value: int) -> int:
    return (value ^ 1 << 31) - (1 << 31)


@pytest.mark.parametrize("op", OPERATIONS)
def test_atomic_changes_memory_lane_by_lane_and_returns_what_was_there(op: int) -> None:
    random = np.random.default_rng(op)
    where = random.integers(0, 4, 16).astype(np.uint64) * np.uint64(4)
    operands = random.integers(0, 1 << 32, (2, 16), dtype=np.uint32)
    operands[0, ::3] = 7
    message = descriptor(op, D32, 1, A64, 1, 2)
    text = f"send.ugm (16|M0)  r60  r10  r40:2  0x0  {message}"
    bench = Bench(text, {10: where + np.uint64(BASE), 40: operands}, 0x7FFF)
    content = np.zeros(32 * 1024, dtype=np.uint32)
    content[:4] = [7, 0xFFFF_FFFF, 0x8000_0000, 7]
    bench.memory = content.view(np.uint8)
    bench.give_all()
    assert bench.slot.run(FOREVER) is Reason.GONE
    returned = bench.grf(60, np.uint32, 16)
    for lane in range(15):
        index = int(where[lane]) // 4
        old = int(content[index])
        assert returned[lane] == old
        content[index] = OPERATIONS[op](old, int(operands[0, lane]), int(operands[1, lane])) & 0xFFFF_FFFF
    assert np.array_equal(bench.memory.view(np.uint32), content)


def test_outside_of_slm_reads_zero_and_writes_nothing() -> None:
    where = np.array([0, 1020, 1024, 0xFFFF_FFFC, *range(4, 52, 4)], dtype=np.uint32)
    load, store = descriptor(LOAD, D32, 1, A32, 1, 1), descriptor(STORE, D32, 1, A32, 0, 1)
    text = f"send.slm (16|M0)  null  r10  r40:1  0x0  {store}\nsend.slm (16|M0)  r50  r10  null:0  0x0  {load}"
    bench = Bench(text, {10: where, 40: np.arange(1, 17, dtype=np.uint32)}, 0xFFFF, slm=1024)
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert list(bench.grf(50, np.uint32, 16)) == [1, 2, 0, 0, *range(5, 17)]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_lanes_anywhere_in_slm_store_and_load(data: Any) -> None:
    lanes = data.draw(st.sampled_from([16, 32]))
    vector = data.draw(st.sampled_from([1, 2, 3, 4]))
    dispatch = data.draw(st.integers(1, (1 << lanes) - 1))
    where = np.array(data.draw(st.lists(st.integers(0, 1100), min_size=lanes, max_size=lanes)), dtype=np.uint32)
    step = registers_for(lanes, 4)
    values = np.random.default_rng(3).integers(1, 1 << 32, (vector, lanes), dtype=np.uint32)
    store = descriptor(STORE, D32, vector, A32, 0, step)
    load = descriptor(LOAD, D32, vector, A32, step * vector, step)
    text = f"send.slm ({lanes}|M0)  null  r10  r40:{step * vector}  0x0  {store}\n"
    text += f"send.slm ({lanes}|M0)  r60  r10  null:0  0x0  {load}"
    bench = Bench(text, {10: where, 40: values}, dispatch, slm=1024)
    assert bench.slot.run(FOREVER) is Reason.GONE
    slm = np.zeros(1024 + 16, dtype=np.uint8)
    on = [lane for lane in range(lanes) if dispatch >> lane & 1]
    inside = [lane for lane in on if where[lane] <= 1024 - 4 * vector]
    for lane in inside:
        slm[where[lane] : where[lane] + 4 * vector] = np.ascontiguousarray(values[:, lane]).view(np.uint8)
    for component in range(vector):
        found = bench.grf(60 + component * step, np.uint32, lanes)
        for lane in on:
            start = int(where[lane]) + 4 * component
            expected = int(slm[start : start + 4].view(np.uint32)[0]) if lane in inside else 0
            assert found[lane] == expected


def test_lanes_anywhere_in_a_page_are_counted_as_lanes() -> None:
    where = BASE + np.array([4 * ((7 * lane) % 1024) for lane in range(16)], dtype=np.uint64)
    load, store = descriptor(LOAD, D32, 1, A64, 1, 2), descriptor(STORE, D32, 1, A64, 0, 2)
    text = f"send.ugm (16|M0)  r40  r10  null:0  0x0  {load}\nsend.ugm (16|M0)  null  r10  r40:1  0x0  {store}"
    bench = Bench(text, {10: where}, 0x00FF)
    bench.give(0, ledger=5)
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert bench.map.harvest() == [Used(5, 8, 32, 8, 32)]


def test_a_page_without_write_access_is_missing_for_lanes_anywhere_in_it() -> None:
    where = BASE + np.array([4 * ((7 * lane) % 1024) for lane in range(16)], dtype=np.uint64)
    store = descriptor(STORE, D32, 1, A64, 0, 2)
    bench = Bench(f"send.ugm (16|M0)  null  r10  r40:1  0x0  {store}", {10: where}, 0xFFFF)
    bench.give(0, Access.READ)
    assert bench.slot.run(FOREVER) is Reason.MISS
    assert bench.slot.miss.writes
    assert not bench.memory.any()


def test_surface_has_a_base_and_an_end() -> None:
    where = np.arange(16, dtype=np.uint32) * 4
    message = descriptor(LOAD, D32, 1, A32, 1, 1, surface=3)
    bench = Bench(f"send.ugm (16|M0)  r40  r10  null:0  0x09000000  {message}", {10: where}, 0xFFFF)
    bench.memory = np.arange(32 * 1024, dtype=np.uint32).view(np.uint8)
    bench.give_all()
    assert bench.slot.run(FOREVER) is Reason.SURFACE
    key = surface_key(Surface(SurfaceKind.BTI, 9))
    assert bench.slot.missing_surface == key
    bench.slot.bind_surface(key, BASE + 400, 40)
    assert bench.slot.run(FOREVER) is Reason.GONE
    assert list(bench.grf(40, np.uint32, 16)) == [*range(100, 110), 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "dword", "value"),
    [(SurfaceKind.BTI, 0x09000000, 9), (SurfaceKind.SS, 0x12345, 0x12340), (SurfaceKind.BSS, 0x9000_0040, 0x9000_0040)],
)
def test_a_surface_that_a0_names_has_the_key_of_the_same_in_the_descriptor(
    kind: SurfaceKind, dword: int, value: int
) -> None:
    message = descriptor(LOAD, D32, 1, A32, 1, 1, surface=kind.value)
    shader = f"(W) mov (1|M0)  a0.2<1>:ud  {dword:#x}:ud\nsend.ugm (16|M0)  r40  r10  null:0  a0.2  {message}"
    bench = Bench(shader, {10: np.arange(16, dtype=np.uint32) * 4}, 0xFFFF)
    bench.give_all()
    assert bench.slot.run(FOREVER) is Reason.SURFACE
    assert bench.slot.missing_surface == surface_key(Surface(kind, value)) == surface_key(Surface(kind, None), dword)
