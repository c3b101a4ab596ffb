"""MI_REPORT_PERF_COUNT, and counters that go with a context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock
from unittest.mock import NonCallableMock

import numpy as np
import pytest

from tests.support.xe.commands import END
from tests.support.xe.engine_lab import DATA_VA, Job, Lab
from tests.support.xe.oa_lab import PART, Rate
from vfio_user_xe.device_models.xe.engines.perf_events import Event
from vfio_user_xe.device_models.xe.oa import layouts
from vfio_user_xe.device_models.xe.oa.oa import OAR_OACONTROL, Oa
from vfio_user_xe.device_models.xe.oa.unit import OaUnit
from vfio_user_xe.device_models.xe.profiles.profile import COPY, RENDER, Profile
from vfio_user_xe.emulator.model.registers import Register

CONTEXT_CONTROL, OA_CTX_CONTROL = 0x2244, 0x2360
REPORT, FILL = 576, 0x8080_8080
PEC64U64 = 1 << 1 | 1 << 8
MI_NOOP, MI_USER_INTERRUPT = 0, 0x02 << 23
ENABLE = (OA_CTX_CONTROL, 1, CONTEXT_CONTROL, 1 << 8 | 1 << 24, OAR_OACONTROL, PEC64U64 | 1)


def report(offset: int, identity: int) -> tuple[int, ...]:
    address = DATA_VA + offset
    return 0x1400_0002, address & 0xFFFFFFFF, address >> 32, identity


def load(*pairs: int) -> tuple[int, ...]:
    return 0x1100_0000 | len(pairs) - 1, *pairs


class PerfLab(Lab):
    """A lab whose render engine has an OA unit."""

    def __init__(self) -> None:
        super().__init__()
        gt: Any = self.gt
        gt.index = 0
        gt.register.side_effect, gt.offset.side_effect = Register, lambda at: at
        self.profile = NonCallableMock(spec=Profile, part=PART)
        rate: Any = Rate()
        self.oa = Oa(gt, self.pf.registers, self.engines.engines, rate, self.pf.ggtt_space)
        self.pf.registers.write(layouts.OAG.selects[0], 4, Event.IA_VERTEX)

    def context(self, engine_class: int = RENDER) -> Job:
        job = self.job(engine_class=engine_class)
        job.set_bytes(0, FILL.to_bytes(4, "little") * 0x800)
        return job

    def enabled(self) -> Job:
        """A context for which the driver has enabled counters, from its ring."""
        job = self.context()
        job.ring(*load(*ENABLE))
        job.submit()
        self.run()
        return job

    def batch(self, job: Job, *words: int) -> None:
        job.batch(*words, END)
        job.ring(*job.start())
        job.submit()
        self.run()

    @staticmethod
    def qwords(job: Job, offset: int) -> list[int]:
        return np.array(job.data(offset, REPORT // 4), dtype=np.uint32).view(np.uint64).tolist()


@pytest.fixture
def lab() -> Iterator[PerfLab]:
    lab = PerfLab()
    yield lab
    lab.close()


def test_a_report_has_the_commands_identity_and_nothing_is_written_behind_it(lab: PerfLab) -> None:
    job = lab.enabled()
    lab.batch(job, *report(0, 0xDEADBEEF))
    found = lab.qwords(job, 0)
    assert found[0] == 0xDEADBEEF
    assert found[1] > 0
    assert found[2] == job.context.guc_id
    assert job.data(REPORT, 1) == [FILL]


def test_counters_of_a_context_are_what_its_engine_did_for_it(lab: PerfLab) -> None:
    job, other = lab.enabled(), lab.context()
    counted = lab.engine("rcs0").counted
    counted[Event.IA_VERTEX] = 100  # before
    lab.batch(job, *report(0, 1))
    counted[Event.IA_VERTEX] += 1000  # while another context has the engine
    lab.batch(other, *report(0, 2))
    lab.batch(job, *report(0x400, 3))
    first, second = lab.qwords(job, 0), lab.qwords(job, 0x400)
    assert second[4] == first[4]
    assert second[1] > first[1]
    assert lab.qwords(other, 0)[4:] == [FILL << 32 | FILL] * 68  # it has chosen no format, nor has the driver


def test_what_happens_between_two_reports_of_a_context_is_their_difference(lab: PerfLab) -> None:
    job = lab.enabled()
    counted = lab.engine("rcs0").counted

    def work() -> None:
        counted[Event.IA_VERTEX] += 1000

    lab.listener.on_interrupt = work
    lab.batch(job, *report(0, 1), MI_USER_INTERRUPT, *report(0x400, 2))
    assert lab.qwords(job, 0x400)[4] - lab.qwords(job, 0)[4] == 1000


def test_a_context_without_counters_reports_zeros_in_the_format_of_the_stream(lab: PerfLab) -> None:
    lab.pf.registers.write(layouts.OAG.control, 4, 1 << 2 | 1 << 8)
    job = lab.context()
    lab.engine("rcs0").counted[Event.IA_VERTEX] = 100
    lab.batch(job, *report(0, 7))
    found = lab.qwords(job, 0)
    assert (found[0], found[4:]) == (7, [0] * 68)


def test_counters_that_the_driver_has_disabled_are_zero_again(lab: PerfLab) -> None:
    lab.pf.registers.write(layouts.OAG.control, 4, 1 << 2 | 1 << 8)
    job = lab.enabled()
    lab.batch(job, *report(0, 1))
    job.ring(*load(OA_CTX_CONTROL, 0, CONTEXT_CONTROL, 1 << 24, OAR_OACONTROL, PEC64U64))
    job.submit()
    lab.engine("rcs0").counted[Event.IA_VERTEX] = 100
    lab.batch(job, *report(0x400, 2))
    assert not any(lab.qwords(job, 0x400)[4:])


def test_an_engine_without_counters_writes_nothing(lab: PerfLab) -> None:
    job = lab.context(COPY)
    lab.batch(job, *report(0, 7))
    assert job.data(0, 1) == [FILL]


def test_a_user_batch_reaches_the_trigger_where_the_driver_lists_it(lab: PerfLab) -> None:
    seen: list[int] = []
    lab.oa.units[0]._trigger = seen.append  # type: ignore[method-assign]
    job = lab.context()
    trigger = load(layouts.OAG.trigger, 0xC0FFEE)
    lab.batch(job, *trigger)
    assert seen == []
    lab.pf.registers.write(0x24D0, 4, layouts.OAG.trigger)
    lab.batch(job, *trigger)
    lab.run()
    assert seen == [0xC0FFEE]


def test_switches_of_the_pfs_contexts_are_reported_and_not_those_of_a_vf(lab: PerfLab) -> None:
    lab.pf.registers.write(layouts.OAG.control, 4, 1 << layouts.OAG.format_shift | 1 << 8 | 1)
    lab.run()
    vf = lab.vf_with_memory(1, {n: 16 + n - 8 for n in range(8)}, (0x400_0000, 0x100_0000))
    job, of_vf = lab.job(engine_class=RENDER), Job(lab, 5, function=vf, engine_class=RENDER)
    lab.jobs.append(of_vf)
    with mock.patch.object(OaUnit, "context_switch") as switched:
        for one in (job, of_vf):
            one.ring(MI_NOOP)
            one.submit()
            lab.run()
    assert lab.oa.units[0].enabled
    assert [call.args for call in switched.call_args_list] == [(job.context.guc_id,)]


def test_a_vfs_context_counts_by_its_own_registers_and_not_by_the_pfs(lab: PerfLab) -> None:
    lab.pf.registers.write(layouts.OAG.control, 4, 1 << layouts.OAG.format_shift | 1 << 8)
    vf = lab.vf_with_memory(1, {n: 16 + n - 8 for n in range(8)}, (0x400_0000, 0x100_0000))
    job = Job(lab, 0, function=vf, engine_class=RENDER)
    lab.jobs.append(job)
    job.set_bytes(0, FILL.to_bytes(4, "little") * 0x800)
    lab.batch(job, *report(0, 7))
    assert job.data(0, 1) == [FILL]


def test_a_reset_of_the_gt_ends_counters_of_contexts(lab: PerfLab) -> None:
    lab.pf.registers.write(layouts.OAG.control, 4, 1 << layouts.OAG.format_shift | 1 << 8)
    job = lab.enabled()
    lab.batch(job, *report(0, 1))
    lab.oa.reset()
    assert not lab.oa._contexts
    assert not lab.pf.registers.peek(OAR_OACONTROL)
