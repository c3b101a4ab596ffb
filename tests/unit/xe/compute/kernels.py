"""Assembly that the tests of compute share. Local ids are in r1, inline data (addresses) in r2, unless a kernel says otherwise."""

from __future__ import annotations

from tests.support.xe.compute_lab import EOT

LOAD = "0x04100580"
STORE = "0x04000584"


def address(register: int, pointer: int) -> str:
    """A64 addresses in `register` (two): inline qword `pointer` plus the byte offsets in r12."""
    return f"add (16|M0)  r{register}.0<1>:uq  r2.{pointer}<0;1,0>:uq  r12.0<1;1,0>:ud\n"


def offsets(local: int) -> str:
    """r12: 4 · (group X · `local` + local id X)."""
    return f"""
        mov (16|M0)  r12.0<1>:ud  r1.0<1;1,0>:uw
        (W) mul (1|M0)  r10.0<1>:ud  r0.1<0;1,0>:ud  {local}:uw
        add (16|M0)  r12.0<1>:ud  r12.0<1;1,0>:ud  r10.0<0;1,0>:ud
        shl (16|M0)  r12.0<1>:ud  r12.0<1;1,0>:ud  2:ud
    """


def vector_add(local: int) -> str:
    """c[i] = a[i] + b[i] with a, b and c the first three inline qwords."""
    return (
        offsets(local)
        + address(14, 0)
        + f"send.ugm (16|M0)  r20  r14  null:0  0x0  {LOAD}\n"
        + address(16, 1)
        + f"send.ugm (16|M0)  r21  r16  null:0  0x0  {LOAD}\n"
        + "add (16|M0)  r22.0<1>:ud  r20.0<1;1,0>:ud  r21.0<1;1,0>:ud\n"
        + address(18, 2)
        + f"send.ugm (16|M0)  null  r18  r22:1  0x0  {STORE}\n"
        + EOT
    )


def store_ids(dimension: int, local: int) -> str:
    """out[i] = local id of `dimension`, by the linear index of the lane in the group (one group)."""
    return f"""
        mov (16|M0)  r12.0<1>:uw  0x76543210:v
        (W) mov (8|M0)  r13.0<1>:uw  0x76543210:v
        """
