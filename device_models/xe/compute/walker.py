"""COMPUTE_WALKER and EXECUTE_INDIRECT_DISPATCH: groups of threads in slices, then the post-sync write.

A walker is work in steps (`engines.command_streamer.Bulk`): a step runs threads for about a millisecond, and the context can be
preempted between any two, in the middle of threads. What is in flight stays with the context.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.compute import dispatch
from vfio_user_xe.device_models.xe.compute.descriptors import BODY_DWORDS, BadDescriptor, PostSync, Walker, decoded
from vfio_user_xe.device_models.xe.compute.dispatch import Progress
from vfio_user_xe.device_models.xe.engines import register_access as regs
from vfio_user_xe.device_models.xe.engines.command_streamer import THREADS
from vfio_user_xe.device_models.xe.engines.engine_regs import GPGPU_DISPATCHDIM, MI_PREDICATE_RESULT
from vfio_user_xe.device_models.xe.engines.perf_events import Event
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.memory.formats.ppgtt import VA_MASK
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer

_COUNT, _COUNT_ADDRESS, _ARGUMENTS, _INDIRECT_BODY = 0, 1, 3, 5
"""Dwords of EXECUTE_INDIRECT_DISPATCH, its header not counted: most walkers, address of how many (bit 0: there is one),
address of the group counts, the walker's own."""
_ARGUMENT_BYTES = 12
_EVENTS = (
    (Event.RENDER_ENGINE_DISPATCH_KERNEL_COUNT, Event.GPGPU_THREADGROUP_COUNT),
    (Event.COMPUTE_ENGINE_DISPATCH_KERNEL_COUNT, Event.ASYNC_GPGPU_THREADGROUP_COUNT),
)
"""Performance events of walkers on the render engine and on compute engines: kernels, and groups that have ended."""


class _Ended:
    """Of a walker: it is done."""


_ENDED = _Ended()


def compute_walker(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """COMPUTE_WALKER."""
    try:
        walker = decoded(words[index : index + length].tobytes())
    except BadDescriptor as wrong:
        streamer.engine.report(f"COMPUTE_WALKER skipped: {wrong}")
        return None
    if walker.predicated and not _predicate(streamer):
        return None
    if walker.indirect:
        x, y, z = (regs.read(streamer, streamer.base + offset) for offset in GPGPU_DISPATCHDIM.offsets)
        walker = replace(walker, end=(x, y, z))
    bulk = _walk(streamer, walker, Progress(streamer.lrc, streamer.place(index)))
    if not streamer.preempt:
        # Most walkers end in their first step, and the streamer goes on with the next command if there is time left.
        first = next(bulk, _ENDED)
        if first is _ENDED and streamer.engine.clock.seconds() < streamer.deadline:
            return None
        bulk = iter(()) if isinstance(first, _Ended) else chain((first,), bulk)
    streamer.lrc.bulk = bulk
    return THREADS


def execute_indirect_dispatch(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """EXECUTE_INDIRECT_DISPATCH: walkers whose group counts come from an array in memory."""
    header, dwords = words[index], words[index + 1 : index + length].tolist()
    try:
        walker = Walker.of(header & 1 << 8, dwords[_INDIRECT_BODY : _INDIRECT_BODY + BODY_DWORDS])
    except BadDescriptor as wrong:
        streamer.engine.report(f"EXECUTE_INDIRECT_DISPATCH skipped: {wrong}")
        return None
    if walker.predicated and not _predicate(streamer):
        return None
    streamer.lrc.bulk = _indirect(streamer, walker, dwords, streamer.place(index))
    return THREADS


def _indirect(streamer: CommandStreamer, walker: Walker, dwords: list[int], place: int) -> Bulk:
    space, count = streamer.lrc.space, dwords[_COUNT]
    arguments = (dwords[_ARGUMENTS] & ~3 | dwords[_ARGUMENTS + 1] << 32) & VA_MASK
    while True:
        try:
            if dwords[_COUNT_ADDRESS] & 1:
                address = (dwords[_COUNT_ADDRESS] & ~3 | dwords[_COUNT_ADDRESS + 1] << 32) & VA_MASK
                count = min(count, space.read32(address))
            break
        except (TranslationFault, AccessFault) as fault:
            yield fault
    for number in range(Progress.number_at(streamer.lrc, place), count):
        while True:
            try:
                data = space.read(arguments + number * _ARGUMENT_BYTES, _ARGUMENT_BYTES)
                break
            except (TranslationFault, AccessFault) as fault:
                yield fault
        x, y, z = memoryview(data).cast("I")
        one = replace(walker, first=(0, 0, 0), end=(x, y, z))
        yield from _walk(streamer, one, Progress(streamer.lrc, place, number))


def _walk(streamer: CommandStreamer, walker: Walker, progress: Progress) -> Bulk:
    begun = _times(streamer) if walker.post_sync is PostSync.TIMESTAMP else (0, 0)
    if walker.groups and walker.interface.threads:
        counted = streamer.engine.counted
        kernels, groups = _EVENTS[streamer.engine.info.engine_class == COMPUTE]
        counted[kernels] += 1
        if (yield from dispatch.run(streamer, walker, progress)):
            counted[groups] += walker.groups
    if walker.post_sync is not PostSync.NONE:
        yield from _post_sync(streamer, walker, begun)


def _post_sync(streamer: CommandStreamer, walker: Walker, begun: tuple[int, int]) -> Bulk:
    """Write what the walker asks for; everything that threads wrote is in memory by now."""
    lrc = streamer.lrc
    while True:
        try:
            if walker.post_sync is PostSync.IMMEDIATE:
                lrc.space.write64(walker.post_sync_address, walker.immediate)
            else:
                # Context start, global start, context end, global end (NEO: TimestampPacketType is uint64_t on Xe2).
                data = b"".join(value.to_bytes(8, "little") for value in (*begun, *_times(streamer)))
                lrc.space.write(walker.post_sync_address, data)
        except (TranslationFault, AccessFault) as fault:
            yield fault
            continue
        return


def _times(streamer: CommandStreamer) -> tuple[int, int]:
    """Context and global timestamp now."""
    return streamer.engine.context_timestamp(), streamer.engine.timestamp()


def _predicate(streamer: CommandStreamer) -> bool:
    """MI_PREDICATE_RESULT."""
    return bool(regs.read(streamer, streamer.base + MI_PREDICATE_RESULT.offset) & 1)
