"""Interrupts: MSI or MSI-X, whichever the client wired; what is pending; table and PBA in a BAR."""

from __future__ import annotations

import pytest

from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi, MsiX
from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.function import Function, Identity
from vfio_user_xe.emulator.pci.transport import MSI, MSIX


class Echo:
    def __init__(self) -> None:
        self.writes: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return 0x11111111 & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))


def build(*capabilities: Capability, bar: Bar | None = None) -> Function:
    return Function(
        "nic",
        0,
        executor=Executor("never started"),
        identity=Identity(0x1234, 0x5678),
        capabilities=capabilities,
        bars={0: bar or Bar(0x4000, Echo())},
    )


def msix(vectors: int = 70) -> MsiX:
    return MsiX(vectors, 0, 0x2000, 0x3000)


def test_msi_is_signalled_when_the_client_has_wired_it(new_transport: type) -> None:
    function, transport = build(Msi()), new_transport()
    function.attached(transport)
    assert not function.raise_msi()
    transport.wired.add((MSI, 0))
    assert function.raise_msi()
    assert transport.triggered == [(MSI, 0)]


def test_a_function_without_a_client_signals_nothing() -> None:
    assert not build(Msi()).raise_msi()


def test_an_msi_vector_that_was_not_granted_aliases_to_the_last_granted(new_transport: type) -> None:
    function, transport = build(Msi(8, 0x50)), new_transport()
    function.attached(transport)
    transport.wired = {(MSI, vector) for vector in range(8)}
    function.config.write(0x52, 2, 1 | 2 << 4)
    assert function.raise_msi(7)
    assert transport.triggered == [(MSI, 3)]


@pytest.mark.parametrize("vector", [-1, 70])
def test_vectors_that_do_not_exist_are_refused(vector: int) -> None:
    with pytest.raises(ValueError, match="vector"):
        build(msix()).raise_msi(vector)


def test_counts_are_told_by_interrupt_index() -> None:
    assert list(build(Msi(4), msix(20)).interrupts) == [0, 4, 20, 0, 0]


def test_an_unwired_msix_vector_is_pending_and_delivered_once_when_it_is_wired(new_transport: type) -> None:
    function, transport = build(msix()), new_transport()
    function.attached(transport)
    assert not function.raise_msi(65)
    assert not function.raise_msi(65)
    bar = function.regions[0]
    assert bar is not None
    assert bar.handler is not None
    assert bar.handler.read(0x3008, 8) == 1 << 1
    transport.wired.add((MSIX, 65))
    function.wired(MSIX, 60, 5)
    assert transport.triggered == []
    function.wired(MSIX, 64, 4)
    assert transport.triggered == [(MSIX, 65)]
    assert bar.handler.read(0x3008, 8) == 0
    function.wired(MSIX, 64, 4)
    assert transport.triggered == [(MSIX, 65)]


def test_msi_is_used_where_msix_is_not_enabled(new_transport: type) -> None:
    function, transport = build(Msi(1, 0x50), MsiX(4, 0, 0x2000, 0x3000, offset=0x60)), new_transport()
    function.attached(transport)
    transport.wired.add((MSI, 0))
    assert function.raise_msi()
    function.config.write(0x62, 2, 0x8000)
    assert not function.raise_msi()
    assert transport.triggered == [(MSI, 0)]
    assert function.interrupt_state.pending == 1


def test_a_reset_forgets_what_is_pending(new_transport: type) -> None:
    function, transport = build(msix()), new_transport()
    function.attached(transport)
    function.raise_msi(3)
    function.reset()
    transport.wired.add((MSIX, 3))
    function.wired(MSIX, 0, 70)
    assert transport.triggered == []


def test_the_table_is_storage_masked_from_reset_and_the_rest_of_the_bar_goes_through() -> None:
    echo = Echo()
    function = build(msix(4), bar=Bar(0x4000, echo))
    bar = function.regions[0]
    assert bar is not None
    assert bar.handler is not None
    assert bar.handler.read(0x201C, 4) == 1
    bar.handler.write(0x2010, 8, 0xFEE0000012345678)
    assert bar.handler.read(0x2014, 4) == 0xFEE00000
    bar.handler.write(0x3000, 4, 0xFFFFFFFF)
    assert bar.handler.read(0x3000, 4) == 0
    assert bar.handler.read(0x1000, 2) == 0x1111
    bar.handler.write(0x2040, 4, 7)
    assert echo.writes == [(0x2040, 4, 7)]


@pytest.mark.parametrize(
    ("capability", "message"),
    [
        (MsiX(4, 2, 0, 0x800), "BAR2, which does not exist"),
        (MsiX(4, 0, 0x3FF8, 0), "outside of BAR0"),
        (MsiX(4, 0, 0x2000, 0x2030), "table and PBA overlap"),
        (MsiX(4, 0, 0x1000, 0x2000), r"mapped area \[0x1000, 0x2000\)"),
    ],
)
def test_msix_structures_that_cannot_be_where_they_are_declared_are_refused(
    capability: MsiX, message: str, page: Memory
) -> None:
    with pytest.raises(ValueError, match=message):
        build(capability, bar=Bar(0x4000, Echo(), page, areas=[(0x1000, 0x1000)]))
