"""libvfio-user for tests: the library that the user has, or a skip that says why there is none."""

from __future__ import annotations

import pytest

from vfio_user_xe.emulator.vfio_user.libvfio_user import BackendError
from vfio_user_xe.emulator.vfio_user.libvfio_user.library import named_library


def arguments() -> list[str]:
    """What `serve` gets to use it; skips the test where there is no library."""
    try:
        path = named_library(None)
    except BackendError as exc:
        pytest.skip(f"libvfio-user: {exc}")
    return ["--backend", "libvfio-user", "--libvfio-user", path]
