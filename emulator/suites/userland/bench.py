"""The guest and the card that a group's tests run in, replaced by new ones when a test broke them."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.initramfs import Content
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.served import ServedCardError
from vfio_user_xe.emulator.results import Outcome
from vfio_user_xe.emulator.suites.group import ServerLog, serve_arguments
from vfio_user_xe.emulator.suites.subtest import SubtestResult, attach_kernel_log
from vfio_user_xe.emulator.suites.userland.in_guest_pytest import MARK
from vfio_user_xe.emulator.suites.userland.suite import Group, UserlandSuite
from vfio_user_xe.emulator.testing.lab import Lab, open_lab

_SETUP_LIMIT = 180.0
_LOG_LIMIT = 60.0


class SetupFailed(GuestError):
    """A new guest did not boot, or the suite's setup failed in it, so no test can run; the text has what it said."""


def own_log(result: SubtestResult, log: str) -> str:
    """What of the kernel's log belongs to a test: from the line that says that it begins to the next such line, and to the
    first test also what is before. All of it where no line names the test."""
    parts: dict[str, list[str]] = {}
    before: list[str] = []
    lines = before
    for line in log.splitlines():
        _, found, name = line.partition(MARK)
        if found:
            lines = parts.setdefault(name.strip(), [] if parts else before)
        else:
            lines.append(line)
    own = parts.get("::".join(filter(None, (result.test, result.subtest))))
    return log if own is None else "\n".join(own)


@dataclass
class Bench:
    """One group's guest with its card; not for use by several threads at once.

    `card` are further arguments of `vfio-user-xe serve`, `files` are put into the guest.  Logs of the N-th guest go to
    `console-N.log` and `server-N.log` in `output`.
    """

    suite: UserlandSuite
    group: Group
    output: Path
    card: Sequence[str] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    kernel: Kernel | None = None
    accelerator: str = "auto"
    append: str = ""
    _lab: Lab | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _server_log: ServerLog | None = None
    _activity: int = 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the guest and the card up; the next `run` has new ones."""
        self._lab = None
        self._stack.close()

    def ready(self) -> None:
        """Boot a guest if there is none: what is measured afterwards is a test's own time.

        Raises:
            SetupFailed: A new one could not be set up.
        """
        self._opened()

    def run(self, command: str, *, limit: float, stdin: bytes = b"") -> Result:
        """Run a shell command with the group's environment in the guest.

        Raises:
            CommandTimeout: It did not end within `limit` seconds, and was killed.
            SetupFailed: There was no guest, and a new one could not be set up.
            GuestError: The guest did not survive it.
        """
        guest = self._opened().guest
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.group.env.items())
        return guest.run(f"{exports}{command}", timeout=limit, stdin=stdin)

    def finish(self, results: Sequence[SubtestResult]) -> None:
        """Add what the kernel logged and the card noticed since the last call to the tests that ran meanwhile.

        A guest that does not answer, or whose driver gave the device up, is replaced.
        """
        lab = self._lab
        if lab is None:
            return  # they were lost with their guest
        try:
            log = lab.guest.run("dmesg -c", timeout=_LOG_LIMIT).stdout
        except GuestError as error:
            self.close()
            for result in results[-1:]:
                result.outcome, result.reason, result.kernel_log = Outcome.LOST, error.message, error.console_tail
            return
        made = self._accesses()
        for result in results:
            result.on = self.group.on
            result.activity = made
            if self.group.active and result.outcome is Outcome.PASS and made == 0:
                result.outcome = Outcome.IDLE
                result.reason = "it passed without any work of the card's engines"
            attach_kernel_log(result, own_log(result, log), self.suite.kernel_log)
            if result.outcome not in (Outcome.PASS, Outcome.SKIP):
                result.device = result.device or self._said()
        if self.suite.kernel_log.says_wedged(log):
            self.close()

    def _opened(self) -> Lab:
        if self._lab is None:
            try:
                self._lab = self._open()
            except SetupFailed:
                raise
            except (GuestError, ServedCardError) as error:
                raise SetupFailed(f"a guest with the card could not be set up: {error}") from error
            self._server_log, self._activity = ServerLog(self._lab.card.log), 0
            self._accesses()
        return self._lab

    def _open(self) -> Lab:
        needs, group = self.suite.guest, self.group
        number = 1 + len(list(self.output.glob("console-*.log")))
        with ExitStack() as stack:
            lab = stack.enter_context(
                open_lab(
                    [*serve_arguments(group.device, group.on), *self.card],
                    modules=needs.modules,
                    userland=needs.userland,
                    memory=needs.memory,
                    cpus=needs.cpus,
                    files=self.files,
                    kernel=self.kernel,
                    accelerator=self.accelerator,
                    append=" ".join(filter(None, (needs.append, self.append))),
                    console=self.output / f"console-{number}.log",
                )
            )
            stack.callback(self._keep_log, lab, number)
            done = lab.guest.run(f"set -e\nVF={group.vf}\n{needs.setup}", timeout=_SETUP_LIMIT)
            if done.returncode != 0:
                said = (done.stderr or done.stdout).strip()
                log = "\n".join(lab.guest.dmesg().splitlines()[-30:])
                raise SetupFailed(f"the suite's setup ended with exit code {done.returncode}: {said}", console_tail=log)
            self._stack = stack.pop_all()
        return lab

    def _accesses(self) -> int | None:
        """Accesses that the card's engines made since the last call, None where the server does not tell."""
        assert self._lab is not None
        try:
            made = sum(row["reads"] + row["writes"] for row in self._lab.card.call("ledger"))
        except (OSError, CommandError):
            return None
        before, self._activity = self._activity, made
        return int(made - before)

    def _said(self) -> str:
        return self._server_log.more() if self._server_log is not None else ""

    def _keep_log(self, lab: Lab, number: int) -> None:
        with contextlib.suppress(OSError):
            (self.output / f"server-{number}.log").write_bytes(lab.card.log.read_bytes())
