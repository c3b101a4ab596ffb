"""What the engine has to know of a device model besides how to run it: names, firmware, suites of tests.

    class Blinker:
        "A card that blinks."
        API_VERSION = (2, 0)
        INFO = ModelInfo(title="a Blinker", firmware={"blinker": ("blinker/main.bin",)})

Every field has a default, and so has `INFO` itself: a model without it can be served and tested too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Topology:
    """One way to spread a card's functions over guests: a choice of the model's option `topology`."""

    help: str = ""
    iommu: bool = False
    """Whether the guest needs a vIOMMU, to pass functions on to guests of its own."""


@dataclass(frozen=True, slots=True)
class TraceProcess:
    """Where the Perfetto UI shows the events of a trace category of the model: a process, with a track a unit."""

    title: str
    """The process's name, such as that of a firmware."""
    unit: str
    """The field of the events that numbers the unit: with "gt", events with `gt=1` are on the track gt1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What the engine has to know of a device model besides how to run it: the class attribute `INFO`, which is optional.

    Read when the plug-in is loaded, by any thread afterwards; nothing in it changes.
    """

    title: str = ""
    """What the model emulates, with its article: "a Blinker graphics card"."""
    default: bool = False
    """Whether it is the model of a card whose file names none. At most one of the installed models may say so."""
    firmware: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By kernel module, the firmware files that it requests on this model's cards, as the kernel names them.

    Guests that have the module get these files from the guest environment.
    """
    firmware_packages: tuple[str, ...] = ()
    """Debian packages with these files, for `vfio-user-xe guest fetch`."""
    userland_packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By userland ("compute", "graphics"), Debian packages with the programs and libraries that drive this model's cards.

    They are added to what the userland holds for every card (`vfio-user-xe guest fetch --userland`).
    """
    address_spaces: Mapping[str, str] = field(default_factory=dict)
    """By name, help of the address spaces that the model's command `walk` walks; the first is taken if none is named."""
    topologies: Mapping[str, Topology] = field(default_factory=dict)
    """By name, what the choices of the model's option `topology` are."""
    trace_processes: Mapping[str, TraceProcess] = field(default_factory=dict)
    """By trace category, for the model's own categories; events of others are shown with their function."""
    suites: Mapping[str, Path] = field(default_factory=dict)
    """By runner ("igt"), the folder of files that says what the runner is to run on this model and what to expect."""
    scenarios: Mapping[str, str] = field(default_factory=dict)
    """By command ("scenario", "fuzz kernel"), the suite of scenarios (a name of the entry points' group `vfio_user_xe.scenarios`)
    that it takes if none is named.
    """
    kernel_config: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """By purpose ("scenarios", "debug"), fragments of a kernel's configuration for `vfio-user-xe kernel`, to be merged in this order.

    Their form is described in `vfio_user_xe.emulator.guest.kernel_config`. The first purpose is taken if none is named.
    """

    def problem(self) -> str:
        """What is wrong with the fields' types, for a model that no type checker has seen; "" when nothing is."""
        for one, wanted in (
            ("title", isinstance(self.title, str)),
            ("default", isinstance(self.default, bool)),
            ("firmware", _is_mapping(self.firmware, tuple) and all(map(_is_words, self.firmware.values()))),
            ("firmware_packages", _is_words(self.firmware_packages)),
            (
                "userland_packages",
                _is_mapping(self.userland_packages, tuple) and all(map(_is_words, self.userland_packages.values())),
            ),
            ("address_spaces", _is_mapping(self.address_spaces, str)),
            ("topologies", _is_mapping(self.topologies, Topology)),
            ("trace_processes", _is_mapping(self.trace_processes, TraceProcess)),
            ("suites", _is_mapping(self.suites, Path)),
            ("scenarios", _is_mapping(self.scenarios, str)),
            (
                "kernel_config",
                _is_mapping(self.kernel_config, tuple)
                and all(isinstance(file, Path) for files in self.kernel_config.values() for file in files),
            ),
        ):
            if not wanted:
                kind = next(str(item.type) for item in fields(self) if item.name == one)
                return f"its INFO.{one} is not of the type {kind}"
        return ""


def _is_words(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(word, str) for word in value)


def _is_mapping(value: object, kind: type) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(item, kind) for key, item in value.items()
    )


def firmware_of(infos: Iterable[ModelInfo], modules: Iterable[str]) -> tuple[str, ...]:
    """Firmware files that the models name for `modules`, each a module's name, with or without parameters behind it."""
    known = list(infos)
    return tuple(
        dict.fromkeys(
            name
            for module in modules
            for info in known
            for name in info.firmware.get(module.split()[0].rstrip("?"), ())
        )
    )
