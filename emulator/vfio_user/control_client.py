"""A blocking client of the control socket, for the command line, scenarios and tests."""

from __future__ import annotations

import itertools
import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from vfio_user_xe.emulator.control.errors import CommandError


class ControlClient:
    """One connection to a card's `control.sock`.

    with ControlClient(path) as control:
        for entry in control.call("ledger", clear=True):
            ...
    """

    def __init__(self, path: Path | str, timeout: float = 60.0) -> None:
        """Connect. `timeout` (seconds) is for every answer.

        Raises:
            OSError: Nobody listens at `path`.

        From one thread at a time.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise type(error)(error.errno, f"cannot connect to {path}: {error.strerror}") from None
        self._lines = self._socket.makefile("rb")
        self._numbers = itertools.count(1)

    def call(self, command: str, /, **arguments: Any) -> Any:
        """Run a command and return its result.

        Raises:
            CommandError: The card refuses.
            ConnectionError: The server went away.
            TimeoutError: No answer came in time.

        From one thread at a time.
        """
        number = next(self._numbers)
        request = {"id": number, "command": command, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the server closed the control socket")
        answer = json.loads(line)
        if answer["id"] != number and "error" not in answer:
            raise ConnectionError(f"answer {answer['id']} to request {number}: a former call was interrupted")
        if "error" in answer:
            raise CommandError(answer["error"]["message"], answer["error"]["allowed"])
        return answer["result"]

    def close(self) -> None:
        """End the connection."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
