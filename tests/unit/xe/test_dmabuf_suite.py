"""The dma-buf suite without a guest: its list, its page, and how it reads a kernel's log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.device_models.xe.scenarios.defects import REVOCATION_WAITS
from vfio_user_xe.device_models.xe.scenarios.revocation import hung_task_report
from vfio_user_xe.emulator.kernel_reports import parse
from vfio_user_xe.emulator.results.shard import BOOT, Parts, Shard
from vfio_user_xe.emulator.results.times import Times
from vfio_user_xe.emulator.scenarios.runner import select

PAGE = (Path(__file__).parents[3] / "docs" / "dmabuf-scenarios.md").read_text()

LOG = """\
[   93.857353] vfio-pci 0000:01:00.1: resetting
[   98.339799] INFO: task xe-dmabuf:3719 blocked for more than 5 seconds.
[   98.339809]       Not tainted 7.3.4+deb13-amd64 #1 Debian 7.3.4-1
[   98.339862] Call Trace:
[   98.339880]  <TASK>
[   98.339892]  __schedule+0x52a/0x1080
[   98.339900]  ? __pfx_schedule_timeout+0x10/0x10
[   98.340227]  vfio_pci_dma_buf_move+0x9d/0x190 [vfio_pci_core]
[   98.340592] RIP: 0033:0x4451fb
[   98.340679]  </TASK>
[   98.341025] INFO: task xe-dmabuf:3720 blocked for more than 5 seconds.
[   98.341095]  vfio_pci_core_ioctl+0x5d4/0xb80 [vfio_pci_core]
[   98.341100]  </TASK>""".splitlines()


def test_every_number_of_the_list_has_a_scenario_and_no_two_are_alike() -> None:
    numbers = [scenario.number for scenario in DMABUF.scenarios]
    names = [scenario.name for scenario in DMABUF.scenarios]
    assert len(set(numbers)) == len(numbers)
    assert len(set(names)) == len(names)
    assert {str(number) for number in range(1, 36)} <= set(numbers)


def test_the_page_describes_every_scenario_and_every_defect() -> None:
    rows = re.findall(r"^\| ([\w, ]+) \|", PAGE, re.MULTILINE)
    described = {number.strip() for row in rows for number in row.split(",")}
    missing = {scenario.number for scenario in DMABUF.scenarios if not scenario.control} - described
    assert not missing
    controls = [scenario.number for scenario in DMABUF.scenarios if scenario.control]
    assert f"`{controls[0]}` to `{controls[-1]}` are controls" in PAGE
    assert all(f"`{name}`" in PAGE for name in DMABUF.defects if not re.fullmatch(r"D\d+", name))


def test_the_group_of_the_hang_has_its_forms() -> None:
    forms = {scenario.number for scenario in select(DMABUF, ["hang"])}
    assert forms >= {"17", "17b", "17c", "19", "20", "21", "22", "22b", "22c", "22d"}
    assert REVOCATION_WAITS in DMABUF.defects


WITHOUT_TIME = [line.partition("] ")[2] for line in LOG]
WITH_CALLER = [line.replace("] ", "][  T123] ", 1) for line in LOG]


@pytest.mark.parametrize("log", [LOG, WITHOUT_TIME, WITH_CALLER], ids=["time", "bare", "caller"])
def test_a_hung_task_report_is_the_first_one_without_what_explains_nothing(log: list[str]) -> None:
    assert hung_task_report(parse("\n".join(log))) == [
        "INFO: task xe-dmabuf:3719 blocked for more than 5 seconds.",
        "      Not tainted 7.3.4+deb13-amd64 #1 Debian 7.3.4-1",
        "Call Trace:",
        " <TASK>",
        " __schedule+0x52a/0x1080",
        " vfio_pci_dma_buf_move+0x9d/0x190 [vfio_pci_core]",
    ]
    assert hung_task_report(parse(log[0])) == []
    assert hung_task_report(parse("\n".join(log[:2]))) == ["INFO: task xe-dmabuf:3719 blocked for more than 5 seconds."]


def test_recorded_times_are_of_scenarios_that_there_are_and_of_most_of_them() -> None:
    names = {scenario.name for scenario in DMABUF.scenarios}
    assert set(DMABUF.times) <= names
    assert len(DMABUF.times) > len(names) / 2


def test_shards_of_the_suite_take_about_the_same_time() -> None:
    parts = [
        Parts((Shard(number, 4),), Times(DMABUF.times)).of(
            list(DMABUF.scenarios), lambda scenario: scenario.name, lambda scenario: scenario.setup.name
        )
        for number in (1, 2, 3, 4)
    ]
    times = Times(DMABUF.times)
    seconds = [
        sum(times.of(scenario.name) for scenario in part) + BOOT * len({scenario.setup.name for scenario in part})
        for part in parts
    ]
    assert max(seconds) - min(seconds) <= max(times.values()) + BOOT
