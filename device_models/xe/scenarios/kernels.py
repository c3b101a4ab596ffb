"""Kernels for execution units that the guest program runs (`client/kernel.c`), in this project's assembly.

A group has 256 work items, 16 a thread, and an item has a dword of its own. Inline data are in r2: where to write, where to read
(virtual addresses, a qword each), and a dword.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.emulator.guest.cache import building, cache_dir, lock

GUEST_FOLDER = "/usr/share/xe-dmabuf"
ITEMS = 256
"""Work items of a group."""
BYTES = 4 * ITEMS
"""Bytes that a group writes."""

_INDEX = f"""
    (W) mul (1|M0)  r10.0<1>:ud  r0.1<0;1,0>:ud  {ITEMS}:uw
    mov (16|M0)  r11.0<1>:ud  r1.0<1;1,0>:uw
    add (16|M0)  r11.0<1>:ud  r11.0<1;1,0>:ud  r10.0<0;1,0>:ud  {{I@1}}
    shl (16|M0)  r12.0<1>:ud  r11.0<1;1,0>:ud  2:ud  {{I@1}}
    add (16|M0)  r14.0<1>:uq  r2.0<0;1,0>:uq  r12.0<1;1,0>:ud  {{I@1}}
"""
"""r11: the item's number in the walk; r12: four times that; r14 and r15: where it writes."""
_LOAD, _STORE = "0x04100580", "0x04000584"
"""Messages to the LSC: a dword a lane, 64-bit addresses, without a surface."""
_END = """
    (W) mov (8|M0)  r112.0<1>:ud  r0.0<1;1,0>:ud
    (W) send.gtwy (1|M0)  null  r112  null:0  0x0  0x02000010  {I@1,EOT}
"""

PATTERN = (
    _INDEX
    + f"""
    mul (16|M0)  r20.0<1>:ud  r11.0<1;1,0>:ud  0x79B1:uw
    mul (16|M0)  r21.0<1>:ud  r11.0<1;1,0>:ud  0x9E37:uw
    shl (16|M0)  r21.0<1>:ud  r21.0<1;1,0>:ud  16:ud  {{I@1}}
    add (16|M0)  r20.0<1>:ud  r20.0<1;1,0>:ud  r21.0<1;1,0>:ud  {{I@1}}
    xor (16|M0)  r20.0<1>:ud  r20.0<1;1,0>:ud  r2.4<0;1,0>:ud  {{I@1}}
    send.ugm (16|M0)  null  r14  r20:1  0x0  {_STORE}  {{I@1,$0}}
    sync.allrd  null
"""
    + _END
)
"""Writes what `pattern()` in `client/client.h` gives for each offset; the dword is its seed."""

COPY = (
    _INDEX
    + f"""
    add (16|M0)  r16.0<1>:uq  r2.1<0;1,0>:uq  r12.0<1;1,0>:ud
    (W) mov (1|M0)  r60.0<1>:d  r2.4<0;1,0>:d
    again:
    send.ugm (16|M0)  r20  r16  null:0  0x0  {_LOAD}  {{I@1,$0}}
    sync.nop  null  {{$0.dst}}
    send.ugm (16|M0)  null  r14  r20:1  0x0  {_STORE}  {{$1}}
    (W) add (1|M0)  r60.0<1>:d  r60.0<0;1,0>:d  -1:d
    (W) cmp (16|M0)  (gt)f0.0  null<1>:d  r60.0<0;1,0>:d  0:d  {{I@1}}
    sync.nop  null  {{$1.src}}
    (W&f0.0) jmpi (1|M0)  again
    sync.allrd  null
"""
    + _END
)
"""Reads and writes as often as the dword says, at least once."""

KERNELS = {"pattern": PATTERN, "copy": COPY}


def assembled() -> dict[str, Path]:
    """Path in the guest and file of each kernel's code, from the user's cache while its text has not changed.

    Raises:
        OSError: the cache cannot be written.
    """
    code = {f"{name}.bin": assemble(text) for name, text in KERNELS.items()}
    key = hashlib.sha256(b"".join(name.encode() + code[name] for name in sorted(code))).hexdigest()[:24]
    target = cache_dir() / "guest-programs" / key
    if not target.exists():
        with lock(target.parent / "lock"):
            if not target.exists():
                with building(target) as work:
                    for name, data in code.items():
                        (work / name).write_bytes(data)
    return {f"{GUEST_FOLDER}/{name}": target / name for name in code}
