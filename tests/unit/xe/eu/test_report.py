from __future__ import annotations

import numpy as np

from tests.unit.xe.eu.kernel import END, start
from vfio_user_xe.device_models.xe.eu.reference.report import describe_thread


def test_a_report_names_instruction_lanes_and_registers() -> None:
    interpreter = start(
        f"""
        cmp (16|M0)  (lt)f0.0  null<1>:d  r1.0<1;1,0>:d  4:d
        (f0.0) goto (16|M0)  out out
        mov (16|M0)  r2.0<1>:d  r3.0<1;1,0>:d  {{Breakpoint}}
        out: {END}
        """,
        registers={1: np.arange(16, dtype=np.int32), 3: np.full(16, 0xBEEF, np.int32)},
    )
    interpreter.run(100)
    lines = describe_thread(interpreter, 0).splitlines()
    assert lines[0] == "thread 0: exception (breakpoint), 2 instructions executed"
    assert lines[1] == "at 0x20: mov (16|M0)  r2.0<1>:d  r3.0<1;1,0>:d  {Breakpoint}"
    assert lines[2:4] == ["lanes 0x0000fff0 at 0x20", "lanes 0x0000000f at 0x30"]
    assert "f0-f3: 0000000f 00000000 00000000 00000000" in lines
    assert "r3.0: " + " ".join(["0000beef"] * 8) in lines


def test_a_report_of_an_ended_thread_is_short() -> None:
    interpreter = start(END)
    interpreter.run(100)
    assert describe_thread(interpreter, 0).splitlines() == [
        "thread 0: ended, 1 instructions executed",
        "no lane is left",
    ]
