"""What the kernel's watchdog says of a task that a scenario makes wait."""

from __future__ import annotations

from unittest.mock import create_autospec

from vfio_user_xe.device_models.xe.scenarios import steps
from vfio_user_xe.emulator.kernel_reports import KernelLog, parse, reports
from vfio_user_xe.emulator.scenarios.excuses import unexcused
from vfio_user_xe.emulator.scenarios.run import Run

WAITS = """INFO: task xe-dmabuf:3084 blocked for more than {} seconds.
      Not tainted 7.3.4 #1
task:xe-dmabuf       state:D stack:0     pid:3084  tgid:3027  ppid:1
Call Trace:
 <TASK>
 {}+0x27a/0x3f0 [vfio_pci_core]
 </TASK>
"""


def test_a_task_that_waits_as_expected_is_reported_for_minutes_on_a_busy_host() -> None:
    run = Run(create_autospec(KernelLog, instance=True))
    steps.may_hang(run)
    twelve = reports(parse("".join(WAITS.format(seconds, "vfio_pci_dma_buf_move") for seconds in range(5, 125, 10))))
    elsewhere = reports(parse(WAITS.format(5, "xe_guc_reset_wait")))
    assert len(twelve) == 12
    assert unexcused([*twelve, *elsewhere], run.excuses)[0] == elsewhere
