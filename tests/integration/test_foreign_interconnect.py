"""An interconnect of somebody else's package: found, chosen by name, traced, accounted and wrapped like ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.packages import install
from tests.support.wait import eventually
from tests.support.xe.layout import BLOCK, MIB
from tests.support.xe.wire_driver import WireDriver
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.lab import CONFIG, Client, LiveCard, open_card

BANK, BAR0, BAR2, BUFFER = 0xFD00_0000, 0, 2, 0x40000
VA_SOURCE, VA_TARGET = 0x1_0000_0000, 0x2_0000_0000
DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND, START, FROM_BUFFER = 0x80, 0x88, 0x90, 0x98, 1, 2

PROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "optical-link"
version = "2.5"
dependencies = ["vfio-user-xe"]

[project.entry-points."vfio_user_xe.interconnects"]
optical = "optical_link:Optical"
bridge = "optical_link:Bridge"
slow-bridge = "optical_link:SlowBridge"
undeclared-bridge = "optical_link:UndeclaredBridge"

[tool.setuptools]
py-modules = ["optical_link"]
"""

MODULE = '''\
"""A bank of memory at the other end of a fibre."""

from vfio_user_xe.emulator.api import AccessFault, Option, Space, Window


class Optical:
    """Memory at the other end of a fibre, until it is cut."""

    API_VERSION = (2, 0)
    way = "zero-copy"
    OPTIONS = (
        Option("address", "int", 0xFE00_0000, "its DMA address", hexadecimal=True),
        Option("size", "size", 65536, "its size", minimum=4096),
    )

    def __init__(self, card, options):
        self.name = "optical"
        self.card = card
        self.address = options["address"]
        self.bank = memoryview(bytearray(options["size"]))
        self.cut = False
        card.commands["cut"] = self.cut_it

    def cut_it(self):
        """Cut the fibre; how many windows that took."""
        self.cut = True
        return self.card.fabric.revoke(lambda window: window.owner == "bank")

    def open(self, initiator, space, address, length, write, kind):
        offset = address - self.address
        if space != Space.SYSTEM or not 0 <= offset < len(self.bank):
            return None
        if self.cut:
            raise AccessFault(initiator, space, address, "the fibre is cut")
        view = self.bank[offset : offset + length]
        entry = self.card.fabric.ledger.entry(initiator.name, "bank", self.name, kind)
        return Window(address, len(view), view, "bank", entry)


class UndeclaredBridge:
    """A link of somebody else's between the functions of a card, in place of the card's own."""

    API_VERSION = (2, 0)
    OPTIONS = ()

    def __init__(self, card, options):
        self.name = "bridge"
        self.card = card

    def open(self, initiator, space, address, length, write, kind):
        found = self.card.device_memory.resolve(initiator, address, length, write) if space == Space.DEVICE else None
        if found is None:
            return None
        owner, view = found
        entry = self.card.fabric.ledger.entry(initiator.name, owner, self.name, kind)
        return Window(address, len(view), view, owner, entry)


class Bridge(UndeclaredBridge):
    way = "zero-copy"


class SlowBridge(UndeclaredBridge):
    way = "legacy"
'''


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package, made outside of this repository, and installed where programs that are started find it."""
    project = tmp_path / "somebody-elses" / "optical-link"
    project.mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "optical_link.py").write_text(MODULE)
    target = tmp_path / "site"
    install(project, target)
    monkeypatch.setenv("PYTHONPATH", str(target), prepend=os.pathsep)
    return target


@pytest.fixture
def card() -> Iterator[LiveCard]:
    serve = ["--model", "edu", "--set", "dma_mask=0xffffffff"]
    links = [f"optical:address={BANK:#x},size=1MiB", "host_dma"]
    with open_card([*serve, *(word for link in links for word in ("--interconnect", link))]) as made:
        yield made


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "vfio_user_xe.emulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout


def copy(client: Client, source: int, destination: int, count: int, direction: int = 0) -> None:
    client.write(CONFIG, COMMAND, 2, 6)
    for register, width, value in (
        (DMA_SOURCE, 8, source),
        (DMA_DESTINATION, 8, destination),
        (DMA_COUNT, 8, count),
        (DMA_COMMAND, 4, START | direction),
    ):
        client.write(BAR0, register, width, value)
    eventually(lambda: not client.read(BAR0, DMA_COMMAND, 4) & START, "the copy is not done")


def test_it_is_found_with_its_package_and_version() -> None:
    (found,) = (plugin for plugin in json.loads(run("plugins", "list", "--json")) if plugin["name"] == "optical")
    assert (found["kind"], found["distribution"], found["version"]) == ("interconnect", "optical-link", "2.5")
    assert not found["error"]
    assert "optical" in run("plugins", "list")


def test_it_is_chosen_by_name_and_its_options_are_checked_like_ours(tmp_path: Path) -> None:
    file = tmp_path / "card.toml"
    file.write_text('model = "edu"\ninterconnects = [{ name = "optical", size = "4KiB" }, "host_dma"]\n')
    assert "optical, host_dma" in run("card", str(file))
    file.write_text('model = "edu"\ninterconnects = [{ name = "optical", size = "1KiB" }]\n')
    wrong = subprocess.run(
        [sys.executable, "-m", "vfio_user_xe.emulator", "card", str(file)], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "interconnects[0]" in wrong.stderr
    assert "of 4 KiB or more" in wrong.stderr


def test_what_goes_over_it_is_accounted_and_traced_under_its_name(card: LiveCard, tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    card.call("trace_on", categories=["fabric", "link"], file=str(trace))
    client = card.client("edu")
    client.write(BAR0, BUFFER, 4, 0xC0FFEE)
    copy(client, BUFFER, BANK + 0x100, 64, FROM_BUFFER)
    copy(client, BANK + 0x100, BUFFER + 0x80, 4)
    assert client.read(BAR0, BUFFER + 0x80, 4) == 0xC0FFEE
    client.close()

    (row,) = card.call("ledger")
    assert (row["initiator"], row["owner"], row["interconnect"]) == ("edu", "bank", "optical")
    assert (row["bytes_written"], row["bytes_read"], row["spans"]) == (64, 4, 2)
    table = run("ledger", "--socket-dir", str(card.folder))
    (line,) = (line for line in table.splitlines() if "optical" in line)
    columns = [column.strip() for column in line.strip("│┃ ").split("│")]
    assert columns[:3] == ["edu", "bank", "optical"]
    assert re.fullmatch(r"\d+\.\d{3} s", columns[-1])

    card.call("trace_off")
    lines = trace.read_text().splitlines()
    windows = [line for line in lines if " window " in line and "optical" in line and "bank" in line]
    assert len(windows) == 2
    assert any("traffic" in line and "optical" in line for line in lines)


def test_what_it_takes_back_ends_the_accesses_of_those_who_had_it(card: LiveCard) -> None:
    client = card.client("edu")
    copy(client, BUFFER, BANK, 4, FROM_BUFFER)
    card.call("cut")
    assert [window for window in card.call("windows") if window["interconnect"] == "optical"] == []
    with pytest.raises(Exception, match="the fibre is cut"):
        card.call("read", function="edu", space="system", address=BANK, length=4)
    client.close()


def test_ours_are_wrapped_around_it(tmp_path: Path) -> None:
    record = tmp_path / "accesses.jsonl"
    link = f"record:inner=optical:address={BANK:#x};size=8KiB,file={record}"
    with open_card(["--model", "edu", "--interconnect", link]) as card:
        card.call("write", function="edu", space="system", address=BANK + 0x1FFC, data="01020304")
    (access,) = (json.loads(line) for line in record.read_text().splitlines())
    assert (access["interconnect"], access["owner"], access["address"]) == ("optical", "bank", BANK + 0x1FFC)


@pytest.mark.parametrize(
    ("link", "path"), [("bridge", "zero-copy"), ("slow-bridge", "legacy"), ("undeclared-bridge", "bridge")]
)
def test_verdicts_judge_it_by_the_way_that_it_declares(link: str, path: str) -> None:
    """The PF's copy engine reads a buffer of a VF's over it: an import between two functions of an xe card."""
    blocks = {0: 300}
    serve = ["--vfs", "1", "--set", "vram=1GiB", "--set", "vf_bar2=16MiB"]
    with open_card([*serve, "--interconnect", link, "--interconnect", "host_dma"]) as card:
        driver = WireDriver(card, vfs=1)
        driver.provision(1, blocks)
        vf = card.client("vf1")
        vf.map_region(BAR2).at(0, 8)[:] = b"exported"
        card.call("ledger", clear=True)
        context, to = driver.context(), driver.alloc()
        context.map(VA_SOURCE, blocks[0] * BLOCK, BLOCK)
        context.map(VA_TARGET, to, MIB)
        assert context.copy(VA_TARGET, VA_SOURCE, 0x1000) == []
        assert driver.peek(to, 8) == b"exported"
        (judged,) = card.call("verdicts")["paths"]
        vf.close()
        driver.close()
    assert (judged["initiator"], judged["owner"], judged["path"]) == ("pf", "vf1", path)
    assert judged[path] > 0
