"""What the pages for authors show is what there is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vfio_user_xe.emulator.control.dispatch import Control
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.model.card import Card, CardConfig, CardError
from vfio_user_xe.emulator.model.plugin_loading import INTERCONNECT, find_plugins
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


def blocks(page: str, language: str, title: str = "") -> list[str]:
    """Code blocks of a page; `title` is the comment in their first line."""
    text = (DOCS / page).read_text("utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [block for block in found if not title or block.startswith(f"# {title}\n")]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path`; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def install(folder: Path, page: str, module: str) -> None:
    """Install the package that a page shows, from its own pyproject.toml."""
    import tomllib

    (project,) = (tomllib.loads(block) for block in blocks(page, "toml", "pyproject.toml"))
    (code,) = blocks(page, "python", f"{module}.py")
    (folder / f"{module}.py").write_text(code)
    name, version = project["project"]["name"], project["project"]["version"]
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    ((group, entries),) = project["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


def test_the_device_of_the_tutorial_works_and_so_does_its_test(installed: Path) -> None:
    install(installed, "writing-a-device.md", "my_edu")
    (test,) = blocks("writing-a-device.md", "python", "test_my_edu.py")
    names: dict[str, Any] = {}
    exec(compile(test, "test_my_edu.py", "exec"), names)
    assert names["client"].triggered == []
    assert CardConfig.default("my-edu").options == {"revision": 0x10}


def test_what_the_tutorial_shows_of_edu_is_what_edu_does() -> None:
    edu = (ROOT / "device_models" / "edu.py").read_text("utf-8")
    shown = blocks("writing-a-device.md", "python", "edu.py")
    assert len(shown) == 4
    for block in shown:
        assert block.partition("\n")[2] in edu


def test_the_interconnect_of_the_guide_works_and_so_does_its_test(installed: Path) -> None:
    install(installed, "writing-an-interconnect.md", "mailbox_link")
    assert "mailbox_link" not in sys.stdlib_module_names
    (test,) = (block for block in blocks("writing-an-interconnect.md", "python") if "run_sync" in block)
    exec(compile(test, "test_mailbox.py", "exec"), {"Card": Card, "CardConfig": CardConfig, "Space": Space})
    card = Card(CardConfig.default("edu").override(interconnects=["mailbox:address=0x5000"]))
    edu = card.functions[0]
    edu.config.write(COMMAND, 2, COMMAND_MASTER)
    with pytest.raises(AccessFault, match="may only read its mail"):
        card.fabric.write(edu, Space.SYSTEM, 0x5000, b"mail")


def test_the_example_of_the_card_page_is_a_good_card() -> None:
    (example,) = blocks("card-file.md", "toml")
    config = CardConfig.parse(example, "card-file.md")
    assert (config.name, config.options["vfs"], config.options["vram"]) == ("b580", 4, 12 << 30)


@pytest.mark.parametrize(
    "line",
    [
        line.strip()
        for line in (DOCS / "card-file.md").read_text("utf-8").splitlines()
        if line.startswith("    mine.toml")
    ],
)
def test_the_errors_of_the_card_page_are_the_errors_that_come(line: str) -> None:
    key, shown = re.match(r"mine\.toml: ([\w.\[\]]+): (.*)", line).groups()  # type: ignore[union-attr]
    texts = {
        "device.vfss": "[device]\nvfss = 3",
        "device.vram": '[device]\nvram = "12 GB"',
        "interconnects[1]": 'interconnects = ["iov", "host_dna"]',
    }
    with pytest.raises(CardError) as caught:
        CardConfig.parse(texts[key], "mine.toml")
    assert str(caught.value).startswith(f"mine.toml: {key}: {shown.removesuffix('...)')}")


def test_the_page_of_the_control_socket_lists_the_commands_that_there_are() -> None:
    text = (DOCS / "control-socket.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)` \|(.*?)\|", text, re.MULTILINE)
    control = Control(Card(CardConfig.default("edu")))
    usage = {entry["command"]: entry["arguments"] for entry in control.help()}
    assert {name for name, _ in listed} == set(usage)
    for name, arguments in listed:
        documented = re.findall(r"`(\w+)`", arguments)
        assert documented == re.findall(r"(\w+):", usage[name]), name


def test_the_page_of_the_trace_lists_the_categories_of_every_card() -> None:
    text = (DOCS / "tracing.md").read_text("utf-8")
    _, table = text.split("| category | events |")
    listed = set(re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE))
    assert listed == set(Card(CardConfig.default("edu")).tracer.categories())


def test_the_page_of_the_interconnects_names_all_of_them_and_their_options() -> None:
    text = (DOCS / "interconnects.md").read_text("utf-8")
    ours = [
        plugin for plugin in find_plugins() if plugin.kind == INTERCONNECT and plugin.distribution == "vfio-user-xe"
    ]
    assert {plugin.name for plugin in ours} == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    for plugin in ours:
        for option in plugin.options:
            assert f"`{option.name}`" in text, f"{plugin.name}: {option.name}"
