"""Sizes of reports as the driver has them, and where their counters are."""

from __future__ import annotations

import numpy as np
import pytest

from vfio_user_xe.device_models.xe.oa.formats import COUNTERS, MAIN, MEDIA, Format, Reason, Samples, identity, pack

DRIVER = {  # xe_oa.c:oa_formats: counter select, counter size, B and C counters, bytes
    "PEC64u64": (1, 1, 0, 576),
    "PEC64u64_B8_C8": (1, 1, 1, 640),
    "PEC64u32": (1, 0, 0, 320),
    "PEC32u64_G1": (5, 1, 0, 320),
    "PEC32u32_G1": (5, 0, 0, 192),
    "PEC32u64_G2": (6, 1, 0, 320),
    "PEC32u32_G2": (6, 0, 0, 192),
    "PEC36u64_G1_32_G2_4": (3, 1, 0, 320),
    "PEC36u64_G1_4_G2_32": (4, 1, 0, 320),
}
DRIVER_MEDIA = {"MPEC8u64_B8_C8": (1, 0, 0, 192), "MPEC8u32_B8_C8": (2, 0, 0, 128)}


@pytest.mark.parametrize(("table", "driver"), [(MAIN, DRIVER), (MEDIA, DRIVER_MEDIA)], ids=["main", "media"])
def test_formats_are_those_of_the_driver(
    table: dict[tuple[int, bool, bool], Format], driver: dict[str, tuple[int, int, int, int]]
) -> None:
    assert {form.name: (*map(int, key), form.size) for key, form in table.items()} == driver


def samples() -> Samples:
    values = np.arange(COUNTERS, dtype=np.uint64)[None] + np.uint64(1 << 33)
    return Samples(*(np.array([value], dtype=np.uint64) for value in (11, 22, 33)), values)


@pytest.mark.parametrize("form", [*MAIN.values(), *MEDIA.values()], ids=lambda form: form.name)
def test_a_report_has_its_header_and_then_its_counters_in_order(form: Format) -> None:
    first = identity(Reason.TIMER)
    data = pack(form, first, samples())[0].tobytes()
    assert len(data) == form.size
    assert np.frombuffer(data, dtype=np.uint64, count=4).tolist() == [1 << 19, 11, 22, 33]
    kind = np.uint64 if form.wide else np.uint32
    found = np.frombuffer(data, dtype=kind, offset=32, count=len(form.pecs)).tolist()
    assert found == [pec + (1 << 33 if form.wide else 0) for pec in form.pecs]


def test_the_identity_says_why_and_whether_a_context_is_known() -> None:
    assert identity(Reason.NONE) == 0
    assert identity(Reason.CONTEXT_SWITCH, context=True) == 1 << 22 | 1 << 16
