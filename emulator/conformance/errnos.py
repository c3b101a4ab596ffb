"""The errno values that cases accept.

The specification names few of them, and lets a server leave the number out altogether ("may be zero even if the Error
bit is set"). Where it is silent, a case accepts what Linux' VFIO or a common server answers. 0 is always accepted.
`docs/conformance.md` lists these sets for authors of servers.
"""

from __future__ import annotations

from errno import (
    E2BIG,
    EACCES,
    EBADF,
    EBADMSG,
    EBUSY,
    EEXIST,
    EFAULT,
    EINVAL,
    EMFILE,
    EMSGSIZE,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTSUP,
    ENOTTY,
    ENXIO,
    EOVERFLOW,
    EPERM,
    EPROTO,
    ERANGE,
    EROFS,
)

Errnos = frozenset[int]

INVALID: Errnos = frozenset({EINVAL})
"""A field has a value that it must not have."""

MALFORMED: Errnos = frozenset({EINVAL, EBADMSG, EPROTO, EMSGSIZE})
"""The message itself is wrong: its size, its type, its flags."""

TOO_LARGE: Errnos = frozenset({EINVAL, E2BIG, EMSGSIZE, ENOMEM, EOVERFLOW, ERANGE})
"""More than was negotiated."""

UNKNOWN_COMMAND: Errnos = frozenset({EINVAL, ENOTSUP, ENOSYS, ENOTTY})
"""A command that the server does not have."""

NO_SUCH_INDEX: Errnos = frozenset({EINVAL, ENOENT, ENODEV, ENXIO, ERANGE})
"""A region or interrupt that the device does not have."""

OUT_OF_RANGE: Errnos = frozenset({EINVAL, ERANGE, EFAULT, ENXIO, EOVERFLOW})
"""Offsets, vectors or addresses beyond an end."""

NOT_ALLOWED: Errnos = frozenset({EINVAL, EPERM, EACCES, EROFS})
"""An access that the region or the descriptor does not permit."""

EXISTS: Errnos = frozenset({EEXIST})
"""DMA_MAP over an existing range: the one errno that the specification names."""

NOT_MAPPED: Errnos = frozenset({ENOENT, EINVAL, EFAULT})
"""DMA_UNMAP of what is not mapped, or not so."""

BAD_DESCRIPTOR: Errnos = frozenset({EINVAL, EBADF, ENODEV, EACCES, EPERM, ENXIO, EOVERFLOW, ENOMEM, EFAULT})
"""A descriptor that cannot be used as it was meant."""

TOO_MANY: Errnos = frozenset({ENOSPC, EINVAL, E2BIG, ENOMEM, EMFILE, ENXIO})
"""One more than the server can hold."""

NO_FEATURE: Errnos = frozenset({ENOTTY, EINVAL, ENOTSUP, ENOSYS})
"""A device feature that the device does not have."""

WRONG_STATE: Errnos = frozenset({EINVAL, EBUSY, EPERM, EPROTO, ENOTTY, ENOTSUP, EEXIST})
"""Right at another time, but not now."""
