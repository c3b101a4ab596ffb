"""Waiting for something within a guest, by the guest's own clock."""

from __future__ import annotations

import math
from typing import Protocol

from vfio_user_xe.emulator.guest.channel import Result as Output

_LEAST = 10
"""Looks that are made however long each takes: on a busy host one of them may take longer than the whole wait."""
_GRACE = 120.0


class Runs(Protocol):
    """What runs commands in a guest: a `Shell`, and a `Machine`."""

    def run(self, command: str, *, timeout: float = 60) -> Output: ...


def poll(guest: Runs, look: str, seconds: float) -> Output:
    """Run the shell commands `look`, which `exit 0` when it is so, again and again for `seconds`; at once and only once for 0.

    Exit code 1 says that it did not come about.

    Raises:
        CommandTimeout: the guest does not come to an end of that.
        GuestError: it does not answer.
    """
    least = _LEAST if seconds else 1
    script = (
        f"read up idle < /proc/uptime; end=$((${{up%.*}} + {math.ceil(seconds)})); looks=0\n"
        f"while :; do\n{look}\n"
        "looks=$((looks + 1)); read up idle < /proc/uptime\n"
        f"test ${{up%.*}} -ge $end && test $looks -ge {least} && exit 1\n"
        "sleep 0.1; done"
    )
    return guest.run(script, timeout=seconds + _GRACE)
