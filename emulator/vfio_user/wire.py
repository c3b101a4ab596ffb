"""The vfio-user wire format: numbers and layouts of the vfio-user specification, version 0.1.

Everything is little endian. Structs are precompiled because the access path uses them; nothing here allocates or
decides. `formats.py` describes the same messages by field name, for traces.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

# Commands (vfio-user spec, "Commands").
VERSION: Final = 1
DMA_MAP: Final = 2
DMA_UNMAP: Final = 3
DEVICE_GET_INFO: Final = 4
DEVICE_GET_REGION_INFO: Final = 5
DEVICE_GET_REGION_IO_FDS: Final = 6
DEVICE_GET_IRQ_INFO: Final = 7
DEVICE_SET_IRQS: Final = 8
REGION_READ: Final = 9
REGION_WRITE: Final = 10
DMA_READ: Final = 11
DMA_WRITE: Final = 12
DEVICE_RESET: Final = 13
DIRTY_PAGES: Final = 14
"""Of older specifications; newer ones log dirty pages through DEVICE_FEATURE."""
REGION_WRITE_MULTI: Final = 15
DEVICE_FEATURE: Final = 16
MIG_DATA_READ: Final = 17
MIG_DATA_WRITE: Final = 18

COMMAND_NAMES: Final = {
    VERSION: "VERSION",
    DMA_MAP: "DMA_MAP",
    DMA_UNMAP: "DMA_UNMAP",
    DEVICE_GET_INFO: "DEVICE_GET_INFO",
    DEVICE_GET_REGION_INFO: "DEVICE_GET_REGION_INFO",
    DEVICE_GET_REGION_IO_FDS: "DEVICE_GET_REGION_IO_FDS",
    DEVICE_GET_IRQ_INFO: "DEVICE_GET_IRQ_INFO",
    DEVICE_SET_IRQS: "DEVICE_SET_IRQS",
    REGION_READ: "REGION_READ",
    REGION_WRITE: "REGION_WRITE",
    DMA_READ: "DMA_READ",
    DMA_WRITE: "DMA_WRITE",
    DEVICE_RESET: "DEVICE_RESET",
    DIRTY_PAGES: "DIRTY_PAGES",
    REGION_WRITE_MULTI: "REGION_WRITE_MULTI",
    DEVICE_FEATURE: "DEVICE_FEATURE",
    MIG_DATA_READ: "MIG_DATA_READ",
    MIG_DATA_WRITE: "MIG_DATA_WRITE",
}

# Header: message id, command, size of the whole message, flags, errno.
HEADER: Final = Struct("<HHIII")
HEADER_SIZE: Final = HEADER.size
TYPE_MASK: Final = 0xF
TYPE_COMMAND: Final = 0
TYPE_REPLY: Final = 1
FLAG_NO_REPLY: Final = 0x10
FLAG_ERROR: Final = 0x20

# VERSION: major, minor; then the capabilities as NUL-terminated JSON.
VERSION_BODY: Final = Struct("<HH")
MAJOR: Final = 0
MINOR: Final = 1

# DMA_MAP: argsz, flags, offset into the descriptor, address, size.
DMA_MAP_BODY: Final = Struct("<IIQQQ")
DMA_READABLE: Final = 1
DMA_WRITABLE: Final = 2
DMA_MMAP: Final = 4
"""The descriptor is to be mapped, as it is without a flag."""
DMA_FILE_IO: Final = 8
"""The descriptor is to be read and written: it cannot be mapped. Both flags: libvfio-user of 2026-04 (`vfio-user.h`)."""
# DMA_UNMAP: argsz, flags, address, size [+ dirty bitmap descriptor].
DMA_UNMAP_BODY: Final = Struct("<IIQQ")
# DMA_UNMAP with DMA_UNMAP_GET_DIRTY: then page size, size of the bitmap in bytes.
DMA_UNMAP_DIRTY_BODY: Final = Struct("<IIQQQQ")
DMA_UNMAP_GET_DIRTY: Final = 1
DMA_UNMAP_ALL: Final = 2
# Dirty bitmap: page size, size of the bitmap in bytes.
DIRTY_BITMAP: Final = Struct("<QQ")

# DIRTY_PAGES: argsz, flags; to get a bitmap then address, size, page size, size of the bitmap in bytes. The reply with a
# bitmap has address and size before page size and bitmap.
DIRTY_PAGES_BODY: Final = Struct("<II")
DIRTY_PAGES_RANGE: Final = Struct("<QQQQ")
DIRTY_PAGES_REPLY: Final = Struct("<QQ")
DIRTY_PAGES_START: Final = 1
DIRTY_PAGES_STOP: Final = 2
DIRTY_PAGES_GET: Final = 4

# DEVICE_GET_INFO: argsz, flags, regions, interrupts.
DEVICE_INFO: Final = Struct("<IIII")
DEVICE_FLAG_RESET: Final = 1
DEVICE_FLAG_PCI: Final = 2
# DEVICE_GET_REGION_INFO: argsz, flags, index, offset of the first capability, size, offset into the descriptor.
REGION_INFO: Final = Struct("<IIIIQQ")
REGION_FLAG_READ: Final = 1
REGION_FLAG_WRITE: Final = 2
REGION_FLAG_MMAP: Final = 4
REGION_FLAG_CAPS: Final = 8
# Capability header (id, version, next), then for sparse mmap: areas, reserved; each area: offset, size.
CAPABILITY: Final = Struct("<HHI")
CAP_SPARSE_MMAP: Final = 1
SPARSE_MMAP: Final = Struct("<II")
SPARSE_AREA: Final = Struct("<QQ")
# DEVICE_GET_REGION_IO_FDS: argsz, flags, index, count; then sub-regions.
REGION_IO_FDS: Final = Struct("<IIII")
# A sub-region: offset, size, index of its descriptor, type, flags, padding, datamatch (ioeventfd) or user data.
IO_FD: Final = Struct("<QQIIIIQ")
# DEVICE_GET_IRQ_INFO: argsz, flags, index, count.
IRQ_INFO: Final = Struct("<IIII")
IRQ_FLAG_EVENTFD: Final = 1
IRQ_FLAG_MASKABLE: Final = 2
IRQ_FLAG_AUTOMASKED: Final = 4
IRQ_FLAG_NORESIZE: Final = 8
# DEVICE_SET_IRQS: argsz, flags, index, start, count [+ one byte a vector for bool data].
IRQ_SET: Final = Struct("<IIIII")
IRQ_SET_DATA_NONE: Final = 1
IRQ_SET_DATA_BOOL: Final = 2
IRQ_SET_DATA_EVENTFD: Final = 4
IRQ_SET_DATA_MASK: Final = 7
IRQ_SET_ACTION_MASK: Final = 8
IRQ_SET_ACTION_UNMASK: Final = 16
IRQ_SET_ACTION_TRIGGER: Final = 32
IRQ_SET_ACTIONS: Final = 56

# REGION_READ, REGION_WRITE: offset, region, count [+ data].
REGION_ACCESS: Final = Struct("<QII")
# REGION_WRITE_MULTI: count of writes; each: offset, region, count, 8 bytes of data.
WRITE_MULTI: Final = Struct("<Q")
WRITE_MULTI_ENTRY: Final = Struct("<QII8s")
# DMA_READ, DMA_WRITE: address, count [+ data].
DMA_ACCESS: Final = Struct("<QQ")

# DEVICE_FEATURE: argsz, flags (feature number in bits 15:0) [+ data]. Numbers as in Linux' <linux/vfio.h>.
DEVICE_FEATURE_BODY: Final = Struct("<II")
FEATURE_MASK: Final = 0xFFFF
FEATURE_GET: Final = 1 << 16
FEATURE_SET: Final = 1 << 17
FEATURE_PROBE: Final = 1 << 18
FEATURE_MIGRATION: Final = 1
FEATURE_MIG_DEVICE_STATE: Final = 2
FEATURE_DMA_LOGGING_START: Final = 6
FEATURE_DMA_LOGGING_STOP: Final = 7
FEATURE_DMA_LOGGING_REPORT: Final = 8
# MIG_DEVICE_STATE: state, descriptor (unused). States as in Linux' enum vfio_device_mig_state.
MIG_STATE: Final = Struct("<II")
MIG_STATE_STOP: Final = 1
MIG_STATE_RUNNING: Final = 2
MIG_STATE_STOP_COPY: Final = 3
MIG_STATE_RESUMING: Final = 4
MIG_STATE_PRE_COPY: Final = 6
# DMA_LOGGING_START: page size, number of ranges, reserved; each range: address, length.
DMA_LOGGING_CONTROL: Final = Struct("<QII")
DMA_LOGGING_RANGE: Final = Struct("<QQ")
# DMA_LOGGING_REPORT: address, length, page size; the reply adds the bitmap.
DMA_LOGGING_REPORT: Final = Struct("<QQQ")
# Migration data: argsz, size [+ data].
MIG_DATA: Final = Struct("<II")

# Region indices of a PCI device (vfio-user spec, "VFIO region info cap").
BAR0: Final = 0
ROM: Final = 6
CONFIG: Final = 7
VGA: Final = 8
NUM_REGIONS: Final = 9
# Interrupt indices of a PCI device.
IRQ_INTX: Final = 0
IRQ_MSI: Final = 1
IRQ_MSIX: Final = 2
IRQ_ERR: Final = 3
IRQ_REQ: Final = 4
NUM_IRQS: Final = 5

# Limits and defaults (vfio-user spec, "VFIO_USER_VERSION"; 8 and 1 MiB are the defaults it states).
DEFAULT_MAX_MSG_FDS: Final = 1
DEFAULT_MAX_DATA_XFER: Final = 1 << 20
MAX_MSG_FDS: Final = 16
MAX_DMA_MAPS: Final = 65535
