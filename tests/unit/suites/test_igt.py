"""What is run, and what happens to guest and card around it. The guest is played by the test."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import trio

from tests.support.guest.environments import environment_in
from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import CommandTimeout, ConsoleTimeout, GuestError, GuestPanic
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription
from vfio_user_xe.emulator.guest.served import ServedCard
from vfio_user_xe.emulator.results.shard import Parts, Shard
from vfio_user_xe.emulator.results.times import Times
from vfio_user_xe.emulator.suites.expectations import Expectations
from vfio_user_xe.emulator.suites.igt import bench as igt_bench
from vfio_user_xe.emulator.suites.igt import runner as igt
from vfio_user_xe.emulator.suites.igt.runner import DeviceNotReady, IgtRun, divided, plan, run_igt
from vfio_user_xe.emulator.suites.igt.suite import Group, GuestNeeds, Suite, Wake
from vfio_user_xe.emulator.suites.subtest import KernelLog
from vfio_user_xe.emulator.suites.table import SuiteError

SUBTESTS = {"xe_query": ["config", "engines", "pxp"], "xe_vm": ["bind-a", "bind-b", "scratch"], "drm_mm": [""]}
RULES = KernelLog.compiled(["ERROR"], [], ["wedged"])
PF = "0000:01:00.0"


def suite(*groups: Group) -> Suite:
    chosen = groups or (Group("first", ("xe_query",)), Group("second", ("xe_vm",)))
    return Suite(
        GuestNeeds("xe", "0x030000", cleanup="clean up"),
        chosen,
        RULES,
        timeouts=(("*", 30),),
        before=(("xe_query@pxp", "prepare this"),),
        after=(("xe_query@pxp", "mend this"),),
    )


def request(output: Path = Path(), *, groups: Iterable[Group] = (), **options: Any) -> IgtRun:
    return IgtRun(Path("igt"), suite(*groups), Expectations(), output, environment=environment_in(), **options)


def listing(names: Iterable[str]) -> dict[str, list[str]]:
    return {name: SUBTESTS[name] for name in names}


def planned(run: IgtRun) -> list[tuple[str, list[str]]]:
    return [
        (f"{item.group.name}/{item.group.on}", [f"{test}@{subtest}" for test, subtest in item.subtests])
        for item in plan(run, SUBTESTS, listing)
    ]


def test_all_groups_are_run_in_their_order() -> None:
    assert planned(request()) == [
        ("first/pf", ["xe_query@config", "xe_query@engines", "xe_query@pxp"]),
        ("second/pf", ["xe_vm@bind-a", "xe_vm@bind-b", "xe_vm@scratch"]),
    ]


def test_patterns_narrow_the_groups() -> None:
    assert planned(request(tests=("xe_vm@bind-*",))) == [("second/pf", ["xe_vm@bind-a", "xe_vm@bind-b"])]
    assert planned(request(tests=("xe_q*",), groups=())) == [
        ("first/pf", ["xe_query@config", "xe_query@engines", "xe_query@pxp"])
    ]


def test_a_test_of_no_group_is_run_when_it_is_named() -> None:
    assert planned(request(tests=("drm_mm",))) == [("other/pf", ["drm_mm@"])]


@pytest.mark.parametrize(
    ("groups", "tests"),
    [
        ((Group("first", ("xe_query",)),), ("xe_vm",)),
        ((Group("first", ("xe_vm",)),), ()),
    ],
    ids=["a test of no group", "a test of a group"],
)
def test_what_suspends_its_guest_to_ram_has_one_with_ovmf(groups: tuple[Group, ...], tests: tuple[str, ...]) -> None:
    run = request(groups=groups, tests=tests)
    needs = dataclasses.replace(run.suite.guest, suspends=("xe_vm@bind-b",))
    run = dataclasses.replace(run, suite=dataclasses.replace(run.suite, guest=needs))
    assert [(item.group.ovmf, item.subtests) for item in plan(run, SUBTESTS, listing)] == [
        (False, (("xe_vm", "bind-a"), ("xe_vm", "scratch"))),
        (True, (("xe_vm", "bind-b"),)),
    ]


def test_a_group_with_ovmf_is_one_guest_also_for_what_suspends() -> None:
    run = request(groups=(Group("first", ("xe_vm",), ovmf=True),))
    needs = dataclasses.replace(run.suite.guest, suspends=("xe_vm@bind-b",))
    run = dataclasses.replace(run, suite=dataclasses.replace(run.suite, guest=needs))
    assert [len(item.subtests) for item in plan(run, SUBTESTS, listing)] == [3]


def test_the_function_can_be_replaced() -> None:
    assert planned(request(tests=("xe_vm@scratch",), on="vf2")) == [("second/vf2", ["xe_vm@scratch"])]


def test_subtests_are_thinned_evenly() -> None:
    assert planned(request(per_test=2, tests=("xe_vm",))) == [("second/pf", ["xe_vm@bind-a", "xe_vm@bind-b"])]
    assert planned(request(per_test=1, tests=("xe_vm",))) == [("second/pf", ["xe_vm@bind-a"])]


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(SuiteError, match=r"no subtest of this IGT build fits xe_vm@none"):
        planned(request(tests=("xe_vm@none",)))


def test_shards_have_together_what_is_planned_and_keep_groups_whole() -> None:
    whole = plan(request(), SUBTESTS, listing)
    times = Times({"xe_query@config": 10, "xe_query@engines": 10, "xe_query@pxp": 10})
    parts = [divided(whole, Parts((Shard(number, 2),), times)) for number in (1, 2)]
    assert [[(item.group.name, len(item.subtests)) for item in part if item.subtests] for part in parts] == [
        [("first", 3)],
        [("second", 3)],
    ]


def test_memory_of_every_group_can_be_replaced() -> None:
    loaded = suite(Group("big", ("xe_vm",), memory=8192), Group("usual", ("xe_query",)))
    assert (loaded.most_memory(), loaded.most_memory(["usual"])) == (8192, loaded.guest.memory)
    assert loaded.with_memory(512).most_memory() == 512


class FakeGuest:
    """Answers the scripts that the runner sends, as a guest would whose tests do what `behaviour` says."""

    boot_seconds = 1.0
    accelerator = Accelerator("tcg", "")

    def __init__(self, behaviour: Callable[[str], Result]) -> None:
        self.behaviour = behaviour
        self.log = ""
        self.usable = True
        self.restorable = True
        self.stuck = False
        self.restores: list[str] = []
        self.commands: list[str] = []
        self.looks: list[str] = []

    async def run(self, script: str, *, timeout: float = 60) -> Result:
        await trio.lowlevel.checkpoint()
        if "--run-subtest" in script:
            self.commands.append(script)
            return self.behaviour(script.split("--run-subtest ")[1].split(maxsplit=1)[0])
        if script.startswith("pidof"):
            return Result(0 if self.stuck else 1, b"", "", 0)
        if "FORCE=" in script:
            self.restores.append(script.split("FORCE=")[1][0])
            self.usable = self.restorable
            return Result(0, f"{PF}\n".encode(), "", 0) if self.restorable else Result(1, b"", "no device", 0)
        if igt_bench._STATE in script:
            self.looks.append(script)
            state = "ok" if self.usable else ""
            return Result(0, f"{self.log}\n{igt_bench._STATE}\n{state}\n".encode(), "", 0)
        if "physfn" in script:
            return Result(0, f"{PF}\n".encode(), "", 0)
        return Result(0, b"", "", 0)

    async def dmesg(self) -> str:
        return self.log


def answer(subtest: str, word: str = "SUCCESS", code: int = 0) -> Result:
    return Result(code, f"Starting subtest: {subtest}\nSubtest {subtest}: {word} (0.1s)\n".encode(), "", 0.1)


class Stage:
    """Replaces card, guest and IGT build; counts what was started and what is still running."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, behaviour: Callable[[str], Result]) -> None:
        self.guests: list[FakeGuest] = []
        self.specs: list[Any] = []
        self.cards: list[list[str]] = []
        self.running = 0
        self.behaviour = behaviour
        self.make: Callable[[Callable[[str], Result]], FakeGuest] = FakeGuest
        self.on_boot: Callable[[FakeGuest], None] = lambda guest: None
        monkeypatch.setattr(igt_bench, "boot", self.boot)
        monkeypatch.setattr(igt_bench, "_card", self.card)
        monkeypatch.setattr(igt, "IgtBuild", lambda folder, environment: self)
        self.programs = SUBTESTS
        self.subtests = listing
        self.log = Path("/nonexistent/server.log")
        self.control = Path("/nonexistent/control.sock")

    def guest_files(self, names: Iterable[str]) -> dict[str, Path]:
        return {f"/tests/{name}": Path(name) for name in names}

    @contextlib.contextmanager
    def card(self, arguments: list[str], log: Path) -> Iterator[ServedCard]:
        self.cards.append(arguments)
        self.running += 1
        try:
            process = create_autospec(subprocess.Popen, instance=True)
            description = CardDescription("card", "xe", [], control=str(self.control))
            yield ServedCard(Path("/nonexistent"), process, description, self.log)
        finally:
            self.running -= 1

    @contextlib.asynccontextmanager
    async def boot(self, spec: Any) -> AsyncIterator[FakeGuest]:
        guest = self.make(self.behaviour)
        self.on_boot(guest)
        self.guests.append(guest)
        self.specs.append(spec)
        spec.console_log.touch()
        self.running += 1
        try:
            yield guest
        finally:
            self.running -= 1

    def run(self, run: IgtRun) -> dict[str, str]:
        lines: list[str] = []
        results = trio.run(run_igt, run, lines.append)
        self.lines = lines
        assert self.running == 0
        return {f"{result.name}/{result.on}": result.outcome for result in results}


def test_each_group_has_a_guest_with_its_programs_and_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, answer)
    groups = (Group("a", ("xe_query",)), Group("b", ("xe_vm",), device={"vram": "1 GiB", "media": True}, memory=4096))
    outcomes = stage.run(request(tmp_path, groups=groups, card=("--vfs", "0")))
    assert set(outcomes.values()) == {"pass"}
    assert len(outcomes) == 6
    assert stage.cards == [["--vfs", "0"], ["--vfs", "0", "--set", "vram=1 GiB", "--set", "media=true"]]
    assert [spec.machine.memory for spec in stage.specs] == [2048, 4096]
    assert [list(spec.files) for spec in stage.specs] == [["/tests/xe_query"], ["/tests/xe_vm"]]


def test_a_test_on_a_vf_is_told_its_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, answer)
    outcomes = stage.run(request(tmp_path, tests=("xe_vm@scratch",), on="vf2"))
    assert outcomes == {"xe_vm@scratch/vf2": "pass"}
    assert stage.cards == [["--vfs", "2"]]
    assert f"IGT_DEVICE=sys:$(readlink -f /sys/bus/pci/devices/{PF})" in stage.guests[0].commands[0]


def test_a_driver_that_a_test_left_unbound_is_bound_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def behaviour(subtest: str) -> Result:
        stage.guests[-1].usable = subtest != "engines"
        return answer(subtest)

    stage = Stage(monkeypatch, behaviour)
    assert len(stage.run(request(tmp_path, tests=("xe_query",)))) == 3
    assert len(stage.guests) == 1
    assert stage.guests[0].restores == ["0", "1"]


def test_a_wedged_device_is_bound_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def behaviour(subtest: str) -> Result:
        stage.guests[-1].log = "xe declared wedged" if subtest == "config" else ""
        return answer(subtest)

    stage = Stage(monkeypatch, behaviour)
    stage.run(request(tmp_path, tests=("xe_query",)))
    assert stage.guests[0].restores == ["0", "1"]


def test_a_device_that_cannot_be_restored_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def behaviour(subtest: str) -> Result:
        if subtest == "config":
            stage.guests[-1].usable = stage.guests[-1].restorable = False
        return answer(subtest)

    stage = Stage(monkeypatch, behaviour)
    outcomes = stage.run(request(tmp_path, tests=("xe_query",)))
    assert set(outcomes.values()) == {"pass"}
    assert len(stage.guests) == 2


def test_a_panic_is_the_result_of_its_subtest_and_the_next_has_a_new_guest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def behaviour(subtest: str) -> Result:
        if subtest == "engines":
            raise GuestPanic("Kernel panic", console_tail="the end of the console")
        return answer(subtest)

    stage = Stage(monkeypatch, behaviour)
    outcomes = stage.run(request(tmp_path, tests=("xe_query",)))
    assert list(outcomes.values()) == ["pass", "lost", "pass"]
    assert len(stage.guests) == 2


def late(subtest: str) -> Result:
    if subtest == "config":
        raise CommandTimeout("too long", output=b"Starting subtest: config\n")
    return answer(subtest)


def test_a_subtest_that_takes_too_long_is_a_timeout_and_the_guest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = Stage(monkeypatch, late)
    assert list(stage.run(request(tmp_path, tests=("xe_query",))).values()) == ["timeout", "pass", "pass"]
    assert len(stage.guests) == 1


def test_a_process_that_cannot_be_killed_costs_the_guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, late)
    stage.on_boot = lambda guest: setattr(guest, "stuck", True)
    assert list(stage.run(request(tmp_path, tests=("xe_query",))).values()) == ["timeout", "pass", "pass"]
    assert len(stage.guests) == 2


def test_a_complaint_in_the_kernel_log_spoils_a_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, answer)
    stage.on_boot = lambda guest: setattr(guest, "log", "[1.0] ERROR here")
    assert stage.run(request(tmp_path, tests=("xe_query@pxp",))) == {"xe_query@pxp/pf": "warn"}


def test_a_resumed_run_repeats_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, answer)
    stage.run(request(tmp_path, tests=("xe_query@config",)))
    outcomes = stage.run(request(tmp_path, tests=("xe_query",), resume=True))
    assert len(outcomes) == 3
    assert [len(guest.commands) for guest in stage.guests] == [1, 2]


def test_a_new_run_forgets_the_old_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, answer)
    stage.run(request(tmp_path, tests=("xe_query",)))
    assert len(stage.run(request(tmp_path, tests=("xe_vm@scratch",)))) == 1


def test_a_driver_that_never_owns_the_device_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, answer)
    stage.on_boot = lambda guest: setattr(guest, "restorable", False)
    with pytest.raises(DeviceNotReady, match=r"xe does not own pf \(0000:01:00\.0\): no device"):
        stage.run(request(tmp_path))
    assert stage.running == 0


def test_results_of_a_run_that_breaks_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def behaviour(subtest: str) -> Result:
        stage.on_boot = lambda guest: setattr(guest, "restorable", False)
        raise GuestPanic("Kernel panic") if subtest == "engines" else GuestError("channel")

    stage = Stage(monkeypatch, behaviour)
    with pytest.raises(DeviceNotReady):
        stage.run(request(tmp_path, tests=("xe_query",)))
    assert (tmp_path / "results.jsonl").read_text().count("\n") == 1


def test_a_failure_comes_with_what_the_card_said_meanwhile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("at boot\n")

    def behaviour(subtest: str) -> Result:
        with log.open("a") as stream:
            stream.write(f"trouble with {subtest}\n")
        return answer(subtest, "FAIL", 98)

    stage = Stage(monkeypatch, behaviour)
    stage.log = log
    results = trio.run(run_igt, request(tmp_path, tests=("xe_query",)), lambda line: None)
    assert [result.device for result in results][1:] == ["trouble with engines", "trouble with pxp"]


@pytest.mark.parametrize(("accesses", "outcome"), [(0, "idle"), (3, "pass")])
def test_a_pass_of_an_active_group_needs_work_of_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accesses: int, outcome: str
) -> None:
    counted = 0

    def behaviour(subtest: str) -> Result:
        nonlocal counted
        counted += accesses
        return answer(subtest)

    async def ask(bench: igt_bench.Bench, command: str) -> Any:
        await trio.lowlevel.checkpoint()
        return [{"reads": counted, "writes": 5}] if command == "ledger" else []

    monkeypatch.setattr(igt_bench.Bench, "_ask", ask)
    stage = Stage(monkeypatch, behaviour)
    groups = (Group("a", ("xe_vm",), active=True),)
    assert stage.run(request(tmp_path, groups=groups, tests=("xe_vm@scratch",))) == {"xe_vm@scratch/pf": outcome}


def test_a_group_of_two_cards_has_two_root_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, answer)
    groups = (Group("a", ("xe_vm",), cards=2, cpu="EPYC"),)
    stage.run(request(tmp_path, groups=groups, tests=("xe_vm@scratch",)))
    assert len(stage.cards) == 2
    machine = stage.specs[0].machine
    assert machine.cpu == "EPYC"
    ports = [item for item in machine.arguments if item.startswith("pcie-root-port")]
    assert [port.split(",")[1:3] for port in ports] == [["id=card0", "chassis=1"], ["id=card1", "chassis=2"]]


def test_a_subtests_preparation_runs_before_it_and_before_its_log_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = Stage(monkeypatch, answer)
    stage.run(request(tmp_path, tests=("xe_query",)))
    first, last = stage.guests[0].commands[0], stage.guests[0].commands[-1]
    assert "prepare this" not in first
    assert last.index("prepare this") < last.index("dmesg -c") < last.index("--run-subtest pxp")


def test_what_a_subtest_needs_afterwards_is_done_before_the_device_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = Stage(monkeypatch, answer)
    stage.run(request(tmp_path, tests=("xe_query",)))
    first, last = stage.guests[0].looks[0], stage.guests[0].looks[-1]
    assert "mend this" not in first
    assert last.index("dmesg") < last.index("mend this") < last.index("clean up") < last.index(igt_bench._STATE)


def test_every_guest_has_logs_of_its_own_and_a_new_run_begins_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = Stage(monkeypatch, answer)
    for _ in range(2):
        stage.run(request(tmp_path))
    assert [spec.console_log.name for spec in stage.specs] == ["console-1.log", "console-2.log"] * 2


def test_a_guest_that_sleeps_is_woken_until_it_is_awake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    awake = trio.Event()
    sent: list[str] = []

    class Sleeper(FakeGuest):
        console_position = 0

        async def wait_for_console(self, pattern: str, *, timeout: float, since: int) -> str:
            await trio.lowlevel.checkpoint()
            if pattern == "sleeping" and sent:
                await trio.sleep_forever()
            if pattern == "awake" and len(sent) < 3:
                raise ConsoleTimeout("not yet")
            return pattern

        async def qmp(self, command: str) -> None:
            sent.append(command)
            if len(sent) == 3:
                awake.set()

        async def run(self, script: str, *, timeout: float = 60) -> Result:
            if "--run-subtest" in script:
                await awake.wait()
            return await super().run(script, timeout=timeout)

    stage = Stage(monkeypatch, answer)
    stage.make = Sleeper
    run = request(tmp_path, tests=("xe_vm@scratch",))
    run = dataclasses.replace(run, suite=dataclasses.replace(run.suite, wake=Wake("sleeping", 0, "wake_up", "awake")))
    assert stage.run(run) == {"xe_vm@scratch/pf": "pass"}
    assert sent == ["wake_up"] * 3


def test_a_guest_that_sleeps_is_woken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asleep = trio.Event()
    sent: list[str] = []

    class Sleeper(FakeGuest):
        console_position = 0

        async def wait_for_console(self, pattern: str, *, timeout: float, since: int) -> str:
            if sent:
                await trio.sleep_forever()
            return pattern

        async def qmp(self, command: str) -> None:
            sent.append(command)
            asleep.set()

        async def run(self, script: str, *, timeout: float = 60) -> Result:
            if "--run-subtest" in script:
                await asleep.wait()
            return await super().run(script, timeout=timeout)

    stage = Stage(monkeypatch, answer)
    stage.make = Sleeper
    run = request(tmp_path, tests=("xe_vm@scratch",))
    run = dataclasses.replace(run, suite=dataclasses.replace(run.suite, wake=Wake("sleeping", 0, "wake_up")))
    assert stage.run(run) == {"xe_vm@scratch/pf": "pass"}
    assert sent == ["wake_up"]
