"""Command transport and HXG, as dumps and traces show them (`abi/guc_communication_ctb_abi.h`, `abi/guc_messages_abi.h`).

What the executor does with every message is `ctb.py` and `hxg.py`: shifts, as construct would cost more than the message.
Offsets in the descriptor come from here.
"""

from __future__ import annotations

from construct import FlagsEnum, Int32ul, Padding, Struct

from vfio_user_xe.emulator.model.layout import offset_of, word

STATUS = {"overflow": 1, "underflow": 2, "mismatch": 4, "disabled": 8}

DESCRIPTOR = Struct("head" / Int32ul, "tail" / Int32ul, "status" / FlagsEnum(Int32ul, **STATUS), Padding(52))
"""`struct guc_ct_buffer_desc`: head (the reader's) and tail (the writer's) in dwords."""
HEAD, TAIL, STATUS_OFFSET = (offset_of(DESCRIPTOR, field) for field in ("head", "tail", "status"))

HXG_HEADER = word(("low", 28), ("type", 3), ("from_guc", 1))
HXG_REQUEST = word(("action", 16), ("data0", 12), ("type", 3), ("from_guc", 1))
HXG_FAILURE = word(("error", 16), ("hint", 12), ("type", 3), ("from_guc", 1))
"""Dword 0 of a message: by its type, `low` is one value, or action and DATA0, or error and hint."""
