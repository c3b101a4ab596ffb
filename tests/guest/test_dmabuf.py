"""A VF's memory as a dma-buf: exported by vfio-pci, imported by xe on the PF, reached by the PF's copy engine.

On a kernel without device-address mappings that is the legacy path: PCI peer-to-peer to the VF's BAR.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from device_models.xe.scenarios.bench import CPU, MODULES, Bench, programs
from device_models.xe.scenarios.client import Client
from emulator.guest import locate
from emulator.guest.programs import NoCompiler
from tests.guest.lab import open_lab

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

MIB = 1 << 20
SOURCE, TARGET = 0x1000_0000, 0x2000_0000


@dataclass
class Opened:
    """VF 1 and VF 2 opened by a client that has a render node of the PF too."""

    bench: Bench
    client: Client


@pytest.fixture(scope="module", params=["iommu=pt", "iommu=nopt"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    try:
        files = programs(locate())
    except NoCompiler as error:
        pytest.skip(str(error))
    with open_lab(
        ["--vfs", "2"], modules=MODULES, files=files, memory=1536, cpu=CPU, iommu=True, append=request.param
    ) as lab:
        bench = Bench(lab.guest, lab.card)
        bench.load_drivers()
        bench.enable_vfs(2)
        yield bench


@pytest.fixture
def opened(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Opened]:
    client = bench.client(request.node.name[:40])
    try:
        bench.open_vf(client, "v1", 1)
        bench.open_vf(client, "v2", 2)
        client.do(f"gpu g {bench.pf}", f"buffer g target {TARGET:#x} {4 * MIB:#x}")
        yield Opened(bench, client)
    finally:
        assert client.end()
        bench.settle(1)
        bench.settle(2)


@pytest.mark.parametrize(
    ("ranges", "length"),
    [("0+0x200000", 2 * MIB), ("0x5000+0x1000", 4096), ("0x1ff000+0x7e9000", 2025 * 4096), ("0xffff000+0x1000", 4096)],
    ids=["2 MiB", "a page", "a frame over borders", "the BAR's last page"],
)
def test_the_pf_reads_what_the_vf_s_user_wrote(opened: Opened, ranges: str, length: int) -> None:
    offset = int(ranges.partition("+")[0], 0)
    opened.client.do(
        f"buffer g large {0x3000_0000:#x} {8 * MIB:#x}",
        f"fill v1 {offset:#x} {length:#x} 7",
        f"export v1 2 {ranges} exported",
        "import g exported imported",
        f"bind imported {SOURCE:#x}",
    )
    opened.bench.card.call("ledger", clear=True)
    opened.client.do(f"copy g {0x3000_0000:#x} {SOURCE:#x} {length:#x}", f"verify large 0 {offset:#x} {length:#x} 7")
    taken = opened.bench.paths("pf", "vf1")
    assert sum(taken.values()) > 0, "the ledger did not see how"
    pages = opened.bench.translations(SOURCE, SOURCE + length)
    assert {page["kind"] for page in pages} == {"vram" if taken["zero-copy"] else "system"}


def test_the_vf_s_user_reads_what_the_pf_wrote(opened: Opened) -> None:
    opened.client.do(
        "export v1 2 0x400000+0x400000 exported",
        "import g exported imported",
        f"bind imported {SOURCE:#x}",
        f"paint target 0 0x400000 {4 * MIB:#x} 9",
        f"copy g {SOURCE:#x} {TARGET:#x} {4 * MIB:#x}",
        f"check v1 0x400000 {4 * MIB:#x} 9",
    )


def test_ranges_come_in_the_order_they_were_asked_for(opened: Opened) -> None:
    *_, bound = opened.client.do(
        f"fill v1 0 {64 * 4096:#x} 3",
        "export v1 2 0x9000+0x5000,0+0x1000,0x4000+0x3000 exported",
        "import g exported imported",
        f"try bind imported {SOURCE:#x}",
    )
    if bound.errno == "EADDRINUSE":
        pytest.xfail("this kernel's dma_buf_phys_vec_to_sgt() links every range at the IOVA's beginning")
    opened.client.do(
        f"copy g {TARGET:#x} {SOURCE:#x} 0x9000",
        "verify target 0 0x9000 0x5000 3",
        "verify target 0x5000 0 0x1000 3",
        "verify target 0x6000 0x4000 0x3000 3",
    )


def test_two_vfs_do_not_see_each_other(opened: Opened) -> None:
    for vf, seed, place in (("v1", 1, 0), ("v2", 2, 2 * MIB)):
        opened.client.do(
            f"fill {vf} 0 {2 * MIB:#x} {seed}",
            f"export {vf} 2 0+{2 * MIB:#x} exported{vf}",
            f"import g exported{vf} imported{vf}",
            f"bind imported{vf} {SOURCE + place:#x}",
        )
    opened.client.do(
        f"copy g {TARGET:#x} {SOURCE:#x} {4 * MIB:#x}",
        f"verify target 0 0 {2 * MIB:#x} 1",
        f"verify target {2 * MIB:#x} 0 {2 * MIB:#x} 2",
    )


def test_what_cannot_be_exported_is_refused(opened: Opened) -> None:
    opened.client.do(
        "expect EINVAL export v1 2 1+0x1000 x",
        "expect EINVAL export v1 2 0+0 x",
        "expect EINVAL export v1 2 0+100 x",
        "expect EINVAL export v1 2 0+0x10001000 x",
        "expect EINVAL export v1 2 - x",
        "expect EINVAL export v1 2 0+0x1000 x 1",
        "expect ENODEV export v1 1 0+0x1000 x",
    )
