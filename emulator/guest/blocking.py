"""Guests for code that is not asynchronous, such as pytest: the same methods, each waiting for its result.

    with BlockingGuest(GuestSpec(modules=("vgem",))) as guest:
        assert guest.run("modprobe vgem").returncode == 0

trio runs in a thread of the guest's own, which lives exactly as long as the guest does.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.guest import Guest, GuestSpec, boot

T = TypeVar("T")


class BlockingGuest:
    """A guest that is booted on entering the `with` block and gone on leaving it.

    Methods and their errors are those of `Guest`; they may be called from any thread.  Ctrl-C interrupts the waiting
    call and leaves the guest usable; leaving the block ends it.
    """

    def __init__(self, spec: GuestSpec) -> None:
        self.spec = spec
        self._guest: Guest | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        booted: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(booted,), name="guest", daemon=True)
        self._thread.start()
        try:
            booted.result()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def accelerator(self) -> Accelerator:
        return self._running().accelerator

    @property
    def boot_seconds(self) -> float:
        return self._running().boot_seconds

    @property
    def command(self) -> list[str]:
        return self._running().command

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def qmp_events(self) -> list[dict[str, Any]]:
        return self._running().qmp_events

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        """See `Guest.run`."""
        return self._call(lambda guest: guest.run(command, stdin=stdin, timeout=timeout, check=check))

    def script(self, text: str, *, timeout: float = 60) -> Result:
        """See `Guest.script`."""
        return self._call(lambda guest: guest.script(text, timeout=timeout))

    def put(self, path: str, data: bytes, *, mode: int = 0o644, timeout: float = 60) -> None:
        """See `Guest.put`."""
        self._call(lambda guest: guest.put(path, data, mode=mode, timeout=timeout))

    def get(self, path: str, *, timeout: float = 60) -> bytes:
        """See `Guest.get`."""
        return self._call(lambda guest: guest.get(path, timeout=timeout))

    def dmesg(self) -> str:
        """See `Guest.dmesg`."""
        return self._call(lambda guest: guest.dmesg())

    def reboot(self, command: str = "reboot -f", *, timeout: float | None = None) -> None:
        """See `Guest.reboot`."""
        self._call(lambda guest: guest.reboot(command, timeout=timeout))

    def reset(self, *, timeout: float | None = None) -> None:
        """See `Guest.reset`."""
        self._call(lambda guest: guest.reset(timeout=timeout))

    def qmp(self, command: str, arguments: dict[str, Any] | None = None, *, timeout: float = 20) -> Any:
        """See `Guest.qmp`."""
        return self._call(lambda guest: guest.qmp(command, arguments, timeout=timeout))

    def console_tail(self, lines: int = 30) -> str:
        """See `Guest.console_tail`."""
        return self._running().console_tail(lines)

    @property
    def console_position(self) -> int:
        return self._running().console_position

    def wait_for_console(self, pattern: str, *, timeout: float = 60, since: int | None = None) -> str:
        """See `Guest.wait_for_console`."""
        return self._call(lambda guest: guest.wait_for_console(pattern, timeout=timeout, since=since))

    def _running(self) -> Guest:
        if self._guest is None:
            raise GuestError("the guest is not running: use it inside its `with` block")
        return self._guest

    def _call(self, operation: Callable[[Guest], Awaitable[T]]) -> T:
        guest = self._running()
        assert self._token is not None
        done: Future[T] = Future()
        scope = trio.CancelScope()

        async def perform() -> None:
            with scope:
                try:
                    result = await operation(guest)
                except trio.Cancelled:
                    raise
                except BaseException as error:
                    done.set_exception(error)
                else:
                    done.set_result(result)
            if not done.done():
                done.set_exception(GuestError("the call was interrupted, or the guest was ended meanwhile"))

        def start() -> None:
            if self._nursery is None:
                done.set_exception(GuestError("the guest was ended meanwhile"))
            else:
                self._nursery.start_soon(perform)

        self._token.run_sync_soon(start)
        try:
            return done.result()
        except KeyboardInterrupt:
            self._token.run_sync_soon(scope.cancel)
            raise

    def _run(self, booted: Future[None]) -> None:
        """The thread's whole life."""
        try:
            trio.run(self._main, booted)
        except BaseException as error:
            if not booted.done():
                booted.set_exception(error)
        finally:
            if not booted.done():
                booted.set_exception(GuestError("booting the guest was interrupted"))

    async def _main(self, booted: Future[None]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with boot(self.spec) as guest:
                try:
                    async with trio.open_nursery() as nursery:
                        self._guest, self._nursery = guest, nursery
                        booted.set_result(None)
                        await trio.sleep_forever()
                finally:
                    self._guest = self._nursery = None

    def _end(self) -> None:
        thread = self._thread
        if thread is None:
            return
        while thread.is_alive():
            if self._token is not None:
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._scope.cancel)
            # Again and again, because the thread may not have come to create its token yet.
            thread.join(0.2)
        self._thread = None
