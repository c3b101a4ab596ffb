"""MI_REPORT_PERF_COUNT: a report of performance counters into memory (Mesa's genxml)."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer

_GTT = 1 << 0


def report_perf_count(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """Store a report with the identity that the command gives."""
    engine, lrc = streamer.engine, streamer.lrc
    report = engine.report_counters(lrc, words[index + 3])
    if report:
        low = words[index + 1]
        address = low & 0xFFFFFFC0 | (words[index + 2] & 0xFFFF) << 32
        streamer.address_space(low & _GTT).write(address, report)
    return None
