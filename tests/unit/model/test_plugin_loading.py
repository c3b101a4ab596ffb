"""Plug-ins as strangers write them: packages of their own, found through their entry points."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from vfio_user_xe.emulator import API_VERSION
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.guest.environment import firmware_packages
from vfio_user_xe.emulator.guest.initramfs import known_firmware
from vfio_user_xe.emulator.model.card import Card, CardConfig, CardError
from vfio_user_xe.emulator.model.model_info import ModelInfo
from vfio_user_xe.emulator.model.plugin_loading import (
    DEVICE_MODEL,
    INTERCONNECT,
    Plugin,
    PluginError,
    default_model,
    find_plugins,
    load_plugin,
)

MAILBOX = """
    from vfio_user_xe.emulator.model.card import Option
    from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space, Window


    class Mailbox:
        '''A page of memory that every function of the card sees.

        More about it.
        '''

        API_VERSION = (2, 0)
        OPTIONS = (
            Option("address", "int", 0x1000, "where it is"),
            Option("size", "size", "4 KiB", "how large it is"),
        )

        def __init__(self, card, options):
            self.name = "mailbox"
            self.card = card
            self.address = options["address"]
            self.bytes = memoryview(bytearray(options["size"]))

        def open(self, initiator, space, address, length, write, kind):
            offset = address - self.address
            if space != Space.SYSTEM or not 0 <= offset < len(self.bytes):
                return None
            if initiator.index > 3:
                raise AccessFault(initiator, space, address, "the mailbox has three slots")
            view = self.bytes[offset : offset + length]
            entry = self.card.fabric.ledger.entry(initiator.name, "mailbox", self.name, kind)
            return Window(address, len(view), view, "mailbox", entry)
"""


class Package:
    """A distribution in a folder of its own on `sys.path`, as an installer leaves it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.info = folder / f"{name}-2.5.dist-info"
        self.info.mkdir(parents=True)
        (self.info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")

    def offer(self, group: str, **entries: str) -> Package:
        lines = [f"[vfio_user_xe.{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
        with (self.info / "entry_points.txt").open("a") as file:
            file.write("\n".join(lines))
        return self

    def module(self, name: str, text: str) -> Package:
        (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        return self


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path` for packages; what they import is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def found(kind: str, name: str) -> Plugin:
    (plugin,) = [plugin for plugin in find_plugins() if (plugin.kind, plugin.name) == (kind, name)]
    return plugin


def test_our_own_plug_ins_are_found_like_everybody_s() -> None:
    for kind, name, module in (
        (DEVICE_MODEL, "edu", "vfio_user_xe.device_models.edu:Edu"),
        (INTERCONNECT, "iov", "vfio_user_xe.plugins.iov:Iov"),
        (INTERCONNECT, "host_dma", "vfio_user_xe.plugins.host_dma:HostDma"),
    ):
        plugin = found(kind, name)
        assert (plugin.module, plugin.distribution, plugin.error) == (module, "vfio-user-xe", "")
        assert plugin.doc


def test_an_interconnect_of_another_package_is_listed_with_all_that_is_known(installed: Path) -> None:
    Package(installed, "mailbox").offer("interconnects", mailbox="mailbox_plugin:Mailbox").module(
        "mailbox_plugin", MAILBOX
    )
    plugin = found(INTERCONNECT, "mailbox")
    assert plugin.as_dict() == {
        "kind": "interconnect",
        "name": "mailbox",
        "module": "mailbox_plugin:Mailbox",
        "distribution": "mailbox",
        "version": "2.5",
        "doc": "A page of memory that every function of the card sees.",
        "options": [
            {"name": "address", "kind": "int", "default": 0x1000, "allowed": "an integer", "help": "where it is"},
            {
                "name": "size",
                "kind": "size",
                "default": 4096,
                "allowed": 'a size ("4 GiB", 0x1000)',
                "help": "how large it is",
            },
        ],
        "error": "",
    }


def test_an_interconnect_of_another_package_is_selected_traced_and_accounted_like_ours(
    installed: Path, tmp_path: Path
) -> None:
    Package(installed, "mailbox").offer("interconnects", mailbox="mailbox_plugin:Mailbox").module(
        "mailbox_plugin", MAILBOX
    )
    config = CardConfig.default("edu").override(interconnects=["iov", "mailbox:address=0x5000,size=8KiB", "host_dma"])
    card = Card(config)
    card.start()
    trace = tmp_path / "trace.txt"
    card.tracer.start(["fabric"], trace)
    edu = card.functions[0]
    card.executor.run_sync(lambda: card.fabric.write(edu, Space.SYSTEM, 0x6FFC, b"mail", "dma"))
    assert card.executor.run_sync(lambda: card.fabric.read(edu, Space.SYSTEM, 0x6FFC, 4, "dma")) == b"mail"
    with pytest.raises(AccessFault, match="iov, mailbox, host_dma"):
        card.executor.run_sync(lambda: card.fabric.read(edu, Space.SYSTEM, 0x7000, 4, "dma"))
    card.stop()
    (entry,) = card.fabric.ledger
    assert (entry.initiator, entry.owner, entry.interconnect, entry.kind) == ("edu", "mailbox", "mailbox", "dma")
    assert (entry.reads, entry.bytes_read, entry.writes, entry.bytes_written) == (1, 4, 1, 4)
    lines = trace.read_text().splitlines()
    assert len(lines) == 2
    assert all("interconnect=mailbox owner=mailbox" in line and "address=0x6ffc" in line for line in lines)


def test_options_of_a_foreign_interconnect_are_checked_by_its_own_declarations(installed: Path) -> None:
    Package(installed, "mailbox").offer("interconnects", mailbox="mailbox_plugin:Mailbox").module(
        "mailbox_plugin", MAILBOX
    )
    with pytest.raises(CardError, match='did you mean "address"'):
        CardConfig.default("edu").override(interconnects=["mailbox:adress=3"])


BROKEN = {
    "missing_module": ("nowhere_at_all:X", "", "No module named 'nowhere_at_all'"),
    "missing_class": ("broken_plugin:Nothing", "", "has no attribute 'Nothing'"),
    "raises": ("broken_plugin:X", "raise OSError('planned')", "OSError: planned"),
    "exits": ("broken_plugin:X", "raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("broken_plugin:X", "class X(:", "SyntaxError"),
    "no_version": ("broken_plugin:X", "class X: OPTIONS = ()", "states no API version"),
    "odd_version": ("broken_plugin:X", "class X: API_VERSION = '1'", "not two integers"),
    "newer": (
        "broken_plugin:X",
        "class X: API_VERSION = (2, 999)",
        "written for API version 2.999.*update vfio-user-xe",
    ),
    "older": ("broken_plugin:X", "class X: API_VERSION = (0, 9)", "look for a newer version of the plug-in"),
    "no_class": ("broken_plugin", "API_VERSION = (2, 0)", "is module, not a class or a function"),
    "options": (
        "broken_plugin:X",
        "class X: API_VERSION = (2, 0); OPTIONS = ['a']",
        "not a tuple of vfio_user_xe.emulator.model.card.Option",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plug_in_is_named_with_its_reason_and_harms_no_other(installed: Path, case: str) -> None:
    value, text, reason = BROKEN[case]
    Package(installed, "broken").offer("interconnects", broken=value).module("broken_plugin", text)
    plugin = found(INTERCONNECT, "broken")
    assert plugin.factory is None
    with pytest.raises(PluginError, match=reason) as caught:
        load_plugin(INTERCONNECT, "broken")
    assert str(caught.value).startswith(f'interconnect "broken" ({value}, package broken): ')
    assert CardConfig.default("edu").override(interconnects=["host_dma"]).interconnects[0].name == "host_dma"


def test_a_broken_plug_in_is_fatal_to_the_card_that_names_it_only(installed: Path) -> None:
    Package(installed, "broken").offer("interconnects", broken="broken_plugin:X").module("broken_plugin", "1 / 0")
    with pytest.raises(CardError, match=r"x.toml: interconnects\[1\]: interconnect \"broken\".*ZeroDivisionError"):
        CardConfig.parse('model = "edu"\ninterconnects = ["iov", "broken"]', "x.toml")


def test_an_older_minor_version_is_welcome(installed: Path) -> None:
    Package(installed, "fine").offer("interconnects", fine="fine_plugin:X").module(
        "fine_plugin", f"class X:\n    API_VERSION = ({API_VERSION[0]}, 0)\n"
    )
    assert load_plugin(INTERCONNECT, "fine").options == ()


def test_a_plug_in_that_nobody_asks_for_is_not_imported(installed: Path) -> None:
    Package(installed, "lazy").offer("interconnects", lazy="lazy_plugin:X").module("lazy_plugin", "raise OSError")
    Card(CardConfig.default("edu"))
    assert "lazy_plugin" not in sys.modules


def test_one_name_from_two_packages_is_refused_naming_both(installed: Path) -> None:
    for name in ("first", "second"):
        Package(installed, name).offer("interconnects", mailbox="mailbox_plugin:Mailbox")
    with pytest.raises(PluginError, match="several packages: first, second; uninstall all but one"):
        load_plugin(INTERCONNECT, "mailbox")
    listed = [plugin for plugin in find_plugins(INTERCONNECT) if plugin.name == "mailbox"]
    assert [plugin.error for plugin in listed] == 2 * [
        "is offered by several packages: first, second; uninstall all but one"
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [(["level", "size", "level"], "several of its OPTIONS are called level"), (["name"], "called name")],
)
def test_options_of_a_plug_in_can_be_told_apart(names: list[str], said: str, installed: Path) -> None:
    options = "".join(f'Option("{name}", "int", 0), ' for name in names)
    Package(installed, "twins").offer("interconnects", twins="twins_plugin:X").module(
        "twins_plugin",
        f"from vfio_user_xe.emulator.model.card import Option\n\n\nclass X:\n    API_VERSION = (2, 0)\n    OPTIONS = ({options})\n",
    )
    with pytest.raises(PluginError, match=said):
        load_plugin(INTERCONNECT, "twins")


def test_a_device_model_of_another_package_makes_a_card(installed: Path) -> None:
    Package(installed, "lamp").offer("device_models", lamp="lamp_plugin:Lamp").module(
        "lamp_plugin",
        """
        from vfio_user_xe.emulator.pci.bars import Bar
        from vfio_user_xe.emulator.pci.function import Function, Identity
        from vfio_user_xe.emulator.model.register_file import RegisterFile
        from vfio_user_xe.emulator.model.registers import Register

        class Lamp:
            API_VERSION = (2, 0)
            OPTIONS = ()

            def __init__(self, card, options):
                self.registers = RegisterFile("lamp", 4096)
                self.registers.add([Register("SWITCH", 0, mask=1)])
                card.functions.append(
                    Function("lamp", 0, executor=card.executor, identity=Identity(0x1234, 1), capabilities=[],
                             bars={0: Bar(4096, handler=self.registers)})
                )
        """,
    )
    card = Card(CardConfig.default("lamp"))
    assert [function.name for function in card.functions] == ["lamp"]
    assert [file.name for file in card.register_files] == ["lamp"]


MODEL = """
    from vfio_user_xe.emulator.api import ModelInfo, Topology


    class Model:
        API_VERSION = (2, 0)
        INFO = {info}
"""


def test_a_model_that_says_nothing_of_itself_has_defaults(installed: Path) -> None:
    assert load_plugin(DEVICE_MODEL, "edu").info == ModelInfo()


def test_a_second_default_model_makes_the_model_be_named(installed: Path) -> None:
    assert default_model().name == "xe"
    assert CardConfig.default().model == "xe"
    Package(installed, "rival").offer("device_models", rival="rival_plugin:Model").module(
        "rival_plugin", MODEL.format(info="ModelInfo(default=True)")
    )
    with pytest.raises(
        PluginError, match=r"rival, xe each say to be the default: name the model \(allowed: conformance"
    ):
        default_model()
    with pytest.raises(CardError, match="rival, xe each say to be the default"):
        CardConfig.default()
    with pytest.raises(CardError, match=r"x\.toml: model: .*each say to be the default"):
        CardConfig.parse('name = "nobody-s"', "x.toml")
    assert CardConfig.default("edu").model == "edu"


def test_firmware_of_a_foreign_model_goes_into_guests_that_have_its_module(installed: Path) -> None:
    info = "ModelInfo(firmware={'blinker': ('blinker/a.bin',), 'xe': ('xe/more.bin',)}, firmware_packages=('fw',))"
    Package(installed, "blinker").offer("device_models", blinker="blinker_plugin:Model").module(
        "blinker_plugin", MODEL.format(info=info)
    )
    assert known_firmware(["blinker fast=1", "vgem"]) == ("blinker/a.bin",)
    assert set(known_firmware(["xe"])) == {"xe/bmg_guc_70.bin", "xe/bmg_huc.bin", "xe/more.bin"}
    assert firmware_packages() == ["firmware-intel-graphics", "fw"]


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ("{}", r"its INFO is not a vfio_user_xe\.emulator\.api\.ModelInfo"),
        ("ModelInfo(title=3)", r"its INFO\.title is not of the type str"),
        ("ModelInfo(firmware={'blinker': 'blinker.bin'})", r"its INFO\.firmware is not of the type Mapping\["),
        ("ModelInfo(firmware_packages='fw')", r"its INFO\.firmware_packages is not of the type tuple\["),
        ("ModelInfo(topologies={'nested': True})", r"its INFO\.topologies is not of the type Mapping\[str, Topology\]"),
        ("ModelInfo(scenarios={'scenario': 3})", r"its INFO\.scenarios is not of the type Mapping\[str, str\]"),
        ("ModelInfo(suites={'igt': 'folder'})", r"its INFO\.suites is not of the type Mapping\[str, Path\]"),
    ],
)
def test_information_of_the_wrong_type_is_named(installed: Path, info: str, reason: str) -> None:
    Package(installed, "wrong").offer("device_models", wrong="wrong_plugin:Model").module(
        "wrong_plugin", MODEL.format(info=info)
    )
    with pytest.raises(PluginError, match=reason):
        load_plugin(DEVICE_MODEL, "wrong")
