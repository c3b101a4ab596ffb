"""The conformance suite against our own server, one test a case."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.served import PROFILE, ServedCard, served
from vfio_user_xe.emulator.conformance.case import Case
from vfio_user_xe.emulator.conformance.profile import Profile
from vfio_user_xe.emulator.conformance.runner import Runner, select_cases
from vfio_user_xe.emulator.results import Verdict

# What our server is known not to do. Any other case must pass, and so must a case that is not there any more.
SKIPPED = {
    "io_fds.sub_regions_lie_in_their_region": "no region has descriptors for I/O",
    "irqs.masking_works_where_it_is_announced": "no interrupt type is maskable",
    "regions.read_of_a_write_only_region_is_refused": "every region is readable",
    "features.migration_has_stop_copy": "the device cannot migrate",
    "features.migration_saves_and_goes_on": "the device cannot migrate",
    "reconnect.device_state_outlives_its_client": "a new client is a machine that was just switched on",
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServedCard]:
    with served() as card:
        yield card


@pytest.fixture(scope="module")
def runner(server: ServedCard) -> Runner:
    return Runner(server.socket, Profile.load(PROFILE))


@pytest.mark.parametrize("case", select_cases(), ids=lambda case: case.id)
def test_case(runner: Runner, case: Case) -> None:
    result = runner.run_one(case)
    assert result.verdict is not Verdict.FAIL, f"{case.section}: {case.summary} -- {result.reason}"
    if result.verdict is Verdict.SKIP:
        assert SKIPPED.get(case.id, "not expected to be skipped") in result.reason
    else:
        assert case.id not in SKIPPED
