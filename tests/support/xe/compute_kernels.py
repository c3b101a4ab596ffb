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


def store(pointer: int, data: str, register: int = 30) -> str:
    """Store `data` (a register) at inline qword `pointer` plus r12."""
    return address(register, pointer) + f"send.ugm (16|M0)  null  r{register}  {data}:1  0x0  {STORE}\n"


IOTA = """
    mov (8|M0)  r11.0<1>:uw  0x76543210:v
    (W) add (8|M0)  r11.8<1>:uw  r11.0<8;8,1>:uw  8:uw
"""
"""r11: words 0 to 15."""

LINEAR = (
    IOTA
    + """
    (W) and (1|M0)  r10.0<1>:ud  r0.2<0;1,0>:ud  0xFF:ud
    (W) shl (1|M0)  r10.0<1>:ud  r10.0<0;1,0>:ud  4:ud
    mov (16|M0)  r12.0<1>:ud  r11.0<1;1,0>:uw
    add (16|M0)  r12.0<1>:ud  r12.0<1;1,0>:ud  r10.0<0;1,0>:ud
    shl (16|M0)  r12.0<1>:ud  r12.0<1;1,0>:ud  2:ud
"""
)
"""r12: 4 times the lane's index in its group, for kernels of SIMD16 without generated ids."""

BARRIER = """
    (W) mov (8|M0)  r110.0<1>:ud  0:ud
    (W) mov (1|M0)  r110.10<1>:ub  r0.11<0;1,0>:ub
    (W) mov (1|M0)  r110.11<1>:ub  r0.11<0;1,0>:ub
    (W) send.gtwy (1|M0)  null  r110  null:0  0x0  0x02000004
    (W) sync.bar  null
"""

SLM_STORE = "0x02000504"
SLM_LOAD = "0x02100500"


def slm_reduction(items: int, base: int = 0) -> str:
    """out[group] = sum of in[group · items …], by a tree in SLM from `base` on. Inline: in, out."""
    text = offsets(items) + address(14, 0) + f"send.ugm (16|M0)  r20  r14  null:0  0x0  {LOAD}\n"
    text += "mov (16|M0)  r40.0<1>:ud  r12.0<1;1,0>:ud\n"
    # r41: bytes from the group's first item, where its value is in SLM.
    text += "mov (16|M0)  r41.0<1>:ud  r1.0<1;1,0>:uw\nshl (16|M0)  r41.0<1>:ud  r41.0<1;1,0>:ud  2:ud\n"
    text += f"or (16|M0)  r41.0<1>:ud  r41.0<1;1,0>:ud  {base}:ud\n"
    text += f"send.slm (16|M0)  null  r41  r20:1  0x0  {SLM_STORE}\n" + BARRIER
    stride = items // 2
    while stride:
        text += f"""
            cmp (16|M0)  (lt)f0.0  null<1>:ud  r41.0<1;1,0>:ud  {base + 4 * stride}:ud
            (f0.0) send.slm (16|M0)  r20  r41  null:0  0x0  {SLM_LOAD}
            add (16|M0)  r42.0<1>:ud  r41.0<1;1,0>:ud  {4 * stride}:ud
            (f0.0) send.slm (16|M0)  r21  r42  null:0  0x0  {SLM_LOAD}
            add (16|M0)  r20.0<1>:ud  r20.0<1;1,0>:ud  r21.0<1;1,0>:ud
            (f0.0) send.slm (16|M0)  null  r41  r20:1  0x0  {SLM_STORE}
        """
        text += BARRIER
        stride //= 2
    text += f"""
        cmp (16|M0)  (eq)f0.0  null<1>:ud  r41.0<1;1,0>:ud  {base}:ud
        (W) shl (1|M0)  r10.0<1>:ud  r0.1<0;1,0>:ud  2:ud
        add (16|M0)  r14.0<1>:uq  r2.1<0;1,0>:uq  r10.0<0;1,0>:ud
        (f0.0) send.ugm (16|M0)  null  r14  r20:1  0x0  {STORE}
    """
    return text + EOT


LOOP = """
    again:
    (W) add (1|M0)  r60.0<1>:ud  r60.0<0;1,0>:ud  1:ud
    jmpi (1|M0)  again
"""
