"""Builds a kernel for guests out of a tree: configuration, image and modules in an object folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from vfio_user_xe.emulator.guest.errors import GuestError, NotUsable
from vfio_user_xe.emulator.guest.kernel_config import Missing, Row, missing, parse, rows

_Handler = Callable[[int, FrameType | None], object] | signal.Handlers | int

_MERGE = "scripts/kconfig/merge_config.sh"
_KEPT_LINES = 30
_SCRATCH = ".vfio-user-xe-configuring"
"""A folder below the object folder; one that a killed build left is of no use."""


class BuildFailed(GuestError):
    """A step of the build ended with an error; the text has the command and the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was built: `missing` are the options that the tree did not take."""

    image: Path
    modules: Path
    missing: tuple[Missing, ...]


@dataclass(frozen=True, slots=True)
class Build:
    """A build of the tree `tree` in the folder `objects`, with fragments merged over tinyconfig, and `extra`, a user's, last.

    `jobs` is make's -j. `tell` gets each line that a step writes. May be called from any thread.
    """

    tree: Path
    objects: Path
    fragments: Sequence[Path]
    extra: Sequence[Path]
    jobs: int
    tell: Callable[[str], None]

    def run(self, *, configure: bool = False) -> Built:
        """Configure the object folder if it is not (or again, with `configure`), and build.

        What is there is built further: after a change only what depends on it.

        Raises:
            NotUsable: the tree is no kernel tree, or the object folder cannot be made.
            BuildFailed: a step failed.
        """
        for name in ("Makefile", "Kconfig", _MERGE):
            if not (self.tree / name).is_file():
                raise NotUsable(f"{self.tree}: is no kernel tree: it has no {name}")
        if shutil.which("make") is None:
            raise NotUsable(
                "there is no make on PATH; a kernel needs make, gcc, flex, bison, bc, libelf's and OpenSSL's headers"
            )
        try:
            self.objects.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotUsable(f"{self.objects}: {error.strerror}") from error
        config = self.objects / ".config"
        if configure or not config.is_file():
            self._configure(config)
        wanted = [row for file in self.fragments for row in rows(file)]
        wanted += [Row(file.name, "", parse(file.read_text("utf-8", errors="replace"))) for file in self.extra]
        lacks = tuple(missing(parse(config.read_text("utf-8")), wanted))
        self._make("bzImage", "modules")
        installed = self.objects / "installed"
        # Modules of an earlier release; what else a user keeps there is left alone.
        shutil.rmtree(installed / "lib" / "modules", ignore_errors=True)
        self._make("modules_install", f"INSTALL_MOD_PATH={installed}", "INSTALL_MOD_STRIP=1")
        return Built(self.objects / "arch/x86/boot/bzImage", installed, lacks)

    def _configure(self, config: Path) -> None:
        """Make a configuration in a folder of its own, and put it in place when it is whole.

        One that was there is kept as `.config.old`, where kconfig keeps the one before, too.
        """
        scratch = self.objects / _SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir()
            made = scratch / ".config"
            self._make("tinyconfig", objects=scratch)
            fragments = map(str, (*self.fragments, *self.extra))
            self._step([str(self.tree / _MERGE), "-O", str(scratch), str(made), *fragments])
            if config.is_file():
                shutil.copy2(config, config.with_name(".config.old"))
            made.replace(config)
        except OSError as error:
            raise NotUsable(f"{self.objects}: cannot be configured: {error}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _make(self, *targets: str, objects: Path | None = None) -> None:
        folder = self.objects if objects is None else objects
        self._step(["make", "-C", str(self.tree), f"O={folder}", "ARCH=x86_64", f"-j{self.jobs}", *targets])

    def _step(self, command: Sequence[str]) -> None:
        """Run a step in the tree; its output is told line by line."""
        variables = {**os.environ, "ARCH": "x86_64"}
        said: list[str] = []
        with (
            _SignalsLater() as signals,
            subprocess.Popen(
                command,
                cwd=self.tree,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            assert process.stdout is not None
            try:
                signals.take()
                for line in process.stdout:
                    self.tell(line.rstrip("\n"))
                    said = [*said[1 - _KEPT_LINES :], line]
            except BaseException:
                # Such as KeyboardInterrupt by a SIGTERM to this process alone. Make ends its children itself.
                process.terminate()
                process.wait()
                raise
        if process.returncode != 0:
            text = "".join(said).rstrip()
            raise BuildFailed(f"{' '.join(command)}: ended with exit code {process.returncode}:\n{text}")


class _SignalsLater:
    """Signals that would end the program wait until `take` is called: a KeyboardInterrupt in Popen's code forgets the process.

    Python handles signals in the main thread alone; in others there is nothing to hold back. Ignored ones stay ignored.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._came: list[int] = []

    def __enter__(self) -> _SignalsLater:
        if threading.current_thread() is threading.main_thread():
            try:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    handler = signal.getsignal(number)
                    # None is a handler that is not Python's.
                    if handler is not None and handler is not signal.SIG_IGN:
                        self._handlers[number] = handler
                        signal.signal(number, self._note)
            except BaseException:
                self.take()  # a signal whose turn had not come
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.take()

    def take(self) -> None:
        """Put the handlers back, and let them have what came meanwhile."""
        for number in list(self._handlers):
            signal.signal(number, self._handlers[number])
            del self._handlers[number]
        while self._came:
            signal.raise_signal(self._came.pop())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append(number)
