"""Work queues of parallel contexts: how the host hands over the ring tails of all members at once.

The descriptor (`xe_guc_submit_types.h:struct guc_sched_wq_desc`) holds head, tail (bytes, the host moves the tail), the
offset of an error, and status. An item's
first dword is `type 7:0 | dwords that follow 26:16`; that of a multi-LRC item is followed by the first member's
descriptor, `ring tail in qwords 28:18 | guc_id 15:0`, a fence, and the other members' ring tails in qwords
(`xe_guc_submit.c:wq_item_append`).
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines.context import Context

NOOP, MULTI_LRC = 4, 5
STATUS_ACTIVE, STATUS_COMMAND_ERROR = 1, 3
_HEAD, _TAIL, _ERROR_OFFSET, _STATUS = 0, 4, 8, 12
"""Offsets in the descriptor."""


def consume(context: Context) -> str | None:
    """Take every item that is there: store the ring tails in the members' images. Returns what was wrong, if anything.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    assert context.work_queue is not None
    descriptor, base, size = context.work_queue
    space = context.function.ggtt_space
    head, tail = space.read32(descriptor + _HEAD), space.read32(descriptor + _TAIL)
    if not size or head >= size or tail > size or (head | tail) & 3:
        space.write32(descriptor + _STATUS, STATUS_COMMAND_ERROR)
        return f"work queue head {head:#x}, tail {tail:#x} of {size:#x} bytes"
    while head != tail % size:
        header = space.read32(base + head)
        kind, length = header & 0xFF, header >> 16 & 0x7FF
        if head + 4 + 4 * length > size or kind not in (NOOP, MULTI_LRC):
            space.write32(descriptor + _ERROR_OFFSET, head)
            space.write32(descriptor + _STATUS, STATUS_COMMAND_ERROR)
            return f"work queue item {header:#010x} at {head:#x}"
        if kind == MULTI_LRC:
            words = memoryview(space.read(base + head + 4, 4 * length)).cast("I")
            tails = [words[1] >> 18 & 0x7FF, *words[3 : 2 + len(context.members)]]
            for lrc, ring_tail in zip(context.members, tails, strict=False):
                lrc.write_tail(ring_tail * 8)
        head = (head + 4 + 4 * length) % size
        space.write32(descriptor + _HEAD, head)
    return None
