"""To run in a guest: what xe answers to DEVICE_QUERY, a file a query, into the folder that is named.

vfio-user-xe guest run --userland suites --module xe --share FOLDER:/queries --share tests/native:/native \\
    -- "modprobe xe; python3 /native/queries.py /queries"
"""

from __future__ import annotations

import ctypes
import fcntl
import glob
import os
import struct
import sys

_QUERY = struct.Struct("<QIIQQQ")
"""struct drm_xe_device_query: extensions, query, size, data, two reserved."""
_REQUEST = 3 << 30 | _QUERY.size << 16 | ord("d") << 8 | 0x40
_QUERIES = (0, 1, 2, 3, 4, 5, 7, 8)
"""Engines, memory, configuration, GTs, hwconfig, topology, firmware versions, OA units. Not the one that tells the time."""


def main(folder: str) -> None:
    node = os.open(glob.glob("/dev/dri/renderD*")[0], os.O_RDWR)
    for query in _QUERIES:
        asked = bytearray(_QUERY.pack(0, query, 0, 0, 0, 0))
        fcntl.ioctl(node, _REQUEST, asked)
        size = _QUERY.unpack(asked)[2]
        data = ctypes.create_string_buffer(size)
        fcntl.ioctl(node, _REQUEST, bytearray(_QUERY.pack(0, query, size, ctypes.addressof(data), 0, 0)))
        with open(os.path.join(folder, str(query)), "wb") as file:
            file.write(data.raw)


if __name__ == "__main__":
    main(sys.argv[1])
