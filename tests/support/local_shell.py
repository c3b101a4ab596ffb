"""A guest's shell, which is this machine's."""

from __future__ import annotations

import subprocess

from vfio_user_xe.emulator.guest.channel import Result


class LocalShell:
    """A shell's commands, run here."""

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        done = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, timeout=timeout, check=False)
        result = Result(done.returncode, done.stdout, done.stderr.decode(), 0.0)
        return result.check(command) if check else result
