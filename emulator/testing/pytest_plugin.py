"""The pytest plug-in: cards, guests, the ledger and fault injection as fixtures. `docs/testing-with-pytest.md`.

    pytestmark = [
        pytest.mark.vfio_user_card("--vfs", "2"),
        pytest.mark.vfio_user_guest(modules=["vfio-pci"]),
    ]

    def test_bind(guest, ledger):
        guest.run("modprobe vfio-pci", check=True)
        assert ledger.sum("bytes_written", initiator="pf", owner="guest") == 0

It is there wherever vfio-user-xe is installed, and imports nothing until a test asks for a fixture of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vfio_user_xe.emulator.testing.pytest_marks import CARD_MARK, GUEST_MARK, card_of, guest_of
from vfio_user_xe.emulator.testing.pytest_sharing import GuestSlots, Shared, Slot

if TYPE_CHECKING:
    from vfio_user_xe.emulator.guest.blocking import BlockingGuest
    from vfio_user_xe.emulator.testing.lab import Lab, LiveCard
    from vfio_user_xe.emulator.vfio_user.client import Client

_failed = pytest.StashKey[bool]()
_card = pytest.StashKey["LiveCard"]()
_lab = pytest.StashKey["Lab"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the group "vfio-user-xe"."""
    group = parser.getgroup("vfio-user-xe", "cards and guests of vfio-user-xe")

    def add(name: str, metavar: str, help: str, **more: Any) -> None:
        group.addoption(f"--vfio-user-xe-{name}", metavar=metavar, help=help, **more)

    add("kernel", "BZIMAGE", "boot this kernel instead of the fetched one", type=Path)
    add("modules", "DIR", "its modules: what modules_install made", type=Path)
    add("card", "FILE", "card file of tests that do not name one")
    add("accelerator", "NAME", "auto, kvm or tcg", choices=("auto", "kvm", "tcg"), default="auto")
    add(
        "trace",
        "CATEGORY,...",
        "what cards trace for reports of failures: categories, all, -CATEGORY, none (default: all,-cs)",
    )
    add("console", "DIR", "keep the guests' consoles in this folder", type=Path)
    add("guests", "N", "with xdist: guests at the same time (default: half of the processors)", type=int)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line(
        "markers", f"{CARD_MARK}(*arguments, fresh=False, **options): the test's card, as `vfio-user-xe serve` takes it"
    )
    config.addinivalue_line(
        "markers",
        f"{GUEST_MARK}(fresh=False, **settings): what the test's guest has (vfio_user_xe.emulator.testing.lab.open_lab)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add to the report of a failure what the card and its guest have to say."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed and call.excinfo is not None and not call.excinfo.errisinstance(KeyboardInterrupt):
        item.stash[_failed] = True
        source = item.stash.get(_lab, None) or item.stash.get(_card, None) or _argument_of(item)
        if source is not None and report.when != "teardown":
            for title, text in source.report():
                _add_section(report, title, text)
    return report  # type: ignore[return-value]


def _argument_of(item: pytest.Item) -> Lab | LiveCard | None:
    """The lab or card among the test's arguments, for tests that have fixtures of their own for it."""
    labs = sys.modules.get("vfio_user_xe.emulator.testing.lab")
    if labs is None:
        return None
    arguments = getattr(item, "funcargs", {}).values()
    return next((value for value in arguments if isinstance(value, (labs.Lab, labs.LiveCard))), None)


def _add_section(report: pytest.TestReport, title: str, text: str) -> None:
    # Part of the failure itself where that is possible: then it is in the JUnit file, too.
    add = getattr(report.longrepr, "addsection", None)
    if add is not None:
        add(title, text)
    else:
        report.sections.append((title, text))


class LedgerView:
    """The card's ledger: who reached whose memory, by which interconnect, how often. Empty when the test begins."""

    def __init__(self, card: LiveCard) -> None:
        self._card = card

    def rows(self, **match: str) -> list[dict[str, Any]]:
        """The rows whose columns (initiator, owner, interconnect, kind) are as `match` says.

        Numbers are reads, writes, bytes_read and bytes_written.

        Raises:
            ValueError: `match` has a column that is not there.

        From any thread.
        """
        allowed = ("initiator", "owner", "interconnect", "kind")
        for column in match:
            if column not in allowed:
                raise ValueError(f"the ledger has no column {column!r} to match (allowed: {', '.join(allowed)})")
        rows: list[dict[str, Any]] = self._card.call("ledger")
        return [row for row in rows if all(row[column] == value for column, value in match.items())]

    def sum(self, number: str, **match: str) -> int:
        """One of the numbers (reads, writes, bytes_read, bytes_written), added up over `rows(**match)`.

        Raises:
            ValueError: The ledger has no such number or column.

        From any thread.
        """
        allowed = ("reads", "writes", "bytes_read", "bytes_written")
        if number not in allowed:
            raise ValueError(f"the ledger does not count {number!r} (allowed: {', '.join(allowed)})")
        return sum(row[number] for row in self.rows(**match))

    def clear(self) -> None:
        """Set all to zero."""
        self._card.call("ledger", clear=True)


class FaultInjection:
    """Faults that the test lets happen in the card; healed when it ends."""

    def __init__(self, card: LiveCard) -> None:
        self._card = card

    def inject(self, fault: str, /, *, after: int = 0, times: int = 1, **arguments: Any) -> None:
        """Let `fault` happen `times` times (0: always) after `after` chances have passed.

        Raises:
            CommandError: there is no such fault; it lists those there are.

        From one thread at a time.
        """
        self._card.call("inject", fault=fault, after=after, times=times, arguments=arguments)

    def taken(self, fault: str) -> int:
        """How often it happened since it was injected.

        Raises:
            LookupError: There is no such fault.

        From any thread.
        """
        for point in self.points():
            if point["name"] == fault:
                return int(point["taken"])
        raise LookupError(f"there is no fault {fault!r} (allowed: {', '.join(p['name'] for p in self.points())})")

    def heal(self, fault: str | None = None) -> None:
        """Take one back, or all."""
        self._card.call("heal", fault=fault)

    def points(self) -> list[dict[str, Any]]:
        """Where something can go wrong: name, help, armed, taken."""
        points: list[dict[str, Any]] = self._card.call("faults")
        return points


@pytest.fixture(scope="module")
def _shared() -> Iterator[Shared]:
    shared = Shared()
    try:
        yield shared
    finally:
        shared.drop()


@pytest.fixture
def card(request: pytest.FixtureRequest) -> Iterator[LiveCard]:
    """A served card (`vfio_user_xe.emulator.testing.lab.LiveCard`); the one that the guest has, when the test asks for a guest, too."""
    if {"guest", "lab"} & set(request.fixturenames):
        yield request.getfixturevalue("lab").card
        return
    from vfio_user_xe.emulator.testing.lab import open_card

    arguments, fresh = card_of(request)
    shared: Shared = request.getfixturevalue("_shared")
    with contextlib.ExitStack() as stack:
        if fresh:
            live = stack.enter_context(open_card(arguments))
        else:
            live = shared.get(("card", arguments), lambda card: card.alive, lambda: open_card(arguments))
        request.node.stash[_card] = live
        live.begin(_trace_of(request.config, live))
        yield live
        _finish(request, None if fresh else shared, live)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A card and a guest that has it (`vfio_user_xe.emulator.testing.lab.Lab`).

    Tests of a module that ask for the same card and guest share them, until one fails.
    """
    from vfio_user_xe.emulator.testing.lab import open_lab

    arguments, fresh_card = card_of(request)
    settings, fresh_guest = guest_of(request)
    shared: Shared = request.getfixturevalue("_shared")
    slot = request.getfixturevalue("_guest_slot")
    with contextlib.ExitStack() as stack:
        if fresh_card or fresh_guest:
            stack.enter_context(slot())
            live = stack.enter_context(open_lab(arguments, **settings))
        else:

            @contextlib.contextmanager
            def make() -> Iterator[Lab]:
                with slot(), open_lab(arguments, **settings) as made:
                    yield made

            key = ("lab", arguments, repr(sorted(settings.items())))
            live = shared.get(key, lambda lab: lab.usable(), make)
        request.node.stash[_lab] = live
        live.card.begin(_trace_of(request.config, live.card))
        yield live
        _finish(request, None if fresh_card or fresh_guest else shared, live.card)


@pytest.fixture
def guest(lab: Lab) -> BlockingGuest:
    """A guest that has the card (`vfio_user_xe.emulator.guest.BlockingGuest`)."""
    return lab.guest


@pytest.fixture
def vfio_client(card: LiveCard) -> Iterator[Client]:
    """A vfio-user client of the card's first function, in a guest's stead (`vfio_user_xe.emulator.vfio_user.client.Client`)."""
    with card.client() as client:
        yield client


@pytest.fixture
def ledger(card: LiveCard) -> LedgerView:
    """The card's ledger, emptied."""
    ledger = LedgerView(card)
    ledger.clear()
    return ledger


@pytest.fixture
def faults(card: LiveCard) -> FaultInjection:
    """Fault injection into the card."""
    return FaultInjection(card)


def _finish(request: pytest.FixtureRequest, shared: Shared | None, card: LiveCard) -> None:
    """A test ended: what failed may have left anything behind, and is not shared (`shared` is who shares it) on."""
    if shared is None:
        return
    if request.node.stash.get(_failed, False):
        shared.drop()
    elif card.alive:
        card.call("heal")


def _trace_of(config: pytest.Config, card: LiveCard) -> list[str]:
    # Commands of GPU engines are too many to write down by the way.
    chosen: str = config.getoption("vfio_user_xe_trace") or "all,-cs"
    return [] if chosen == "none" else [name.strip() for name in chosen.split(",")]


@pytest.fixture(scope="session")
def _guest_slot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Slot:
    """Under xdist only so many guests run at the same time, whatever the number of workers."""
    count = request.config.getoption("vfio_user_xe_guests") or max(1, (os.cpu_count() or 1) // 2)
    parallel = hasattr(request.config, "workerinput")
    return GuestSlots(tmp_path_factory.getbasetemp().parent, count).hold if parallel else contextlib.nullcontext
