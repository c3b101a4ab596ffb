"""The register accesses and messages of a real driver's probe, recorded on another device, played against this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.xe.replay import Replay
from vfio_user_xe.emulator.observe.unmodelled import unmodelled_bits

FIXTURES = Path(__file__).parent / "fixtures"

# Reads whose value is the device's own choice (fuses, frequencies, sensors, firmware versions), or depends on when
# engines finish, which in this test never run.
OWN_CHOICE = {
    *(0x913C, 0x9144, 0x9134, 0x9140, 0x38913C, 0x389144, 0x389134, 0x389118, 0x389140),
    *(0x138000, 0x138008, 0x13800C, 0x138020, 0x138028, 0x13802C, 0x138108, 0xC60, 0x380C60, 0xA008, 0x38A008),
    *(0x138128, 0x13812C, 0x35B004, 0x374C48, 0x1382C0, 0x138434, 0x10100C, 0x101010),
    *range(0x138260, 0x1382A0, 4),
    0x3A50,
}
ENGINE_INTERRUPTS = {0x190008, 0x190010, 0x190018, 0x19001C, 0x190060, 0x190064}
HWCONFIG_SIZE = 0x190240


@pytest.mark.parametrize(
    ("recording", "options"),
    [("pf-probe.txt.gz", {"vfs": 2}), ("media-probe.txt.gz", {"vfs": 2, "media": True})],
)
def test_recorded_probe_reads_the_same(make_bench: Callable[..., Any], recording: str, options: dict[str, Any]) -> None:
    bench = make_bench(**options)
    bench.map_ggtt(0, 128 << 20, 0x10000000)
    replay = Replay(bench, FIXTURES / recording, OWN_CHOICE | ENGINE_INTERRUPTS)
    replay.run()
    unexpected = [
        difference
        for difference in replay.different
        if not (difference[1] == hex(HWCONFIG_SIZE) and difference[2] == 0xF0000018)
    ]
    assert not unexpected
    assert replay.reads > 500
    assert all(len(expected) > 20 for expected in replay.expected)
    for gt, driver in enumerate(replay.drivers):
        assert [words for _, words in driver.received] == [words for _, words in replay.expected[gt]]
        assert [header & 0xFFFF0000 for header, _ in driver.received] == [
            header & 0xFFFF0000 for header, _ in replay.expected[gt]
        ]
    assert bench.card.executor.failures == 0


def test_recorded_probe_touches_no_unmodelled_register(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=2, media=True)
    bench.map_ggtt(0, 128 << 20, 0x10000000)
    Replay(bench, FIXTURES / "media-probe.txt.gz", set()).run()
    assert sorted(hex(offset) for offset in bench.pf.registers.unmodelled) == []


def test_recorded_probe_sets_only_known_bits_that_are_not_modelled(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=2, media=True)
    bench.map_ggtt(0, 128 << 20, 0x10000000)
    Replay(bench, FIXTURES / "media-probe.txt.gz", set()).run()
    bits = {entry["register"]: entry["names"] for entry in unmodelled_bits([bench.pf.registers])}
    assert bits == {
        "RPNSWREQ": ["REQ_RATIO"],
        "GT1.RPNSWREQ": ["REQ_RATIO"],
        "RENDER_COPY_INTR_ENABLE": ["RCS.FLUSH_COMPLETE", "BCS.FLUSH_COMPLETE"],
        "VCS_VECS_INTR_ENABLE": ["VCS.FLUSH_COMPLETE", "VECS.FLUSH_COMPLETE"],
        "CCS_RSVD_INTR_ENABLE": ["CCS.FLUSH_COMPLETE"],
    }
