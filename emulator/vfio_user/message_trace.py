"""Messages of a session as its trace shows them."""

from __future__ import annotations

import errno

from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.formats import describe

_KEPT = 1024
"""Bytes of a message's body that a trace keeps."""


def trace_message(
    tap: Tap, function: str, message_id: int, command: int, flags: int, body: memoryview, fds: int, error: int = 0
) -> None:
    """Tell the trace of a message, of which so much is kept as a trace shows. The tracer's thread decodes it.

    From any thread.
    """
    shown, size = bytes(body[:_KEPT]), len(body)

    def fields() -> dict[str, object]:
        known: dict[str, object] = {"command": wire.COMMAND_NAMES.get(command, command), "id": message_id}
        if fds:
            known["fds"] = fds
        if error:
            known["errno"] = errno.errorcode.get(error, error)
        return known | {"bytes": size} | describe(command, shown)

    is_reply = flags & wire.TYPE_MASK == wire.TYPE_REPLY
    tap(function, "reply" if is_reply else "command", fields)
