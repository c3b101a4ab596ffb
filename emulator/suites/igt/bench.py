"""The guest and the card that IGT runs in: made, watched, repaired, replaced."""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import CommandTimeout, ConsoleTimeout, GuestError
from vfio_user_xe.emulator.guest.guest import Guest, GuestSpec, boot
from vfio_user_xe.emulator.guest.machine import Machine
from vfio_user_xe.emulator.guest.qemu_arguments import device_arguments
from vfio_user_xe.emulator.guest.served import ServedCard, served_card
from vfio_user_xe.emulator.results import Outcome
from vfio_user_xe.emulator.suites.expectations import Expectations
from vfio_user_xe.emulator.suites.group import Part, ServerLog, serve_arguments
from vfio_user_xe.emulator.suites.igt.package import PROGRAMS, IgtBuild, host_programs
from vfio_user_xe.emulator.suites.igt.results import read_result
from vfio_user_xe.emulator.suites.igt.suite import Group, Suite
from vfio_user_xe.emulator.suites.subtest import SubtestResult, attach_kernel_log, subtest_name
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient

Report = Callable[[str], None]

_SETUP_TIMEOUT = 120.0
_CHECK_TIMEOUT = 60.0
_RESTORE_TIMEOUT = 90.0
_ASK_TIMEOUT = 10.0
_STATE = "== state of the device =="

# What IGT expects besides what the guest's /init mounts.
_MOUNTS = """
mkdir -p /sys/kernel/tracing
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
modprobe configfs 2>/dev/null
mount -t configfs configfs /sys/kernel/config 2>/dev/null
"""

_FIND_PF = """
for device in /sys/bus/pci/devices/*; do
    [ "$(cat $device/class)" = {pci_class} ] && [ ! -e $device/physfn ] && echo ${{device##*/}} && exit
done
exit 1
"""

# `bound ADDRESS` succeeds when the driver owns the function and has registered its nodes.
_BOUND = """
bound() {{
    driver=$(readlink /sys/bus/pci/devices/$1/driver) && [ "${{driver##*/}}" = {driver} ] && {ready}
}}
"""

_RESTORE = """
[ -e /sys/bus/pci/devices/$PF ] || echo 1 >/sys/bus/pci/rescan
if [ $FORCE = 1 ] && [ -e /sys/bus/pci/devices/$PF/driver ]; then
    echo 0 >/sys/bus/pci/devices/$PF/sriov_numvfs 2>/dev/null
    echo $PF >/sys/bus/pci/devices/$PF/driver/unbind
    modprobe -r $DRIVER
fi
modprobe $DRIVER
bound $PF || echo $PF >/sys/bus/pci/drivers/$DRIVER/bind
if [ $VF != 0 ] && ! [ -e /sys/bus/pci/devices/$PF/virtfn$((VF - 1)) ]; then
    echo 0 >/sys/bus/pci/devices/$PF/sriov_numvfs
    echo 1 >/sys/bus/pci/devices/$PF/sriov_drivers_autoprobe
    echo $VF >/sys/bus/pci/devices/$PF/sriov_numvfs
fi
function=$PF
[ $VF = 0 ] || function=$(basename $(readlink /sys/bus/pci/devices/$PF/virtfn$((VF - 1))))
bound $function && echo $function
"""


class DeviceNotReady(GuestError):
    """The driver does not own the function under test, and nothing that was tried made it."""


@dataclass(frozen=True)
class IgtRun:
    """What to run.

    `groups` are names of the suite's groups (none: all), `tests` patterns on `test@subtest` that narrow them (a test
    that is in no group is run as the first group would be).  `timeout` replaces the suite's limits, in seconds.
    `on` replaces the groups' function.  `per_test` takes at most so many subtests of a program, evenly spread.
    `card` are arguments of `vfio-user-xe serve`.  Results go to `results.jsonl` in `output`, with `resume` what is
    there already is not run again; `console-N.log` and `server-N.log` are of the N-th guest.  `part` says which of the
    subtests are run, and on which kernel.
    """

    igt: Path
    suite: Suite
    expectations: Expectations
    output: Path
    groups: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    on: str | None = None
    timeout: float | None = None
    per_test: int = 0
    resume: bool = False
    card: tuple[str, ...] = ()
    part: Part = field(default_factory=Part)
    accelerator: str = "auto"
    append: str = ""
    environment: Environment | None = None


@dataclass
class Bench:
    """One group's guest with its card, replaced by new ones when a test broke them."""

    run: IgtRun
    group: Group
    environment: Environment
    build: IgtBuild
    programs: Sequence[str]
    guest: Guest | None = None
    card: ServedCard | None = None
    function: str = ""
    _pf: str = ""
    _stalls: int = 0
    _server_log: ServerLog | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def run_subtest(self, test: str, subtest: str, report: Report) -> SubtestResult:
        if self.guest is None:
            await self._open(report)
        guest = self.guest
        assert guest is not None
        started = time.monotonic()
        log, healthy = "", False
        try:
            result, running = await self._process(guest, test, subtest)
            result.seconds = time.monotonic() - started
            log, healthy = await self._look(guest, result.name)
            attach_kernel_log(result, log, self.run.suite.kernel_log)
        except GuestError as error:
            result = SubtestResult(test, subtest, Outcome.LOST, reason=error.message, kernel_log=error.console_tail)
            result.seconds = time.monotonic() - started
            running = False
        result.on = self.group.on
        if result.outcome not in (Outcome.PASS, Outcome.SKIP):
            result.device = await self._device_report()
        if result.outcome is Outcome.LOST or running:
            await self.aclose()
        elif not healthy or self.run.suite.kernel_log.says_wedged(log):
            report(f"  {result.name} left the device unusable; binding it anew")
            try:
                await self._restore(guest, force=True)
            except GuestError as error:
                report(f"  that failed ({error.message.splitlines()[0]}): a new guest")
                await self.aclose()
        return result

    async def aclose(self) -> None:
        """Give the guest and the card up."""
        self.guest = None
        self.card = None
        await self._stack.aclose()

    async def _process(self, guest: Guest, test: str, subtest: str) -> tuple[SubtestResult, bool]:
        """Run a subtest; also says whether a process of it is left that cannot be killed."""
        limit = self.run.timeout or self.run.suite.timeout(subtest_name(test, subtest))
        before = await self._activity()
        try:
            async with self._woken(guest):
                done = await guest.run(self._command(test, subtest), timeout=limit)
        except CommandTimeout as error:
            output = error.output.decode(errors="replace")
            result = SubtestResult(
                test, subtest, Outcome.TIMEOUT, reason=f"it ran longer than {limit:g} s", output=output[-6000:]
            )
            left = await guest.run(f"pidof {shlex.quote(test)}", timeout=_CHECK_TIMEOUT)
            return result, left.returncode == 0
        result = read_result(test, subtest, done.returncode, done.stdout)
        after = await self._activity()
        if before is not None and after is not None:
            result.activity = after - before
            if self.group.active and result.outcome is Outcome.PASS and not result.activity:
                result.outcome = Outcome.IDLE
                result.reason = "it passed without any work of the card's engines"
        return result, False

    @contextlib.asynccontextmanager
    async def _woken(self, guest: Guest) -> AsyncIterator[None]:
        """While the block runs, wake the guest whenever it suspends in a way that it does not wake from by itself."""
        wake = self.run.suite.wake
        if wake is None:
            yield
            return
        problem: BaseException | None = None

        async def watch() -> None:
            seen = guest.console_position
            # What ends the guest ends the subtest's command as well, and is reported there.
            with contextlib.suppress(GuestError):
                while True:
                    await guest.wait_for_console(wake.console, timeout=math.inf, since=seen)
                    seen = guest.console_position
                    # A wake-up before all devices sleep has no effect, and how long they need to fall asleep is not known.
                    woken = False
                    while not woken:
                        await trio.sleep(wake.after)
                        await guest.qmp(wake.qmp)
                        woken = not wake.awake or await _appears(guest, wake.awake, wake.after, seen)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                yield
            except BaseException as error:  # raised again below, without the nursery's ExceptionGroup
                problem = error
            nursery.cancel_scope.cancel()
        if problem is not None:
            raise problem

    def _command(self, test: str, subtest: str) -> str:
        words = [f"{PROGRAMS}/{test}", *(["--run-subtest", subtest] if subtest else [])]
        device = ""
        if self.group.vf:
            device = f"export IGT_DEVICE=sys:$(readlink -f /sys/bus/pci/devices/{self.function})\n"
        # IGT names subtests by pattern, in which these names hold nothing special.
        return (
            f"{self._definitions()}{self.run.suite.preparation(subtest_name(test, subtest))}\n"
            "dmesg -c >/dev/null\ncd /tmp\nexport IGT_PLAIN_OUTPUT=1 LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu\n"
            f"{device}exec {shlex.join(words)} </dev/null 2>&1"
        )

    async def _look(self, guest: Guest, name: str) -> tuple[str, bool]:
        """The kernel's log of a subtest, and whether the device is usable after it."""
        suite = self.run.suite
        script = (
            f"dmesg\n{self._definitions()}{suite.aftermath(name)}\n{suite.guest.cleanup}\n"
            f"echo\necho '{_STATE}'\nbound $FUNCTION && echo ok"
        )
        done = await guest.run(script, timeout=_CHECK_TIMEOUT)
        log, _, state = done.stdout.partition(_STATE)
        return log, state.strip() == "ok"

    async def _open(self, report: Report) -> None:
        """Serve a new card, boot a new guest, and make the driver own the function under test."""
        needs = self.run.suite.guest
        stack = AsyncExitStack()
        async with stack:
            arguments = [*self.run.card, *serve_arguments(self.group.device, self.group.on)]
            cards, devices = [], []
            logs = self.run.part.logs(self.run.output)
            guest_number = 1 + len(list(logs.glob("console-*.log")))
            for number in range(self.group.cards):
                log = logs / f"server-{guest_number}{f'-card{number}' if number else ''}.log"
                cards.append(stack.enter_context(_card(arguments, log)))
                devices += device_arguments(
                    cards[-1].description, port=f"card{number}", chassis=number + 1, qtest=number == 0
                )
            spec = GuestSpec(
                machine=Machine(
                    memory=self.group.memory or needs.memory,
                    cpus=needs.cpus,
                    cpu=self.group.cpu or None,
                    ovmf=self.group.ovmf,
                    arguments=devices,
                ),
                modules=(needs.driver, *needs.modules),
                firmware=needs.firmware,
                files=self.build.guest_files(self.programs) | host_programs(needs.programs),
                kernel=self.run.part.kernel,
                append=" ".join(filter(None, (needs.append, self.run.append))),
                accelerator=self.run.accelerator,
                console_log=logs / f"console-{guest_number}.log",
                environment=self.environment,
            )
            guest = await stack.enter_async_context(boot(spec))
            report(f"  a guest is up after {guest.boot_seconds:.1f} s ({guest.accelerator.name})")
            await self._prepare(guest)
            self.guest, self.card = guest, cards[0]
            self._stalls, self._server_log = 0, ServerLog(self.card.log)
            self._stack = stack.pop_all()

    async def _prepare(self, guest: Guest) -> None:
        needs = self.run.suite.guest
        found = await guest.run(_FIND_PF.format(pci_class=shlex.quote(needs.pci_class)))
        self._pf = found.stdout.strip()
        if found.returncode != 0 or not self._pf:
            raise DeviceNotReady(f"no PCI device of class {needs.pci_class} is in the guest")
        await guest.run(_MOUNTS)
        done = await guest.run(f"{self._definitions()}set -e\n{needs.setup}", timeout=_SETUP_TIMEOUT)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise DeviceNotReady(f"the suite's setup ended with exit code {done.returncode}: {said}")
        await self._restore(guest, force=False)

    async def _restore(self, guest: Guest, force: bool) -> None:
        """Make the driver own the PF, and the VF where that is under test.

        Raises:
            DeviceNotReady: the driver does not own it.
        """
        script = f"{self._definitions()}FORCE={int(force)}\n{_RESTORE}"
        done = await guest.run(script, timeout=_RESTORE_TIMEOUT)
        if done.returncode != 0:
            log = "\n".join((await guest.dmesg()).splitlines()[-30:])
            raise DeviceNotReady(
                f"{self.run.suite.guest.driver} does not own {self.group.on} ({self._pf}): {done.stderr.strip()}",
                console_tail=log,
            )
        self.function = done.stdout.split()[-1]

    def _definitions(self) -> str:
        """Shell variables and functions that the scripts use."""
        driver = self.run.suite.guest.driver
        values = f"PF={self._pf} FUNCTION={self.function} VF={self.group.vf} DRIVER={shlex.quote(driver)}\n"
        return values + _BOUND.format(driver=shlex.quote(driver), ready=self.run.suite.guest.ready)

    async def _activity(self) -> int | None:
        """Accesses that the card's engines made so far, None where the server does not tell."""
        entries = await self._ask("ledger")
        return None if entries is None else sum(entry["reads"] + entry["writes"] for entry in entries)

    async def _device_report(self) -> str:
        """What the card itself noticed since it was asked last: its log, and registers that were polled in vain."""
        if self.card is None or self._server_log is None:
            return ""
        stalls = [f"stall: {stall['text']}" for stall in await self._ask("stalls") or []]
        lines = stalls[self._stalls :]
        self._stalls = len(stalls)
        lines.append(self._server_log.more())
        return "\n".join(lines).strip()

    async def _ask(self, command: str) -> Any:
        """What the card's control socket answers, None when it does not."""
        if self.card is None:
            return None
        path = self.card.control

        def call() -> Any:
            with ControlClient(path, _ASK_TIMEOUT) as client:
                return client.call(command)

        try:
            return await trio.to_thread.run_sync(call)
        except (OSError, CommandError):
            return None


async def _appears(guest: Guest, pattern: str, timeout: float, since: int) -> bool:
    """Whether the console says it in `timeout` seconds, or did since `since`."""
    try:
        await guest.wait_for_console(pattern, timeout=timeout, since=since)
    except ConsoleTimeout:
        return False
    return True


@contextlib.contextmanager
def _card(arguments: Sequence[str], log: Path) -> Iterator[ServedCard]:
    """A served card whose log is kept in `log`."""
    with served_card(arguments) as card:
        try:
            yield card
        finally:
            with contextlib.suppress(OSError):
                log.write_bytes(card.log.read_bytes())
