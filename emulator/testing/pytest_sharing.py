"""What tests share: a card or lab in a module, and between workers of xdist the right to run a guest."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

Slot = Callable[[], AbstractContextManager[None]]
"""The right to run one more guest, for the time of a `with` block."""


class Shared:
    """What the tests of a module share: one card, or one lab, at a time."""

    def __init__(self) -> None:
        self._key: object = None
        self._thing: Any = None
        self._stack = contextlib.ExitStack()

    def get(self, key: object, usable: Any, make: Any) -> Any:
        """The thing of `key` while it is usable, else a new one; whatever else there was is ended before."""
        if self._thing is None or key != self._key or not usable(self._thing):
            self.drop()
            self._thing = self._stack.enter_context(make())
            self._key = key
        return self._thing

    def drop(self) -> None:
        """End what there is."""
        self._key = self._thing = None
        self._stack.close()


class GuestSlots:
    """The right of a worker to run guests: `count` of them in all, as locks on files in `folder`."""

    def __init__(self, folder: Path, count: int) -> None:
        self._files = [folder / f"vfio-user-xe-guest-{index}.lock" for index in range(count)]
        self._held = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for a slot, and have it for the block.

        A worker that has a guest may have more of them: waiting for others with it in hand could wait for ever.
        """
        if self._held:
            yield
            return
        with _one_of(self._files):
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1


@contextlib.contextmanager
def _one_of(files: list[Path]) -> Iterator[None]:
    """Hold the lock on one of `files`; it is free again when this process ends, however it ends."""
    descriptors = [os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for file in files]
    try:
        while True:
            if any(_locked(descriptor) for descriptor in descriptors):
                break
            time.sleep(0.2)
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
