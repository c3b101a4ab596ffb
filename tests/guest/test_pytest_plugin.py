"""The pytest plug-in with guests: an author's tests, run by a pytest of their own."""

from __future__ import annotations

import re

import pytest

from tests.support.processes import runs
from vfio_user_xe.emulator.guest.cache import cache_dir
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.guest, pytest.mark.timeout(480)]

CACHE = cache_dir().parent

TESTS = """
import pytest
from vfio_user_xe.emulator.testing.lab import GuestError

pytestmark = [
    pytest.mark.vfio_user_card("--model", "edu"),
    pytest.mark.vfio_user_guest(memory=512),
]


def test_the_guest_has_the_card(guest, card, ledger):
    assert "1234:11e8" in guest.run("lspci -n").stdout
    assert card.call("status")["functions"][0]["attached"]
    print("guest 1:", guest.pid)


def test_the_module_shares_them(guest, card):
    print("guest 2:", guest.pid)


def test_a_panic_is_reported(guest):
    print("guest 3:", guest.pid)
    guest.run("echo c > /proc/sysrq-trigger")


def test_a_new_guest_follows(guest):
    print("guest 4:", guest.pid)
    assert guest.run("uname -s").stdout == "Linux\\n"


def test_a_register_that_is_polled_is_named(lab):
    lab.sh("setpci -s 01:00.0 COMMAND=0006")
    bar0 = int(lab.sh("head -1 /sys/bus/pci/devices/0000:01:00.0/resource").split()[0], 16)
    lab.sh(f"i=0; while [ $i -lt 400 ]; do busybox devmem {bar0 + 0x20:#x} > /dev/null; i=$((i+1)); done")
    assert False
"""


def test_guests_are_shared_replaced_when_they_panic_and_explained_in_reports(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cache is found by the home folder, which pytester makes its own.
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    try:
        locate()
    except MissingEnvironment as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(variable, raising=False)
    pytester.makepyfile(test_guest=TESTS)
    result = pytester.runpytest("-s", "-p", "no:cacheprovider", "--vfio-user-xe-console=consoles")
    result.assert_outcomes(passed=3, failed=2)
    output = result.stdout.str()
    pids = dict(re.findall(r"guest (\d): (\d+)", output))
    assert pids["1"] == pids["2"] == pids["3"] != pids["4"]
    for pid in set(pids.values()):
        assert not runs(int(pid)), "a QEMU outlived the tests"
    assert "guest: end of the console" in output
    assert "Kernel panic - not syncing: sysrq triggered crash" in output
    assert "edu polls STATUS (0x20)" in output
    assert re.search(r"edu +mmio +read register=STATUS", output)
    assert list((pytester.path / "consoles").iterdir())
