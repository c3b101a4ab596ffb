"""Every test runs on both back ends; without a compiler on one."""

from __future__ import annotations

import pytest

from tests.support.xe.compute_lab import ComputeLab
from vfio_user_xe.device_models.xe.compute import compiled_units, dispatch
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits


@pytest.fixture(params=["reference", "compiled"])
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ComputeLab:
    """An engine lab whose execution units are one of the back ends."""
    if request.param == "reference":
        monkeypatch.setattr(dispatch, "units", ReferenceUnits)
    elif isinstance(compiled_units.units(), ReferenceUnits):
        pytest.skip("there is no compiler")
    return ComputeLab()
