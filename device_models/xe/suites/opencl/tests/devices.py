"""The device under test, and PoCL beside it."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import pyopencl as cl
import pytest

UNDER_TEST = os.environ.get("OPENCL_UNDER_TEST", "Portable")
REFERENCE = "Portable"
_ROUNDED = "-cl-fp32-correctly-rounded-divide-sqrt"


@dataclass(frozen=True)
class Device:
    """A device with a queue."""

    device: Any
    context: Any
    queue: Any

    def built(self, source: str) -> Any:
        """The program, with float division and square root rounded as IEEE 754 wants it."""
        can = self.device.single_fp_config & cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT
        return cl.Program(self.context, source).build([_ROUNDED] if can else [])


@functools.cache
def device(platform: str) -> Device:
    """The first device of the platform with this in its name; skips the test where there is none."""
    found = [one for each in cl.get_platforms() if platform in each.name for one in each.get_devices()]
    if not found and platform == UNDER_TEST:
        pytest.fail(f"no device of {platform}: {[each.name for each in cl.get_platforms()]}")
    if not found:
        pytest.skip(f"no device of {platform}")
    context = cl.Context([found[0]])
    return Device(found[0], context, cl.CommandQueue(context))
