"""The conformance suite against the libvfio-user back end, where there is the library. See docs/conformance.md."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from tests.support import libvfio_user
from tests.support.served import PROFILE, served
from vfio_user_xe.emulator.conformance.case import Case
from vfio_user_xe.emulator.conformance.profile import Profile
from vfio_user_xe.emulator.conformance.runner import Runner, select_cases
from vfio_user_xe.emulator.results import Verdict

DEFECTS = {
    "stream": (
        "it reads a header, and a body, with one recv()",
        *("framing.*assembled", "framing.*split*", "framing.*told_apart", "framing.*whole", "framing.*behind_a_large*"),
        *("framing.message_above_the_limit*", "server_dma.large_*", "pipelining.both_directions*"),
        *("regions.largest_access*", "posted.large_posted_write*"),
    ),
    "types": (
        "it answers what is no command",
        *("framing.unexpected_reply*", "framing.undefined_types*"),
    ),
    "version": (
        "it looks little at what VERSION says",
        *("negotiation.reply_to_no_capabilities*", "negotiation.bytes_that_are_not_utf8*"),
        *("negotiation.version_data_that_is_a_list*", "negotiation.version_without_reply*"),
    ),
    "interrupts": (
        "it has one set of vectors for all types of interrupt",
        *("irqs.eventfd_data_without*", "irqs.disabling_one_type*", "irqs.eventfd_that_is_full*"),
    ),
    "booleans": (
        "a boolean is true to it when it is 1",
        *("irqs.any_nonzero_byte*",),
    ),
    "segments": (
        "the back end transfers from one range at a time",
        *("dma.file_io_beside_mapped*",),
    ),
    "ranges": (
        "it accepts the same range again, an empty one, one that wraps around; the error of an overlap is EINVAL",
        *("dma.same_range*", "dma.range_*", "dma.empty_range*", "dma.refused_map*"),
    ),
    "concurrency": (
        "while it waits for a DMA reply it takes whatever comes for the reply",
        *("dma.access_over_a_mapped_and_a_message*", "server_dma.*", "reset.reset_during_dma*"),
    ),
    "errors": (
        "its error replies have a payload",
        *("regions.write_to_a_read_only*", "regions.failure_inside_the_device*"),
    ),
    "descriptors": (
        "it keeps the descriptors of half a message",
        *("descriptors.descriptor_of_half*", "reconnect.client_that_dies_at_any_byte*"),
    ),
}


def defect(case: Case) -> str | None:
    """Which of the library's known defects a case finds."""
    for text, *patterns in DEFECTS.values():
        if any(fnmatchcase(case.id, pattern) for pattern in patterns):
            return text
    return None


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with served(arguments=libvfio_user.arguments()) as card:
        yield Runner(card.socket, Profile.load(PROFILE))


@pytest.mark.parametrize("case", select_cases(), ids=lambda case: case.id)
def test_case(runner: Runner, case: Case) -> None:
    result = runner.run_one(case)
    known = defect(case)
    if result.verdict is Verdict.FAIL and known is not None:
        pytest.xfail(f"libvfio-user: {known}: {result.reason}")
    assert result.verdict is not Verdict.FAIL, f"{case.section}: {case.summary} -- {result.reason}"
