"""A server that the suite starts itself, and starts again when it has ended: some serve one client and go."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vfio_user_xe.emulator.child_process import launch

START_TIMEOUT = 60.0


class NotStarted(Exception):
    """The command did not make a server; the text says why."""


class StartedServer:
    """The process that `command` runs, which must listen at `path`. What it prints is dropped."""

    def __init__(self, command: str, path: str) -> None:
        """Start it.

        Raises:
            NotStarted: there is no such program, or it made no socket.
        """
        self.trouble = ""
        """How it has ended otherwise than with code 0, as one that serves a client and is done; "" again for each case."""
        self.serves_one = False
        """Whether it has ended with code 0 when a client had gone: then it is to be started for each."""
        self._lock = threading.Lock()
        self._words = shlex.split(command)
        if not self._words or shutil.which(self._words[0]) is None:
            raise NotStarted(f"cannot start {command!r}: there is no such program")
        # The kernel ends a server with the thread that started it: this one stays.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starter")
        self._path = Path(path)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except NotStarted:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """End what there is, and start anew.

        Raises:
            NotStarted: the program cannot be started, ended, or made no socket within `START_TIMEOUT`.
        """
        self.stop()
        try:
            self._process = self._starter.submit(self._launched).result()
        except OSError as exc:
            raise NotStarted(f"cannot start {shlex.join(self._words)}: {exc}") from None
        deadline = time.monotonic() + START_TIMEOUT
        while not self._path.is_socket():
            code = self._process.poll()
            if code is not None:
                raise NotStarted(f"{shlex.join(self._words)} ended with code {code} and made no {self._path}")
            if time.monotonic() > deadline:
                self.stop()
                raise NotStarted(f"{shlex.join(self._words)} made no {self._path} within {START_TIMEOUT:g} s")
            time.sleep(0.01)

    def _launched(self) -> subprocess.Popen[bytes]:
        return launch(self._words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def revive(self, grace: float = 0.0) -> None:
        """Start it anew if it has ended, or does within `grace` seconds.

        Raises:
            NotStarted: as `start`.
        """
        with self._lock:
            assert self._process is not None
            try:
                code = self._process.wait(grace)
            except subprocess.TimeoutExpired:
                return
            if code < 0:
                self.trouble = f"the server died by {signal.Signals(-code).name}"
            elif code:
                self.trouble = f"the server ended with code {code}"
            else:
                self.serves_one = True
            self.start()

    def stop(self) -> None:
        """End it and what it started, and remove its socket."""
        if self._process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(self._process.pid, number)
                    self._process.wait(2.0 if number == signal.SIGTERM else None)
                except ProcessLookupError:
                    self._process.wait()
                except subprocess.TimeoutExpired:
                    continue
                break
            self._process = None
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """End it; it is not started again."""
        self.stop()
        self._starter.shutdown()
