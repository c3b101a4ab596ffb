"""A VF with a driver of its own."""

from __future__ import annotations

import pytest

from tests.support.xe.guc_driver import GucDriver
from tests.support.xe.provisioning import (
    PROVISIONED,
    SUCCESS,
    VF_START,
    configure,
    enable_vfs,
)


@pytest.fixture
def vf(driver: GucDriver) -> GucDriver:
    """VF 1's driver: provisioned, with 64 MiB of VRAM of its own behind its GGTT."""
    bench = driver.bench
    assert configure(driver, 1, PROVISIONED) == SUCCESS | len(PROVISIONED)
    enable_vfs(bench, 2)
    bench.run(lambda: bench.gpu.vram.provision(1, 64 << 20))
    bench.map_ggtt(VF_START, 1 << 20, 0, vfid=1)
    return GucDriver(bench, vfid=1, base=VF_START)
