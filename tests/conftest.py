"""What all tests rely on."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from vfio_user_xe.emulator.guest.host import meminfo

WORKER = 6 << 20
"""KiB that the guests of one file of tests take at once at most, with their servers."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

# No test asserts how long something takes, nor how long examples take to be made.
settings.register_profile("without a deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without a deadline")

# A shell starts background jobs with SIGINT ignored, and Python leaves it so: tests of Ctrl-C, and the programs that
# they start, would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """How many workers `-n auto` means: where tests in guests are chosen, as many as memory has room for guests, a processor each."""
    if not str(config.option.markexpr).startswith("guest") or "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    memory = meminfo().get("MemAvailable", 0)
    with suppress(OSError, ValueError):  # "max" is no number: there is no limit
        memory = min(memory, int(CGROUP_LIMIT.read_text()) // 1024)
    return max(1, min(len(os.sched_getaffinity(0)), memory // WORKER))
