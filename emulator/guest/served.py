"""A card served by a child process, for guests and tests that bring their own.

    with served_card(["--vfs", "2"]) as card:
        spec = GuestSpec(machine=Machine(arguments=device_arguments(card.description)))

The child ends with the thread that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_user_xe.emulator.child_process import launch
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription
from vfio_user_xe.emulator.guest.serve_options import ServeOptions
from vfio_user_xe.emulator.temporary import temporary_folder

START_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0


class ServedCardError(Exception):
    """The server did not start; the text has what it said. `code` is its exit code, None while it runs."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class ServedCard:
    """A running server: its folder, its process, and what it serves."""

    folder: Path
    process: subprocess.Popen[bytes]
    description: CardDescription
    log: Path

    @property
    def descriptions(self) -> list[CardDescription]:
        """Of all the cards that it serves (`serve --cards`)."""
        return CardDescription.read_all([self.folder])

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.process.pid

    @property
    def control(self) -> Path:
        """The control socket, of the first card."""
        assert self.description.control is not None
        return Path(self.description.control)

    def log_tail(self, lines: int = 30) -> str:
        """The last lines that the server wrote to standard error."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> int:
        """End the server; its exit code. SIGKILL when it does not end within 30 s."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


@contextlib.contextmanager
def served_card(arguments: ServeOptions | Sequence[str] = (), *, folder: Path | None = None) -> Iterator[ServedCard]:
    """Serve a card with these options, or arguments, of `vfio-user-xe serve`; it and its temporary folder are gone afterwards.

    Raises:
        ServedCardError: the card is not served: an option is wrong, or the process ended; with what it printed.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(temporary_folder())
        sockets = folder / "sockets"
        log = folder / "server.log"
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        words = arguments.argv() if isinstance(arguments, ServeOptions) else arguments
        command = [
            sys.executable,
            "-P",  # a folder of the working directory may have a plug-in's name
            "-m",
            "vfio_user_xe.emulator",
            "serve",
            "--socket-dir",
            str(sockets),
            "--ready-fd",
            str(write_end),
        ]
        try:
            with log.open("wb") as output:
                process = launch([*command, *words], stdout=output, stderr=output, pass_fds=[write_end])
        finally:
            os.close(write_end)
        try:
            _wait_ready(read_end, process, log)
            card = ServedCard(sockets, process, CardDescription.read_all([sockets])[0], log)
            stack.callback(card.stop)
        except BaseException:
            process.kill()
            process.wait()
            raise
        yield card


def _wait_ready(fd: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    line = b""
    poller = select.poll()  # select() takes no descriptor above 1023, and a process of many tests has such
    poller.register(fd, select.POLLIN)
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        readable = poller.poll(max(0.0, left) * 1000)
        chunk = os.read(fd, 65536) if readable else b""
        if not chunk:
            code = process.wait(START_TIMEOUT) if readable else None
            why = f"was not ready within {START_TIMEOUT:g} s" if code is None else f"ended with code {code}"
            raise ServedCardError(f"the server {why}:\n{log.read_text(errors='replace')[-4000:].rstrip()}", code)
        line += chunk
    json.loads(line)
