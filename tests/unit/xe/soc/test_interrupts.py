"""The PF's interrupt registers, through the driver's handler (xe_irq.c:dg1_irq_handler), and VFs' interrupt pages."""

from __future__ import annotations

from typing import Any

import pytest

MASTER, GFX_MASTER, DW0, IDENTITY, SELECTOR = 0x190008, 0x190010, 0x190018, 0x190060, 0x190070
ENABLE_ALL = {0x190030: 0x00110011, 0x190034: 0x00110011, 0x190038: 0x80000000, 0x190048: 0x00110000}
RCS0, BCS8, CCS0, GUC = 0, 23, 4, 25
IDENTITIES = {RCS0: 0x80000001, BCS8: 0x80830001, CCS0: 0x80050001, GUC: 0x80048000}


class Handler:
    """Counts the MSIs of a function and handles interrupts as the driver does."""

    def __init__(self, bench: Any, vfid: int = 0) -> None:
        self.bench = bench
        self.messages = 0
        function = bench.gpu.functions[vfid].pci
        function.raise_msi = self._raised
        if not vfid:
            for offset, value in ENABLE_ALL.items():
                bench.write(offset, value)
            bench.write(MASTER, 1 << 31)

    def _raised(self, vector: int = 0) -> bool:
        self.messages += 1
        return True

    def handle(self, between: Any = None) -> dict[int, int]:
        """One run of the handler: identities by source. `between` is called after GT_INTR_DW was read."""
        bench = self.bench
        bench.write(MASTER, 0)
        found: dict[int, int] = {}
        master = bench.read(MASTER)
        if master:
            bench.write(MASTER, master)
            levels = bench.read(GFX_MASTER)
            bench.write(GFX_MASTER, levels)
            for bank in (0, 1):
                if levels >> bank & 1:
                    found |= self._bank(bank, between)
        bench.write(MASTER, 1 << 31)
        return found

    def _bank(self, bank: int, between: Any) -> dict[int, int]:
        bench, found = self.bench, {}
        bits = bench.read(DW0 + 4 * bank)
        if between:
            between()
        for bit in (n for n in range(32) if bits >> n & 1):
            bench.write(SELECTOR + 4 * bank, 1 << bit)
            identity = bench.read(IDENTITY + 4 * bank)
            bench.write(IDENTITY + 4 * bank, identity)
            found[32 * bank + bit] = identity
        bench.write(DW0 + 4 * bank, bits)
        return found


def engine(bench: Any, name: str) -> Any:
    return next(info for gt in bench.gpu.gts for info in gt.infos if info.name == name)


def test_identities_are_those_of_the_sources(bench: Any) -> None:
    handler = Handler(bench)
    for name in ("rcs0", "bcs8", "ccs0"):
        bench.gpu.interrupts.raise_engine(bench.pf, engine(bench, name))
    bench.gpu.interrupts.raise_guc(bench.pf, 0)
    assert handler.handle() == IDENTITIES
    assert handler.handle() == {}


def test_media_sources_come_in_their_own_bank(make_bench: Any) -> None:
    bench = make_bench(vfs=0, media=True)
    handler = Handler(bench)
    bench.gpu.interrupts.raise_engine(bench.pf, engine(bench, "vcs0"))
    bench.gpu.interrupts.raise_engine(bench.pf, engine(bench, "vecs0"))
    bench.gpu.interrupts.raise_guc(bench.pf, 1)
    assert handler.handle() == {32: 0x80010001, 63: 0x80020001, 24: 0x81048000}


def test_an_interrupt_during_the_handler_is_announced_again(bench: Any) -> None:
    handler = Handler(bench)
    interrupts = bench.gpu.interrupts
    interrupts.raise_engine(bench.pf, engine(bench, "rcs0"))
    assert handler.messages == 1
    found = handler.handle(between=lambda: interrupts.raise_engine(bench.pf, engine(bench, "bcs8")))
    assert found == {RCS0: IDENTITIES[RCS0]}
    assert handler.messages == 2
    assert handler.handle() == {BCS8: IDENTITIES[BCS8]}


def test_a_source_that_is_raised_again_after_it_was_taken_is_not_lost(bench: Any) -> None:
    handler = Handler(bench)
    interrupts = bench.gpu.interrupts
    interrupts.raise_engine(bench.pf, engine(bench, "rcs0"))
    bench.write(MASTER, 0)
    bench.write(SELECTOR, 1)
    interrupts.raise_engine(bench.pf, engine(bench, "rcs0"))
    bench.write(DW0, 1)
    bench.write(MASTER, 1 << 31)
    assert handler.messages == 2
    assert handler.handle() == {RCS0: IDENTITIES[RCS0]}


def test_nothing_is_sent_while_the_master_is_off_and_all_of_it_afterwards(bench: Any) -> None:
    handler = Handler(bench)
    bench.write(MASTER, 0)
    bench.gpu.interrupts.raise_guc(bench.pf, 0)
    assert handler.messages == 0
    bench.write(MASTER, 1 << 31)
    assert handler.messages == 1


def test_a_class_that_is_not_enabled_raises_nothing(bench: Any) -> None:
    handler = Handler(bench)
    bench.write(0x190030, 0x00000011)
    bench.gpu.interrupts.raise_engine(bench.pf, engine(bench, "rcs0"))
    bench.gpu.interrupts.raise_engine(bench.pf, engine(bench, "bcs8"))
    assert handler.handle() == {BCS8: IDENTITIES[BCS8]}


def test_reset_forgets_what_is_pending(bench: Any) -> None:
    handler = Handler(bench)
    bench.gpu.interrupts.raise_guc(bench.pf, 0)
    bench.pf.pci.reset()
    bench.settle()
    assert handler.handle() == {}


PAGE = 0x2000000


@pytest.fixture
def vf_page(bench: Any) -> Any:
    bench.run(lambda: bench.gpu.vram.provision(1, 2 << 20))
    bench.gpu.functions[1].ggtt.provision(PAGE, 1 << 20)
    bench.map_ggtt(PAGE, 1 << 20, 0, vfid=1)
    return bench


def test_a_vf_gets_status_then_source_then_its_own_msi(vf_page: Any) -> None:
    bench = vf_page
    pf, vf1 = Handler(bench), Handler(bench, 1)
    vf = bench.gpu.functions[1]
    bench.run(lambda: bench.gpu.interrupts.raise_engine(vf, engine(bench, "bcs8"), PAGE, PAGE + 0x400))
    page = bench.run(lambda: vf.ggtt_space.read(PAGE, 0x440))
    assert {index for index, byte in enumerate(page) if byte} == {16 * BCS8, 0x400 + BCS8}
    assert (pf.messages, vf1.messages) == (0, 1)


def test_a_vf_that_gives_a_bad_page_gets_no_interrupt_and_harms_nobody(vf_page: Any) -> None:
    bench = vf_page
    vf1 = Handler(bench, 1)
    vf = bench.gpu.functions[1]
    bench.run(lambda: bench.gpu.interrupts.raise_engine(vf, engine(bench, "rcs0"), 0x9000000, 0x9000400))
    assert vf1.messages == 0
    assert bench.gpu.interrupts.memirq(vf).faults == 1
    assert bench.card.executor.failures == 0
