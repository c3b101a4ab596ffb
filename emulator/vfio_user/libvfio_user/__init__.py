"""The other back end: functions served by libvfio-user, a C library that the user has installed (`docs/backends.md`).

    vfio-user-xe serve --backend libvfio-user --libvfio-user /usr/lib/libvfio-user.so.0 ...

The functions are the same, and so is everything above `vfio_user_xe.emulator.pci.transport`. The library is loaded through cffi in ABI
mode: `library` declares what is used of it, `self_test` finds out whether the one that was loaded is like that, `context`
serves one function with it, `process` keeps its crashes from being ours, `serve` puts the pieces together.
"""

from __future__ import annotations


class BackendError(Exception):
    """The library cannot be used; the text says which one, why, and what to do."""
