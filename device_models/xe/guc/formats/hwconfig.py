"""The hwconfig table: key, length in dwords, value (`xe_guc_hwconfig.c`)."""

from __future__ import annotations

from construct import GreedyRange, Int32ul, PrefixedArray, Struct

TABLE = GreedyRange(Struct("key" / Int32ul, "value" / PrefixedArray(Int32ul, Int32ul)))
