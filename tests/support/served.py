"""A card served by a process of its own, as users run it, for tests that speak to its sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from vfio_user_xe.emulator.child_process import launch

START_TIMEOUT = 90.0
STOP_TIMEOUT = 60.0
PROFILE = Path(__file__).parents[1] / "conformance" / "our-server.toml"
"""What the conformance suite is told of our server."""


@dataclass(frozen=True, slots=True)
class ServedCard:
    """A running server: its process id, its sockets by function name, and what it has written to standard error."""

    pid: int
    sockets: dict[str, str]
    log: Path

    @property
    def socket(self) -> str:
        """The socket of function 0."""
        return self.sockets["pf"] if "pf" in self.sockets else next(iter(self.sockets.values()))


@contextmanager
def served(model: str = "conformance", arguments: Sequence[str] = ()) -> Iterator[ServedCard]:
    """Serve a card of `model` in a temporary folder; `arguments` go to `vfio-user-xe serve`.

    Afterwards the server was told to stop, and must have: with exit code 0 and its sockets removed.
    """
    # Short, because the path of a socket may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="vux-") as folder:
        log = Path(folder) / "log"
        reader, writer = os.pipe()
        command = [
            sys.executable,
            "-c",
            "from vfio_user_xe.emulator.cli.main import main; main()",
            "serve",
            "--model",
            model,
            "--socket-dir",
            f"{folder}/s",
        ]
        with log.open("wb") as errors, open(reader, "rb", buffering=0) as ready:
            # It does not outlive a run of tests that is killed.
            process = launch(
                [*command, "--ready-fd", str(writer), *arguments],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[writer],
            )
            os.close(writer)
            try:
                line = ready.readline() if wait([ready.fileno()], START_TIMEOUT) else b""
                if not line:
                    raise RuntimeError(f"the server did not start:\n{log.read_text()}")
                yield ServedCard(process.pid, json.loads(line)["sockets"], log)
                if process.poll() is not None:
                    raise RuntimeError(f"the server died with code {process.returncode}:\n{log.read_text()[-4000:]}")
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    code = process.wait(STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise RuntimeError(f"the server ignored SIGTERM:\n{log.read_text()[-4000:]}") from None
        assert code == 0, f"the server ended with code {code}:\n{log.read_text()[-4000:]}"
        assert not list(Path(folder).glob("s/*.sock")), "the server left its sockets"
