"""What tests may do on one OpenCL driver is no excuse for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe import suites
from vfio_user_xe.emulator.suites.expectations import Expectations

FOLDER = Path(next(iter(suites.__path__)))


@pytest.mark.parametrize(
    ("suite", "test", "driver", "other"),
    [
        ("piglit", "program@execute@atomic_int64_add", "cl-rusticl", "cl-neo"),
        ("piglit", "program@execute@builtin@builtin-float-nextafter-1.0", "cl-rusticl", "cl-neo"),
        ("piglit", "api@clgetkernelarginfo", "cl-rusticl", "cl-neo"),
        ("piglit", "api@clenqueuefillbuffer", "cl-neo", "cl-rusticl"),
        ("piglit", "api@clgetdeviceinfo", "cl-neo", "cl-rusticl"),
        ("piglit", "api@clenqueuereadbuffer and clenqueuewritebuffer", "cl-neo", "cl-rusticl"),
        ("opencl", "test_generated.py@test_results_are_those_of_numpy[double-0]", "neo-vf", "rusticl"),
    ],
)
def test_what_one_driver_does_excuses_no_other(suite: str, test: str, driver: str, other: str) -> None:
    expected = Expectations.load(FOLDER / suite / "expectations.toml")
    found = expected.find(test, group=driver)
    assert found is not None
    assert expected.find(test, group=other) != found
