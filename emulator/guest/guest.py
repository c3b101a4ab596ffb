"""Boot a guest and work in it.

    async with boot(GuestSpec(modules=("vfio-pci",), machine=Machine(arguments=devices))) as guest:
        result = await guest.run("lspci -nn")

Everything belongs to the `async with` block: when it is left, however it is left, QEMU and its sockets are gone; when this
process is killed, the kernel ends QEMU.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import trio

from vfio_user_xe.emulator.guest import suspend
from vfio_user_xe.emulator.guest.channel import Channel, Result
from vfio_user_xe.emulator.guest.console import Console
from vfio_user_xe.emulator.guest.errors import (
    BootFailed,
    ChannelClosed,
    ChannelLost,
    CommandFailed,
    CommandTimeout,
    ConsoleTimeout,
    GuestError,
    GuestPanic,
    QemuFailed,
    QmpClosed,
)
from vfio_user_xe.emulator.guest.preparation import GuestSpec, Prepared, prepare
from vfio_user_xe.emulator.guest.process import Process, describe_exit
from vfio_user_xe.emulator.guest.qemu import Ports, command_line, kernel_command_line
from vfio_user_xe.emulator.guest.qmp import Qmp
from vfio_user_xe.emulator.guest.terminal import Terminal

__all__ = ["Guest", "GuestSpec", "boot"]

T = TypeVar("T")

_CONSOLE_LAG = 0.1  # seconds
_LAST_WORDS = 2.0  # seconds after QEMU's end for the console's last lines to arrive: another process may hold it open
_ENDING = 30.0
"""Seconds from the end of one of QEMU's sockets to its own and its last words; on a busy host it is not quick to end."""
_INIT_RUNS = "init: the guest's /init is running"  # what agent.INIT writes first


class Guest:
    """A running guest.

    Every method that waits raises `GuestPanic` or `QemuFailed`, with the end of the console, as soon as one happens.
    `accelerator` says which one runs it and why; `boot_seconds` is how long it took until its agent answered.
    """

    def __init__(self, spec: GuestSpec, prepared: Prepared) -> None:
        self.spec = spec
        self.accelerator = prepared.accelerator
        self.kernel = prepared.kernel
        self.boot_seconds = 0.0
        self._direct = prepared.image != prepared.kernel.image
        self._console = Console(spec.console_log)
        self._channel = Channel()
        self._qmp = Qmp()
        self.terminal = Terminal() if spec.interactive else None
        self._process: Process | None = None
        self._failure: Callable[[], GuestError] | None = None
        self._failed = trio.Event()
        self._closed = False
        self._scopes: set[trio.CancelScope] = set()
        self._since = 0  # the console's position when the current boot began
        machine = spec.machine
        if prepared.root is not None:
            machine = replace(machine, arguments=(*machine.arguments, *prepared.root.arguments()))
        self._command = command_line(
            prepared.environment,
            prepared.accelerator,
            machine,
            prepared.image,
            prepared.initramfs,
            kernel_command_line(spec.machine, spec.append, tsc_khz=prepared.tsc_khz),
            Ports(
                console=self._console.far.fileno(),
                channel=(self._channel.far[0].fileno(), self._channel.far[1].fileno()),
                qmp=self._qmp.far.fileno(),
                terminal=self.terminal.far.fileno() if self.terminal is not None else None,
            ),
        )
        self._variables = prepared.environment.qemu.variables

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def command(self) -> list[str]:
        """QEMU's command line."""
        return list(self._command)

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        """Run a shell command or script in the guest (/usr/sbin and /usr/bin on PATH) by busybox, or by what the spec's `root` has.

        Raises:
            CommandTimeout: it did not end within `timeout` seconds; it was killed, and the guest stays usable.
            CommandFailed: with `check`, the exit code is not 0.
        """
        since = self._console.position
        try:
            result = await self._guarded(lambda: self._channel.run(command, stdin=stdin, timeout=timeout))
            return result.check(repr(command)) if check else result
        except CommandFailed as error:
            # The console is slower than the channel, and what the kernel said last explains most.
            await trio.sleep(_CONSOLE_LAG)
            raise error.with_console(self._console.tail(since=since)) from None
        except GuestError as error:
            raise self._explained(error) from None

    async def script(self, text: str, *, timeout: float = 60) -> Result:
        """Run a script that ends at the first failing command.

        Raises:
            CommandFailed: a command failed.
        """
        return await self.run(f"set -e\n{text}", timeout=timeout, check=True)

    async def put(self, path: str, data: bytes, *, mode: int = 0o644, timeout: float = 60) -> None:
        """Write a file in the guest, creating its directory; about 200 KB/s for what does not compress."""
        quoted = shlex.quote(path)
        command = f'mkdir -p "$(dirname {quoted})" && cat >{quoted} && chmod {mode:o} {quoted}'
        await self.run(command, stdin=data, timeout=timeout, check=True)

    async def get(self, path: str, *, timeout: float = 60) -> bytes:
        """Read a file of the guest.

        Raises:
            CommandFailed: it cannot be read.
        """
        return (await self.run(f"cat {shlex.quote(path)}", timeout=timeout, check=True)).stdout_bytes

    async def dmesg(self) -> str:
        """The kernel's log."""
        return (await self.run("dmesg", check=True)).stdout

    async def reboot(self, command: str = "reboot -f", *, timeout: float | None = None) -> None:
        """Reboot from inside the guest by `command`, at once, and wait until its agent is back.

        Raises:
            CommandFailed: the command returned.
            BootFailed: the guest did not boot again.
        """
        allowed = self.spec.boot_timeout if timeout is None else timeout
        before, self._since = self._channel.boot_id, self._console.position
        try:
            # It has no answer: the next thing the channel hears is the new agent.
            result = await self._guarded(lambda: self._channel.run(command, timeout=allowed))
        except ChannelLost as error:
            if self._channel.boot_id == before:
                raise self._explained(error) from None
        except CommandTimeout:
            raise self._not_booted(allowed) from None
        else:
            raise self._explained(CommandFailed(f"the guest refused to reboot: {result.stderr or result.stdout}"))

    async def reset(self, *, timeout: float | None = None) -> None:
        """Press the reset button, also of a guest that panicked, and wait until its agent is back."""
        self._since = self._console.position
        if self._process is not None and self._process.returncode is None:
            self._failure, self._failed = None, trio.Event()
        await self.qmp("system_reset")
        await self._ready(self.spec.boot_timeout if timeout is None else timeout)

    async def qmp(self, command: str, arguments: dict[str, Any] | None = None, *, timeout: float = 20) -> Any:
        """Run a QMP command; returns its `return` value.

        Raises:
            QmpError: QEMU refuses it.
        """
        try:
            return await self._guarded(lambda: self._qmp.execute(command, arguments, timeout=timeout))
        except GuestError as error:
            raise self._explained(error) from None

    @property
    def qmp_events(self) -> list[dict[str, Any]]:
        """The latest QMP events, as QEMU sent them."""
        return list(self._qmp.events)

    def console_tail(self, lines: int = 30) -> str:
        """The last lines of the console."""
        return self._console.tail(lines)

    @property
    def console_position(self) -> int:
        """How many bytes the console has written so far."""
        return self._console.position

    async def wait_for_console(self, pattern: str, *, timeout: float = 60, since: int | None = None) -> str:
        """Wait until the console matches a regular expression; returns the matching text.

        What it wrote since the last (re)boot counts, or what came after the `console_position` `since`.
        """
        start = self._since if since is None else since
        with trio.move_on_after(timeout):
            match = await self._guarded(lambda: self._console.wait_for(pattern, start))
            return match[0]
        raise self._explained(ConsoleTimeout(f"{pattern!r} did not appear on the console within {timeout:g} s"))

    async def _start(self, nursery: trio.Nursery) -> None:
        started = time.monotonic()
        terminal = () if self.terminal is None else (self.terminal.far,)
        far_ends = (self._console.far, *self._channel.far, self._qmp.far, *terminal)
        # In this thread, not in a worker: see Process.
        self._process = Process(self._command, self._variables, [end.fileno() for end in far_ends])
        for end in far_ends:
            end.close()
        for task in (self._console.serve, self._qmp.serve, self._watch_qemu, self._watch_for_panic):
            nursery.start_soon(task)
        await self._ready(self.spec.boot_timeout)
        self.boot_seconds = time.monotonic() - started

    async def _ready(self, timeout: float) -> None:
        with trio.move_on_after(timeout):
            try:
                await self._guarded(self._channel.wait_ready)
            except ChannelLost as error:
                raise self._explained(error) from None
            return
        raise self._not_booted(timeout)

    def _not_booted(self, timeout: float) -> BootFailed:
        tail = self._console.tail(since=self._since)
        if not tail.strip():
            what = "the kernel wrote nothing to the console"
        elif _INIT_RUNS not in self._console.tail(lines=1000, since=self._since):
            what = "the kernel did not reach /init"
        else:
            what = "/init ran, but the agent did not answer"
        return BootFailed(
            f"the guest did not boot within {timeout:g} s under {self.accelerator.name}: {what}", console_tail=tail
        )

    async def _watch_qemu(self) -> None:
        assert self._process is not None
        process = self._process
        code = await process.wait()
        said = process.last_words()
        # The console's last lines may still be on their way.
        with trio.move_on_after(_LAST_WORDS):
            await self._console.closed.wait()
        message = f"QEMU ended ({describe_exit(code)})" + (f" and said: {said}" if said else "")
        if code == 0 and not said:
            message += ": the guest powered off, or QEMU was told to quit"
        self._fail(lambda: QemuFailed(message, console_tail=self.console_tail()))

    async def _watch_for_panic(self) -> None:
        since = 0
        while True:
            line = await self._console.panic(since)
            since = self._console.position
            tail = self._console.tail(40)
            self._fail(functools.partial(GuestPanic, f"the guest's kernel panicked: {line}", console_tail=tail))

    def _fail(self, failure: Callable[[], GuestError]) -> None:
        self._failure = failure
        self._failed.set()
        for scope in self._scopes:
            scope.cancel()

    async def _guarded(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation until it ends or the guest fails; a failure of the guest explains one of the channel."""
        if self._failure is not None:
            raise self._failure()
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await operation()
            except (ChannelClosed, QmpClosed) as error:
                # When QEMU ends, its sockets close first.
                if not self._closed:
                    with trio.move_on_after(_ENDING):
                        await self._failed.wait()
                if self._failure is None:
                    raise
                raise self._failure() from error
            finally:
                self._scopes.discard(scope)
        assert self._failure is not None
        raise self._failure()

    def _explained(self, error: GuestError) -> GuestError:
        error = suspend.explained(error, self._direct, self.qmp_events)
        return error if error.console_tail else error.with_console(self.console_tail())

    def _close(self) -> None:
        self._closed = True
        if self._process is not None:
            self._process.close()
        self._channel.close()
        self._qmp.close()
        self._console.close()
        if self.terminal is not None:
            self.terminal.close()


@contextlib.asynccontextmanager
async def boot(spec: GuestSpec) -> AsyncIterator[Guest]:
    """Boot a guest; yields it when its agent answers.

    Raises:
        MissingEnvironment: as `prepare`, before anything was started; so are KernelError, RootError and InitramfsError.
        QemuFailed: QEMU does not start, or ended.
        BootFailed: the agent did not answer in time.
        GuestPanic: the kernel panicked.
    """
    prepared = await trio.to_thread.run_sync(prepare, spec)
    guest = Guest(spec, prepared)
    problem: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                await guest._start(nursery)
                yield guest
            except BaseException as error:  # raised again below, without the nursery's ExceptionGroup
                problem = error
            nursery.cancel_scope.cancel()
    finally:
        guest._close()
    if problem is not None:
        raise problem
