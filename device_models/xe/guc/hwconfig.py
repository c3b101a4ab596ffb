"""The hwconfig table: what user space is told about the hardware (`xe_guc_hwconfig.c`, uapi `DRM_XE_DEVICE_QUERY_HWCONFIG`).

Key numbers are those of the open user-space drivers' list of attributes;
values describe the part that the fuses describe.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.guc.formats.hwconfig import TABLE
from vfio_user_xe.device_models.xe.profiles.parts import EUS_PER_XE_CORE, THREADS_PER_EU
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, L3_BANKS_PER_NODE, L3_NODES, Profile

MAX_SLICES_SUPPORTED = 1
MAX_DUAL_SUBSLICES_SUPPORTED = 2
MAX_NUM_EU_PER_DSS = 3
NUM_PIXEL_PIPES = 4
MAX_MEMORY_CHANNELS = 10
MEMORY_TYPE = 11
CACHE_TYPES = 12
LOCAL_MEMORY_PAGE_SIZES_SUPPORTED = 13
NUM_THREADS_PER_EU = 15
TOTAL_VS_THREADS = 16
TOTAL_GS_THREADS = 17
TOTAL_HS_THREADS = 18
TOTAL_DS_THREADS = 19
TOTAL_PS_THREADS = 21
MAX_RCS = 23
MAX_CCS = 24
MAX_VCS = 25
MAX_VECS = 26
MAX_COPY_CS = 27
GEOMETRY_PIPES_PER_SLICE = 63
L3_BANK_SIZE_IN_KB = 64
MAX_SUBSLICE = 70
MAX_EU_PER_SUBSLICE = 71
SLM_SIZE_PER_SS_IN_KB = 73

_PAGE_SIZES = 0x1000 | 0x10000 | 0x200000
_MEMORY_GDDR6 = 4
_CACHE_L3 = 1 << 0
_L3_KIB = 18 << 10
"""What Intel says of the B580; other products have parts of it, of which the fuses' banks here know nothing."""


def table(profile: Profile) -> bytes:
    """The table of a card with `profile`."""
    part = profile.part
    threads = part.threads
    entries = {
        MAX_SLICES_SUPPORTED: part.slices,
        MAX_DUAL_SUBSLICES_SUPPORTED: part.xe_cores,
        MAX_NUM_EU_PER_DSS: EUS_PER_XE_CORE,
        NUM_PIXEL_PIPES: part.slices,
        MAX_MEMORY_CHANNELS: part.memory_channels,
        MEMORY_TYPE: _MEMORY_GDDR6,
        CACHE_TYPES: _CACHE_L3,
        LOCAL_MEMORY_PAGE_SIZES_SUPPORTED: _PAGE_SIZES,
        NUM_THREADS_PER_EU: THREADS_PER_EU,
        TOTAL_VS_THREADS: threads,
        TOTAL_GS_THREADS: threads,
        TOTAL_HS_THREADS: threads,
        TOTAL_DS_THREADS: threads,
        TOTAL_PS_THREADS: threads,
        MAX_RCS: 1,
        MAX_CCS: sum(1 for info in profile.engines[0] if info.engine_class == COMPUTE),
        MAX_VCS: 1 if profile.has_media else 0,
        MAX_VECS: 1 if profile.has_media else 0,
        MAX_COPY_CS: 1,
        GEOMETRY_PIPES_PER_SLICE: 1,
        L3_BANK_SIZE_IN_KB: _L3_KIB // (L3_NODES * L3_BANKS_PER_NODE),
        MAX_SUBSLICE: part.xe_cores,
        MAX_EU_PER_SUBSLICE: EUS_PER_XE_CORE,
        SLM_SIZE_PER_SS_IN_KB: 128,
    }
    packed: bytes = TABLE.build([{"key": key, "value": [value]} for key, value in sorted(entries.items())])
    return packed
