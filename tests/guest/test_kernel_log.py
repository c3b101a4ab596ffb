"""The kernel's log is read to its end in a real guest, whatever is in it."""

from __future__ import annotations

import pytest

from tests.support.guest.lab import open_lab
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.kernel_reports.lines import texts

pytestmark = pytest.mark.guest


def test_long_records_are_read_and_do_not_end_the_log() -> None:
    # A record for which the reader's buffer has no room is lost (printk.c:devkmsg_read, EINVAL).
    with open_lab(["--model", "edu"]) as lab:
        log = KernelLog(lab.guest, str)
        log.read()
        long = ["x" * length for length in (200, 400, 500, 700, 900)]
        for text in (*long, "the last"):
            lab.guest.run(f"echo '<6>{text}' > /dev/kmsg", check=True)
        assert [text for text in texts(log.read()) if text in (*long, "the last")] == [*long, "the last"]
        # The reader waits for no record that nobody writes.
        for _ in range(20):
            assert "the last" not in texts(log.read(timeout=30))
