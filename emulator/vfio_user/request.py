"""One request off the access path, its answer, and its refusal."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from vfio_user_xe.emulator.vfio_user.session_view import SessionView


class RequestError(Exception):
    """A request that is refused; `errno` is what the client is told."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


@dataclass(slots=True)
class Answer:
    """The body of a reply, the descriptors that go with it, and what happens once it was sent."""

    pieces: Sequence[bytes | memoryview] = ()
    fds: Sequence[int] = ()
    after: Callable[[], None] | None = None


@dataclass(slots=True)
class Request:
    """One command's body and descriptors."""

    session: SessionView
    body: memoryview
    fds: list[int] = field(default_factory=list)

    def fixed(self, layout: Struct) -> tuple[Any, ...]:
        """The fixed part, which must be there.

        Raises:
            RequestError: The body is shorter.

        On the access thread of the function.
        """
        if len(self.body) < layout.size:
            raise RequestError(errno.EINVAL, f"body of {len(self.body)} bytes, want at least {layout.size}")
        return layout.unpack_from(self.body)
