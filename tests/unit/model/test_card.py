from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Initiator, Space, Window
from vfio_user_xe.emulator.model import card as card_module
from vfio_user_xe.emulator.model.card import Card, CardConfig, CardError, InterconnectConfig, Option
from vfio_user_xe.emulator.model.card_file import annotated_card
from vfio_user_xe.emulator.model.options import format_size, parse_size
from vfio_user_xe.emulator.model.packaged_cards import load_card, packaged_cards
from vfio_user_xe.emulator.model.plugin_loading import DEVICE_MODEL, INTERCONNECT, Plugin, PluginError
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi, MsiX
from vfio_user_xe.emulator.pci.function import Function, Identity
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport

GIB = 1 << 30


class Toy:
    """A device model for these tests."""

    API_VERSION = (2, 0)
    OPTIONS = (
        Option("vfs", "int", 7, "number of VFs", 0, 63),
        Option("vram", "size", 4 * GIB, "VRAM", 256 << 20, 24 * GIB, multiple_of=2 << 20),
        Option("bar", "size", "256 MiB", "size of BAR 2", power_of_two=True),
        Option("mode", "str", "fast", choices=("fast", "exact")),
        Option("rate", "float", 1.5, minimum=0),
        Option("media", "bool", True),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        if options["vfs"] == 13:
            raise CardError("13 brings bad luck", key="vfs")
        self.registers = RegisterFile("toy", 0x1000)
        card.functions.append(
            Function(
                "toy",
                0,
                executor=card.executor,
                identity=Identity(0x1234, 1),
                capabilities=[Msi()],
                bars={0: Bar(0x1000, handler=self.registers)},
            )
        )


class ToyWithMsiX:
    """A device model whose registers share their BAR with an MSI-X table."""

    API_VERSION = (2, 0)
    OPTIONS = ()

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        card.functions.append(
            Function(
                "toy",
                0,
                executor=card.executor,
                identity=Identity(0x1234, 1),
                capabilities=[MsiX(vectors=1, bar=0, table_offset=0x800, pba_offset=0xC00)],
                bars={0: Bar(0x1000, handler=RegisterFile("beside the table", 0x800))},
            )
        )


class Delay:
    """An interconnect for these tests."""

    API_VERSION = (2, 0)
    OPTIONS = (Option("microseconds", "int", 10, minimum=0), Option("of", "str", "host"))

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.name = "delay"
        self.options = options
        if options["of"] == "nothing":
            raise CardError("needs something to delay", key="of")

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        return None


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = {(DEVICE_MODEL, "toy"): Toy, (DEVICE_MODEL, "msix"): ToyWithMsiX, (INTERCONNECT, "delay"): Delay}

    def load(kind: str, name: str) -> Plugin:
        if (kind, name) not in offered:
            raise PluginError(f'there is no {kind} "{name}"')
        factory = offered[kind, name]
        return Plugin(kind, name, "tests", "tests", "0", "", factory.OPTIONS, (2, 0), factory)

    monkeypatch.setattr(card_module, "load_plugin", load)
    monkeypatch.setattr(card_module, "DEFAULT_INTERCONNECTS", ("delay",))


def parse(text: str) -> CardConfig:
    return CardConfig.parse('model = "toy"\n' + text, "card.toml")


def error_of(make: Callable[[], object]) -> str:
    with pytest.raises(CardError) as caught:
        make()
    return str(caught.value)


def test_everything_has_a_default() -> None:
    config = parse("")
    assert (config.model, config.name) == ("toy", "toy")
    assert config.interconnects == [InterconnectConfig("delay", {"microseconds": 10, "of": "host"})]
    assert config.options == {
        "vfs": 7, "vram": 4 * GIB, "bar": 256 << 20, "mode": "fast", "rate": 1.5, "media": True,
    }  # fmt: skip
    assert CardConfig.default("toy").options == config.options


def test_a_file_says_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "b580.toml"
    path.write_text(
        """
        model = "toy"
        name = "b580"
        interconnects = ["delay:microseconds=0x20,of=x", "delay", { name = "delay", microseconds = 3 }]
        [device]
        vfs = 2
        vram = "1.5 GiB"
        bar = 0x1000
        mode = "exact"
        rate = 2
        media = false
        """
    )
    config = CardConfig.load(path)
    assert config.name == "b580"
    assert [item.options["microseconds"] for item in config.interconnects] == [32, 10, 3]
    assert config.options == {
        "vfs": 2, "vram": 3 * GIB // 2, "bar": 4096, "mode": "exact", "rate": 2.0, "media": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4 GiB", 4 * GIB), ("256MiB", 256 << 20), ("64k", 65536), ("0x1000", 4096), ("4_096", 4096), ("12 B", 12),
        ("1.5 GiB", 3 << 29), ("2 tib", 2 << 40), ("0", 0),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "GiB", "4 GB", "4 XiB", "1.0001 KiB", "-1", "0x", "4 4", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|unknown unit"):
        parse_size(text)


def test_a_decimal_unit_is_answered_with_the_binary_one() -> None:
    with pytest.raises(ValueError, match="write GiB"):
        parse_size("4 GB")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[device]\nvfss = 3", 'card.toml: device.vfss: there is no option "vfss"; did you mean "vfs"? (allowed: vfs,'),
        ("[device]\nvfs = 64", "card.toml: device.vfs: 64 is not allowed; allowed is an integer from 0 to 63"),
        ("[device]\nvfs = -1", "device.vfs: -1 is not allowed"),
        ('[device]\nvfs = "3"', 'device.vfs: "3" is not an integer'),
        ("[device]\nvfs = true", "device.vfs: true is not an integer"),
        ("[device]\nvfs = 2.0", "device.vfs: 2.0 is not an integer"),
        ('[device]\nvram = "4 GB"', 'device.vram: "4 GB" has the unknown unit "GB"; write GiB; allowed is a size'),
        ('[device]\nvram = "25 GiB"', "from 256 MiB to 24 GiB, a multiple of 2 MiB"),
        ("[device]\nvram = 268435457", "a multiple of 2 MiB"),
        ('[device]\nbar = "3 MiB"', "a power of two"),
        ('[device]\nmode = "slow"', 'device.mode: "slow" is not allowed; allowed is one of "fast", "exact"'),
        ("[device]\nmedia = 1", "device.media: 1 is not true or false"),
        ("vfs = 3", "belong under [device]"),
        ("nmae = 'x'", 'did you mean "name"?'),
        ("name = 3", "card.toml: name: must be a name"),
        ("name = 'a/b'", "card.toml: name: must be a name"),
        ("device = 3", "card.toml: device: must be a table"),
        ("interconnects = 'delay'", "card.toml: interconnects: must be a list"),
        ("interconnects = [3]", "card.toml: interconnects[0]: must be"),
        ("interconnects = ['delay', 'relay']", 'card.toml: interconnects[1]: there is no interconnect "relay"'),
        ("interconnects = [{microseconds = 3}]", 'interconnects[0]: a table must have a "name"'),
        ("interconnects = [{name = 'delay', microseconds = -3}]", "interconnects[0].microseconds: -3 is not allowed"),
        ("interconnects = ['delay:seconds=3']", 'there is no option of the interconnect delay "seconds"'),
        ("interconnects = ['delay:microseconds']", "is not of the form key=value"),
        ("name = x\nvfs = 3", "card.toml: is not a TOML file: Invalid value (at line 2, column 8)"),
    ],
)
def test_an_error_names_the_file_the_key_and_what_is_allowed(text: str, expected: str) -> None:
    assert expected in error_of(lambda: parse(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "nowhere.toml: cannot read the card file: No such file" in error_of(
        lambda: CardConfig.load(tmp_path / "nowhere.toml")
    )
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in error_of(lambda: CardConfig.load(tmp_path / "binary.toml"))


def test_an_unknown_model_is_named() -> None:
    assert error_of(lambda: CardConfig.parse('model = "tay"', "card.toml")).startswith("card.toml: model: ")
    assert "must be a string" in error_of(lambda: CardConfig.parse("model = 3", "card.toml"))


def test_the_command_line_overrides_the_file() -> None:
    config = parse("[device]\nvfs = 2\nrate = 3").override(
        vfs=4, settings=["vram=8 GiB", "device.media=off", "name=other", "bar=0x2000"], interconnects=["delay:of=y"]
    )
    assert config.name == "other"
    assert config.options == {
        "vfs": 4, "vram": 8 * GIB, "bar": 0x2000, "mode": "fast", "rate": 3.0, "media": False,
    }  # fmt: skip
    assert config.interconnects == [InterconnectConfig("delay", {"microseconds": 10, "of": "y"})]


def test_an_override_leaves_the_card_it_came_from_alone() -> None:
    config = parse("")
    config.override(vfs=3)
    assert config.options["vfs"] == 7


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"vfs": 64}, "--vfs 64: vfs: 64 is not allowed; allowed is an integer from 0 to 63"),
        ({"settings": ["vfs"]}, "--set vfs: is not of the form key=value"),
        ({"settings": ["vfs=many"]}, '--set vfs=many: vfs: "many" is not an integer'),
        ({"settings": ["vrma=3"]}, 'did you mean "vram"?'),
        ({"settings": ["media=perhaps"]}, '"perhaps" is not true or false'),
        ({"settings": ["name=/"]}, "--set name=/: must be a name"),
        ({"interconnects": ["delay:of"]}, "--interconnect delay:of: "),
        ({"interconnects": ["iov"]}, '--interconnect iov: there is no interconnect "iov"'),
    ],
)
def test_an_override_that_is_wrong_names_the_argument(overrides: dict[str, Any], expected: str) -> None:
    assert expected in error_of(lambda: parse("").override(**overrides))


def test_what_a_plug_in_refuses_is_told_with_its_place() -> None:
    assert error_of(lambda: Card(parse("[device]\nvfs = 13"))) == "card.toml: device.vfs: 13 brings bad luck"
    assert error_of(lambda: Card(parse("").override(vfs=13))) == "--vfs 13: vfs: 13 brings bad luck"
    kept = parse("[device]\nvfs = 13").override(settings=["vram=8GiB"])
    assert error_of(lambda: Card(kept)) == "card.toml: device.vfs: 13 brings bad luck"
    refused = parse("interconnects = ['delay', 'delay:of=nothing']")
    assert error_of(lambda: Card(refused)) == "card.toml: interconnects[1].of: needs something to delay"


def test_a_declaration_whose_default_is_not_allowed_is_refused() -> None:
    with pytest.raises(ValueError, match="option vfs: its default 64 is not allowed"):
        Option("vfs", "int", 64, maximum=63)
    with pytest.raises(ValueError, match="kind 'list' is none of"):
        Option("vfs", "list", 64)  # type: ignore[arg-type]


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card(parse(""))
    made.start()
    yield made
    made.stop()


def test_callbacks_run_in_order_at_start_and_in_reverse_at_stop() -> None:
    made = Card(parse(""))
    seen: list[str] = []
    made.on_start += [lambda: seen.append("start 1"), lambda: seen.append("start 2")]
    made.on_stop += [lambda: seen.append("stop 1"), lambda: seen.append("stop 2")]
    made.start()
    made.executor.submit(lambda: seen.append("last job"))
    made.stop()
    assert seen == ["start 1", "start 2", "last job", "stop 2", "stop 1"]


def test_a_function_is_found_by_name(card: Card) -> None:
    assert card.function("toy") is card.functions[0]
    with pytest.raises(KeyError, match='no function "tooy"; did you mean "toy"'):
        card.function("tooy")


def test_register_files_of_bars_are_found(card: Card) -> None:
    assert [file.name for file in card.register_files] == ["toy"]


def test_a_register_file_beside_an_msix_table_is_found_and_traced(tmp_path: Path) -> None:
    card = Card(CardConfig.default("msix"))
    assert [file.name for file in card.register_files] == ["beside the table"]
    region = card.functions[0].regions[0]
    assert region is not None
    assert region.handler is not None
    card.tracer.start(["mmio"], tmp_path / "t")
    region.handler.read(0x800, 4)
    region.handler.read(4, 4)
    card.tracer.stop()
    (line,) = (tmp_path / "t").read_text().splitlines()
    assert line.endswith("mmio   read register=0x4 offset=4 value=0")
    card.stop()


def test_windows_on_guest_memory_are_revoked_before_an_unmapping_is_answered(card: Card) -> None:
    class Guest(Delay):
        def open(
            self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
        ) -> Window | None:
            entry = card.fabric.ledger.entry(initiator.name, "guest", "guest", kind)
            return Window(address, length, memoryview(bytearray(length)), "guest", entry)

    card.fabric.interconnects = [Guest(card, {"of": "guest"})]
    function = card.functions[0]
    function.attached(FakeTransport())
    inside = card.fabric.window(function, Space.SYSTEM, 0x1000, 0x1000, write=True)
    outside = card.fabric.window(function, Space.SYSTEM, 0x3000, 0x1000, write=True)
    function.drop_windows(0x1FFF, 1)
    assert (inside.valid, outside.valid) == (False, True)
    with pytest.raises(AccessFault, match="revoked"):
        inside.write(0, b"late")
    function.detached()
    card.executor.run_sync(lambda: None)
    assert not outside.valid


def test_the_annotated_default_card_is_a_card_with_the_defaults() -> None:
    text = annotated_card("edu")
    table = tomllib.loads(text)
    assert table["model"] == "edu"
    assert table["interconnects"] == ["iov", "p2p", "host_dma"]
    assert table["device"] == {"dma_mask": 0x0FFFFFFF}
    assert "# The address bits that the device can put out. Allowed: an integer from 0xfff to" in text
    assert "dma_mask = 0xfffffff" in text
    assert "#   views = true" in text


def test_the_annotated_card_of_an_unknown_model_is_refused() -> None:
    assert 'no device model "edv"; did you mean "edu"?' in error_of(lambda: annotated_card("edv"))


def test_a_packaged_card_is_given_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert load_card("b60").name == "b60"
    assert set(packaged_cards()) == {path.stem for path in CARDS}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b60").mkdir()
    assert load_card("b60").source.endswith("cards/b60.toml"), "a folder is no card file"
    (tmp_path / "b50").write_text('model = "xe"\nname = "mine"\n')
    assert load_card("b50").name == "mine", "a file that is there is what is meant"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("b60x", 'b60x: neither a file nor a packaged card; did you mean "b60"?'),
        ("b60.toml", 'b60.toml: no such file; did you mean "b60"?'),
        ("./cards/b58.toml", './cards/b58.toml: no such file; did you mean "b580"?'),
        ("/nowhere/zzz", "/nowhere/zzz: no such file (packaged"),
    ],
)
def test_a_card_that_is_not_there_is_refused_with_the_names_and_the_form_of_a_path(
    word: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    error = error_of(lambda: load_card(word))
    assert error.startswith(said)
    assert f"packaged cards, by name: {', '.join(sorted(path.stem for path in CARDS))};" in error
    assert "by its path: ./my-card.toml" in error


def test_a_card_that_several_packages_have_is_given_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [Path("/a/cards/twice.toml"), Path("/b/cards/twice.toml")]
    monkeypatch.setattr("vfio_user_xe.emulator.model.packaged_cards.packaged_cards", lambda: {"twice": both})
    assert "by its path: /a/cards/twice.toml, /b/cards/twice.toml" in error_of(lambda: load_card("twice"))


CARDS = sorted((Path(__file__).parents[3] / "device_models").glob("*/cards/*.toml"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_cards_that_come_with_us_can_be_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config = CardConfig.load(path)
    made = Card(config)
    assert config.name == path.stem
    assert len(made.functions) == 1 + config.options["vfs"]
    made.start()
    made.stop()
