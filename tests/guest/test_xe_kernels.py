"""Other kernels' stock xe on the card: every series that was fetched beside the newest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.guest.lab import Lab, open_lab
from tests.support.guest.xe_programs import NoCompiler, compile_all, files_for, parse_tap, problem_of
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.packaged_kernels import cached_kernels, find_kernel
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient

ADDRESS = "0000:01:00.0"
PF = f"/sys/bus/pci/devices/{ADDRESS}"
FIRST_WITH_SRIOV = (6, 17)
"""Earlier drivers know neither SR-IOV on Battlemage nor graphics 20.02."""
_NONE = "no other kernels are in the cache; have some with: vfio-user-xe guest fetch --kernel 7.2 --kernel 6.18"

pytestmark = [pytest.mark.guest, pytest.mark.skipif(not cached_kernels(), reason=_NONE)]


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release)[:2])


_WITH_SRIOV = [release for release in cached_kernels() if _version(release) >= FIRST_WITH_SRIOV]
_WITHOUT = [release for release in cached_kernels() if _version(release) < FIRST_WITH_SRIOV]


@contextmanager
def _driver_on_card(release: str, *serve: str) -> Iterator[Lab]:
    """A guest of that kernel whose driver has bound the card."""
    try:
        blits = compile_all(locate())["blits"]
    except (MissingEnvironment, NoCompiler) as error:
        pytest.skip(str(error))
    kernel = find_kernel(release.split("+", maxsplit=1)[0])
    with open_lab(serve, modules=["xe"], kernel=kernel, files=dict(files_for({"blits": blits}))) as lab:
        assert lab.sh("uname -r") == release
        lab.sh("modprobe xe", timeout=120)
        yield lab


def _check_jobs(lab: Lab) -> None:
    """The copy engines work for user space; nobody complained; nothing undeclared was touched."""
    done = lab.guest.run(f"xe-blits --device {ADDRESS}", timeout=180)
    results = parse_tap(done.stdout)
    assert done.returncode == 0, problem_of(done.stdout, done.returncode)
    assert results
    assert all(outcome.passed and not outcome.skipped for outcome in results.values())
    log = lab.guest.dmesg()
    assert "*ERROR*" not in log
    assert "WARNING:" not in log
    with ControlClient(lab.card.control) as control:
        assert [f"{row['function']} {row['offset']:#x}" for row in control.call("unmodelled")] == []


@pytest.mark.parametrize("release", _WITH_SRIOV)
def test_xe_probes_the_pf_and_enables_and_probes_vfs(release: str) -> None:
    with _driver_on_card(release, "--vfs", "2") as lab:
        lab.sh(f"echo 2 > {PF}/sriov_numvfs", timeout=120)
        assert lab.sh("ls -d /dev/dri/renderD*").split() == [f"/dev/dri/renderD{n}" for n in (128, 129, 130)]
        log = lab.guest.dmesg()
        assert "Running in SR-IOV PF mode" in log
        assert log.count("Running in SR-IOV VF mode") == 2
        lab.sh(f"echo 0 > {PF}/sriov_numvfs", timeout=120)
        _check_jobs(lab)


@pytest.mark.parametrize("release", _WITHOUT)
def test_xe_from_before_sriov_probes_graphics_20_01(release: str) -> None:
    with _driver_on_card(release, "--vfs", "0", "--set", "graphics=20.01") as lab:
        assert lab.sh("ls -d /dev/dri/renderD*") == "/dev/dri/renderD128"
        _check_jobs(lab)
