"""Which tests of a userland to run, and how: a TOML file, which is what knows the device and the drivers.

    title = "PyOpenCL's own tests"

    [guest]
    userland = "suites"           # vfio-user-xe guest fetch --userland suites
    modules = ["blinker"]
    memory = 3072                 # MiB
    setup = "modprobe blinker"         # shell, once after boot; $VF is the number of the VF under test, 0 for the PF

    [source]                      # what the tests come from, besides the userland
    pip = "pyopencl=={python3-pyopencl}"    # a source distribution; {PACKAGE} is the version of the userland's package
    folder = "test"               # in it; without pip: beside this file

    [kernel_log]
    errors = ['\\*ERROR\\*']      # regular expressions, one a line
    allowed = []
    wedged = []

    [timeouts]                    # seconds a test, by pattern; the first that matches
    "test_array.py@*" = 120
    "*" = 60

    [[group]]
    name = "opencl"
    kind = "pytest"               # files of [source]; "piglit": tests of a profile; "command": [group.commands]
    tests = ["test_*.py"]         # patterns
    on = "pf"                     # or "vf1": the function that the guest's drivers find
    env = { OCL_ICD_VENDORS = "blinker.icd" }
    device = { vram = "4 GiB" }   # options of the card
    active = true                 # a pass in which the device did nothing is no pass

    [[group]]
    name = "gl"
    kind = "piglit"
    profile = "quick"
    tests = ["*"]

    [[group]]
    name = "programs"
    kind = "command"
    [group.commands]
    clinfo = "clinfo | grep -q Blinker"        # passes with exit code 0, is skipped with 77
    [group.files]
    "/root/on.py" = "on.py"       # a path in the guest and a file beside this one

Patterns are those of a shell, on `test@subtest`; one without `@` means all subtests of the tests that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from vfio_user_xe.emulator.suites.group import checked_function, kernel_log, selected, time_limit, vf_number
from vfio_user_xe.emulator.suites.subtest import KernelLog
from vfio_user_xe.emulator.suites.table import SuiteError, Table


class Kind(StrEnum):
    """What a group's tests are."""

    PYTEST = "pytest"
    PIGLIT = "piglit"
    COMMAND = "command"


@dataclass(frozen=True)
class Needs:
    """The `[guest]` table."""

    userland: str
    modules: tuple[str, ...] = ()
    memory: int = 2048
    cpus: int = 1
    setup: str = ""
    append: str = ""


@dataclass(frozen=True)
class Source:
    """The `[source]` table: a requirement for pip and a folder in what it downloads; without one, a folder in `suite`."""

    pip: str
    folder: str
    suite: Path = Path()


@dataclass(frozen=True)
class Group:
    """One `[[group]]` table."""

    name: str
    kind: Kind
    tests: tuple[str, ...] = ("*",)
    on: str = "pf"
    env: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, object] = field(default_factory=dict)
    active: bool = False
    profile: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    """What commands need in the guest, by the path there."""

    @property
    def vf(self) -> int:
        """The number of the VF that the tests run on, 0 for the PF."""
        return vf_number(self.on)


@dataclass(frozen=True)
class UserlandSuite:
    """A suite file, checked."""

    title: str
    guest: Needs
    groups: tuple[Group, ...]
    kernel_log: KernelLog
    source: Source | None = None
    timeouts: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def load(path: Path) -> UserlandSuite:
        """Read a suite file.

        Raises:
            SuiteError: It cannot be read, or something in it is missing, unknown or of the wrong type.
        """
        table = Table.read(path)
        title = table.text("title")
        guest = table.table("guest")
        needs = Needs(
            guest.text("userland"),
            guest.texts("modules"),
            guest.number("memory", Needs.memory),
            guest.number("cpus", Needs.cpus),
            guest.text("setup", ""),
            guest.text("append", ""),
        )
        guest.finish()
        source = None
        if (given := table.table("source")).values:
            source = Source(given.text("pip", ""), given.text("folder"), path.parent)
            given.finish()
        log = kernel_log(table.table("kernel_log"))
        timeouts = table.table("timeouts").seconds()
        groups = tuple(_group(item, source, path.parent) for item in table.tables("group"))
        table.finish()
        return UserlandSuite(title, needs, groups, log, source, timeouts)

    def select(self, names: Iterable[str] = ()) -> list[Group]:
        """The groups of these names, in the file's order (all without names).

        Raises:
            SuiteError: There is no group of a name.
        """
        return selected(self.groups, names)

    def timeout(self, name: str, default: float = 60) -> float:
        """Seconds that the test `name` may take."""
        return time_limit(self.timeouts, name, default)


def _group(item: Table, source: Source | None, folder: Path) -> Group:
    group = Group(
        item.text("name"),
        Kind(item.text("kind", choices=tuple(Kind))),
        item.texts("tests") or ("*",),
        item.text("on", "pf"),
        item.table("env").words(),
        item.table("device").values,
        item.flag("active"),
        item.text("profile", ""),
        item.table("commands").words(),
        {guest: folder / name for guest, name in item.table("files").words().items()},
    )
    item.finish()
    checked_function(group.on, f"{item.place}.on")
    for kind, key, there in (
        (Kind.PIGLIT, "profile", bool(group.profile)),
        (Kind.COMMAND, "commands", bool(group.commands)),
    ):
        if (group.kind is kind) != there:
            raise SuiteError(
                f'{item.place}.{key}: belongs to kind = "{kind}", and that needs it; this is "{group.kind}"'
            )
    if group.files and group.kind is not Kind.COMMAND:
        raise SuiteError(f'{item.place}.files: belongs to kind = "command"; this is "{group.kind}"')
    for guest, file in group.files.items():
        if not guest.startswith("/") or not file.is_file():
            raise SuiteError(
                f'{item.place}.files: want "/PATH/IN/THE/GUEST" = "FILE" with a file in {folder}, not {guest}'
            )
    if group.kind is Kind.PYTEST and source is None:
        raise SuiteError(f'{item.place}: kind = "pytest" needs a table [source], which says where the tests come from')
    return group
