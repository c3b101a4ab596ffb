"""Which IGT tests to run and how: a TOML file, which is what knows the device.

    [guest]                       # what the guest needs for the tests
    driver = "vgem"               # the driver that owns the functions
    pci_class = "0x030000"        # how the card's functions are recognised in /sys/bus/pci
    modules = ["vkms"]            # loadable besides the driver
    firmware = ["maker/card.bin"] # below /lib/firmware
    programs = ["rtcwake"]        # of the host, that tests call; one that is not here is left out
    memory = 2048                 # MiB
    ready = "ls /sys/bus/pci/devices/$1/drm | grep -q renderD"     # shell: is the bound function $1 usable?
    append = ""                   # to the kernel's command line
    setup = "..."                 # shell, once after boot, before the driver is loaded
    suspends = ["core_auth@s3-*"] # subtests that suspend their guest to RAM; they are run in one with OVMF
    cleanup = "..."               # shell, after each subtest; $PF is the PF's address

    [kernel_log]
    errors = ['\\*ERROR\\*']      # regular expressions, one a line
    allowed = []
    wedged = []

    [timeouts]                    # seconds a subtest, by pattern; the first that matches
    "core_hotunplug@*" = 120
    "*" = 60

    [wake]                        # for a machine that does not wake by itself: when the console says this, ...
    console = 'suspend entry .s2idle.'
    after = 3                     # ... so many seconds later ...
    qmp = "system_powerdown"      # ... this is sent to QEMU,
    awake = 'suspend exit'        # again and again until the console says this (without it: once)

    [before]                      # shell before a subtest, by pattern; the first that matches
    "core_auth@*" = "modprobe -r vkms"

    [after]                       # shell after a subtest and before the cleanup, by pattern; the first that matches
    "device_reset@reset-bound" = "rmmod vgem"

    [[group]]
    name = "first"
    tests = ["core_getversion", "sysfs_*"]
    on = "pf"                     # or "vf1": that VF, made and bound before
    active = false                # true: a pass in which the device did nothing is no pass
    device = { vram = "1 GiB" }   # options of the card
    cards = 1                     # so many equal cards; the first is the one under test
    memory = 4096                 # MiB of the guest, instead of [guest] memory
    cpu = "EPYC,phys-bits=46"     # QEMU's -cpu
    ovmf = false                  # true: OVMF instead of SeaBIOS

Several `[[group]]` tables may have one name; each is run in a guest of its own.  Patterns are those of a shell, on
`test@subtest`; one without `@` means all subtests of the tests that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.suites.group import checked_function, kernel_log, selected, time_limit, vf_number
from vfio_user_xe.emulator.suites.subtest import KernelLog
from vfio_user_xe.emulator.suites.table import SuiteError, Table, fits

_MOST_CARDS = 4


@dataclass(frozen=True)
class GuestNeeds:
    """The `[guest]` table."""

    driver: str
    pci_class: str
    modules: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    memory: int = 2048
    cpus: int = 1
    ready: str = "true"
    append: str = ""
    setup: str = ""
    cleanup: str = ""
    suspends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """One `[[group]]` table."""

    name: str
    tests: tuple[str, ...]
    on: str = "pf"
    active: bool = False
    device: Mapping[str, Any] = field(default_factory=dict)
    cards: int = 1
    memory: int = 0
    cpu: str = ""
    ovmf: bool = False

    @property
    def vf(self) -> int:
        """The number of the VF that the tests run on, 0 for the PF."""
        return vf_number(self.on)

    def names(self, test: str) -> bool:
        """Whether `test` (a program's name) belongs to the group."""
        return any(fnmatchcase(test, pattern) for pattern in self.tests)


@dataclass(frozen=True)
class Wake:
    """The `[wake]` table."""

    console: str
    after: float
    qmp: str
    awake: str = ""


@dataclass(frozen=True)
class Suite:
    """A suite file, checked."""

    guest: GuestNeeds
    groups: tuple[Group, ...]
    kernel_log: KernelLog
    timeouts: tuple[tuple[str, float], ...] = ()
    before: tuple[tuple[str, str], ...] = ()
    after: tuple[tuple[str, str], ...] = ()
    wake: Wake | None = None

    @staticmethod
    def load(path: Path) -> Suite:
        """Read a suite file.

        Raises:
            SuiteError: the file cannot be read, or has a key or value that is not allowed; its place is named.
        """
        table = Table.read(path)
        needs = table.table("guest")
        guest = GuestNeeds(
            driver=needs.text("driver"),
            pci_class=needs.text("pci_class"),
            modules=needs.texts("modules"),
            firmware=needs.texts("firmware"),
            programs=needs.texts("programs"),
            memory=needs.number("memory", GuestNeeds.memory),
            cpus=needs.number("cpus", GuestNeeds.cpus),
            ready=needs.text("ready", GuestNeeds.ready),
            append=needs.text("append", ""),
            setup=needs.text("setup", ""),
            suspends=needs.texts("suspends"),
            cleanup=needs.text("cleanup", ""),
        )
        needs.finish()
        log = kernel_log(table.table("kernel_log"))
        timeouts = table.table("timeouts").seconds()
        before, after = (
            tuple((pattern, hooks.text(pattern)) for pattern in hooks.values)
            for hooks in (table.table("before"), table.table("after"))
        )
        wake = None
        if (waking := table.table("wake")).values:
            wake = Wake(waking.text("console"), waking.number("after", 3), waking.text("qmp"), waking.text("awake", ""))
            waking.finish()
        groups = []
        for item in table.tables("group"):
            group = Group(
                item.text("name"),
                item.texts("tests"),
                item.text("on", "pf"),
                item.flag("active"),
                item.table("device").values,
                item.number("cards", 1),
                item.number("memory", 0),
                item.text("cpu", ""),
                item.flag("ovmf"),
            )
            item.finish()
            checked_function(group.on, f"{item.place}.on")
            if not 1 <= group.cards <= _MOST_CARDS:
                raise SuiteError(f"{item.place}.cards: {group.cards} is not between 1 and {_MOST_CARDS}")
            groups.append(group)
        table.finish()
        return Suite(guest, tuple(groups), log, timeouts, before, after, wake)

    def with_memory(self, memory: int) -> Suite:
        """The same, every guest with `memory` MiB."""
        groups = tuple(replace(group, memory=memory) for group in self.groups)
        return replace(self, guest=replace(self.guest, memory=memory), groups=groups)

    def most_memory(self, names: Iterable[str] = ()) -> int:
        """MiB of the largest guest of these groups.

        Raises:
            SuiteError: there is no group of a name.
        """
        return max((group.memory or self.guest.memory for group in self.select(names)), default=self.guest.memory)

    def select(self, names: Iterable[str] = ()) -> list[Group]:
        """The groups of these names, in the file's order (all without names).

        Raises:
            SuiteError: there is no group of a name.
        """
        return selected(self.groups, names)

    def preparation(self, name: str) -> str:
        """Shell to run before the subtest `name`."""
        return next((script for pattern, script in self.before if fits(pattern, name)), "")

    def aftermath(self, name: str) -> str:
        """Shell to run after the subtest `name`, besides the cleanup of all."""
        return next((script for pattern, script in self.after if fits(pattern, name)), "")

    def suspends(self, name: str) -> bool:
        """Whether the subtest `name` suspends the guest to RAM, from which one that was booted directly does not return."""
        return any(fits(pattern, name) for pattern in self.guest.suspends)

    def timeout(self, name: str, default: float = 60) -> float:
        """Seconds that the subtest `name` may take."""
        return time_limit(self.timeouts, name, default)
