"""Kernels that are translated on a thread of their own, so that the card's executor answers everybody else meanwhile.

A kernel of some thousand instructions takes a second, and the driver waits a quarter of that for an invalidation of translations.
The thread reads no memory itself: it asks for pages of code, and whoever owns the task reads them between other work.
All these threads share one interpreter with the executor, so a function has few of them, however many kernels it submits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vfio_user_xe.device_models.xe.compute.units import Execution, Task, fetch_code
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel, translate_kernel
from vfio_user_xe.device_models.xe.eu.compiled.library import Library
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault

_PAGE = 0x1000
_AT_ONCE = 2
"""Kernels of one function that are translated at once."""
_UNSERVED = 1.0
"""Seconds that a thread waits for a page; then it leaves its place to others, for the context may not have its turn for long."""


def room() -> threading.Semaphore:
    """The places for one function's translations."""
    return threading.Semaphore(_AT_ONCE)


class _Abandoned(Exception):
    """Nobody waits for the kernel any more."""


class _Unserved(Exception):
    """A page did not come in time. The translation begins anew, with the pages that it has, when it is served again."""


class Translation:
    """One kernel on its way; all methods are for the card's executor."""

    def __init__(self, task: Task, library: Library, places: threading.Semaphore) -> None:
        """It begins when it is served and there is a place among `places` (`room`)."""
        self._memory = task.memory
        self._instruction = task.state.instruction
        self._entry = task.walker.interface.kernel
        self._library = library
        self._places = places
        self._changed = threading.Condition()
        # Below are shared with the thread, under `_changed`.
        self._pages: dict[int, bytes] = {}
        self._wanted: int | None = None
        self._kernel: Kernel | None = None
        self._error: Exception | None = None
        self._running = False

    def serve(self, seconds: float) -> bool:
        """Read what the thread asks for, for so long; whether it has ended."""
        with self._changed:
            idle = not self._ended and not self._running
        # Without the lock: there may be no place for a while.
        if idle and not self._begin(seconds):
            return False
        with self._changed:
            self._changed.wait_for(self._served, seconds)
            return self._ended

    @property
    def _ended(self) -> bool:
        return self._kernel is not None or self._error is not None

    def _served(self) -> bool:
        """Read the page that the thread asks for, if it does; whether there is nothing to wait for, since it does not run."""
        if self._wanted is not None:
            try:
                self._pages[self._wanted] = self._memory.read(self._wanted, _PAGE)
            except (TranslationFault, AccessFault) as fault:
                self._error = fault
            self._wanted = None
            self._changed.notify_all()
        return self._ended or not self._running

    def result(self) -> Kernel:
        """The kernel, once `serve` says that it has ended.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
            ValueError: the code means nothing, or is too long.
        """
        if self._error is not None:
            raise self._error
        assert self._kernel is not None
        return self._kernel

    def code(self, place: int, length: int) -> bytes:
        """Memory as the kernel was made from it, whatever is there by now; what it was not made from, as it is.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        parts = []
        while length > 0:
            offset = place & _PAGE - 1
            here = min(length, _PAGE - offset)
            page = self._pages.get(place - offset)
            parts.append(self._memory.read(place, here) if page is None else page[offset : offset + here])
            place, length = place + here, length - here
        return b"".join(parts)

    def abandon(self) -> None:
        """Nobody wants it any more: the thread ends at the next instruction that it reads."""
        with self._changed:
            if self._kernel is None and self._error is None:
                self._error = _Abandoned()
            self._changed.notify_all()

    def _begin(self, seconds: float) -> bool:
        """Start the thread, if there is a place for it within that time, and the host has room for one."""
        if not self._places.acquire(timeout=seconds):
            return False
        self._running = True
        try:
            threading.Thread(target=self._translate, name="eu-translate", daemon=True).start()
        except RuntimeError:  # the limit of threads: a later step tries again
            self._running = False
            self._places.release()
            return False
        return True

    def _translate(self) -> None:
        kernel: Kernel | None = None
        error: Exception | None = None
        try:
            kernel = translate_kernel(self._fetch, self._entry, self._library)
        except _Unserved:
            pass
        except Exception as found:
            error = found
        self._places.release()
        with self._changed:
            self._kernel, self._error = kernel, self._error or error
            self._running = False
            self._changed.notify_all()

    def _fetch(self, address: int, length: int) -> bytes:
        return fetch_code(self, self._instruction + address, length)

    def read(self, place: int, length: int) -> bytes:
        """Of the thread: bytes of code, from pages that it was given."""
        parts = []
        while length > 0:
            here = min(length, _PAGE - (place & _PAGE - 1))
            offset = place & _PAGE - 1
            parts.append(self._page(place - offset)[offset : offset + here])
            place, length = place + here, length - here
        return b"".join(parts)

    def _page(self, page: int) -> bytes:
        # A page that is there is taken without the lock: nobody changes it.
        found = self._pages.get(page)
        if found is not None and self._error is None:
            return found
        with self._changed:
            self._wanted = page
            self._changed.notify_all()
            served = self._changed.wait_for(lambda: self._error is not None or page in self._pages, _UNSERVED)
            if self._error is not None:
                raise _Abandoned
            if not served:
                raise _Unserved
            return self._pages[page]


class LateExecution:
    """A task whose kernel is being translated; afterwards what `begin` makes of it."""

    def __init__(self, task: Task, translation: Translation, begin: Callable[[], Execution]) -> None:
        self._task = task
        self._translation = translation
        self._begin = begin
        self._held = False
        self._execution: Execution | None = None

    @property
    def finished(self) -> bool:
        """`Execution.finished`."""
        return self._execution is not None and self._execution.finished

    @property
    def begun(self) -> int:
        """`Execution.begun`."""
        return self._task.begin_at if self._execution is None else self._execution.begun

    @property
    def at_boundary(self) -> bool:
        """`Execution.at_boundary`."""
        return self._execution is None or self._execution.at_boundary

    def step(self, nanoseconds: int) -> Fault | None:
        """`Execution.step`."""
        execution = self._ready(nanoseconds / 1e9)
        return None if execution is None else execution.step(nanoseconds)

    def save(self) -> bytes:
        """`Execution.save`."""
        return b"" if self._execution is None else self._execution.save()

    def restore(self, data: bytes) -> None:
        """`Execution.restore`: its groups need the kernel at once."""
        execution = None
        while execution is None:
            execution = self._ready(1)
        execution.restore(data)

    def hold(self, held: bool) -> None:
        """`Execution.hold`."""
        self._held = held
        if self._execution is not None:
            self._execution.hold(held)

    def describe(self) -> str:
        """`Execution.describe`."""
        return "" if self._execution is None else self._execution.describe()

    def close(self) -> None:
        """`Execution.close`."""
        self._translation.abandon()
        if self._execution is not None:
            self._execution.close()

    def _ready(self, seconds: float) -> Execution | None:
        if self._execution is None and self._translation.serve(seconds):
            self._execution = self._begin()
            if self._held:
                self._execution.hold(True)
        return self._execution
