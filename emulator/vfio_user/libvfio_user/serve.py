"""A card's functions behind libvfio-user: the counterpart of `vfio_user_xe.emulator.vfio_user.server.serve_functions`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from vfio_user_xe.emulator.guest.qemu_arguments import DESCRIPTION_FILE
from vfio_user_xe.emulator.pci.transport import Served
from vfio_user_xe.emulator.vfio_user.libvfio_user import BackendError
from vfio_user_xe.emulator.vfio_user.libvfio_user.context import Context
from vfio_user_xe.emulator.vfio_user.libvfio_user.library import Library, named_library
from vfio_user_xe.emulator.vfio_user.libvfio_user.process import Crash, supervised
from vfio_user_xe.emulator.vfio_user.libvfio_user.self_test import tested_level
from vfio_user_xe.emulator.vfio_user.server import SWITCH_INTERVAL, SocketFolder, remove_left_overs

_PATIENCE = 1.0
"""Seconds that the library may need to see that it is over; then it is waiting for a client."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A libvfio-user that passed the self-test: where it is, and which level it is of."""

    path: str
    level: str

    @classmethod
    def find(cls, option: Path | str | None) -> Backend:
        """The library that the option, the environment or the loader names, tested.

        For a process without threads: it is tried in a process of its own.

        Raises:
            BackendError: there is none, or it does not behave as one of a known level.
        """
        path = named_library(option)
        return cls(path, tested_level(path))

    async def serve_functions(
        self,
        functions: Sequence[Served],
        folder: SocketFolder,
        ready: Callable[[dict[str, str]], None] | None = None,
    ) -> None:
        """Serve every function on `<name>.sock` in `folder` until cancelled; `ready` gets the sockets' paths by name.

        Raises:
            BackendError: the library fails.
            ServerError: a path cannot be used.
        """
        sys.setswitchinterval(SWITCH_INTERVAL)
        library = Library(self.path, self.level)
        with ExitStack() as stack:
            contexts = []
            for function in functions:
                context = Context(library, function, folder.cleared_path(function.name))
                stack.callback(context.close)
                contexts.append(context)
            limiter = trio.CapacityLimiter(max(1, len(contexts)))
            async with trio.open_nursery() as nursery:
                for context in contexts:
                    nursery.start_soon(_serve, context, limiter)
                if ready is not None:
                    ready({function.name: str(folder.socket_path(function.name)) for function in functions})


async def _serve(context: Context, limiter: trio.CapacityLimiter) -> None:
    ended = trio.Event()

    async def stop_when_cancelled() -> None:
        try:
            await ended.wait()
        finally:
            context.stop()
            with trio.CancelScope(shield=True):
                while not ended.is_set():
                    with trio.move_on_after(_PATIENCE):
                        await ended.wait()
                    if not ended.is_set():
                        context.hang_up()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_when_cancelled)
        try:
            await trio.to_thread.run_sync(context.run, limiter=limiter, thread_name=f"{context.function.name} access")
        finally:
            ended.set()


def supervised_card(serve: Callable[[], int], folder: Path, fds: Sequence[int] = ()) -> int:
    """Run `serve`, which serves in `folder`, in a process of its own and return its exit code.

    `fds` are closed in this process.

    Raises:
        BackendError: that process crashed; its sockets are removed then.
    """
    existed = folder.exists()
    try:
        return supervised(serve, fds)
    except Crash as crash:
        (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
        remove_left_overs(folder, made=not existed)
        raise BackendError(
            f"the process that served with libvfio-user {crash}, and every client has lost its device."
            " What the library printed before it ended (a failed assertion, say) stands above"
        ) from None
