"""The trace category `eu`, and what is kept of threads that cannot go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.xe.compute_kernels import LINEAR, LOOP, store
from tests.support.xe.compute_lab import DATA, EOT, KERNEL, ComputeLab, base_addresses, walker
from tests.support.xe.engine_lab import BATCH_VA

RESULT = store(0, "r20").replace("r2.0", "r1.0")
FORTY_TWO = LINEAR + "mov (16|M0)  r20.0<1>:ud  42:ud\n" + RESULT


@contextmanager
def traced(lab: ComputeLab, path: Path) -> Iterator[list[dict[str, Any]]]:
    """The events of category `eu`, which are there when the trace has ended."""
    events: list[dict[str, Any]] = []
    tracer = lab.card.tracer
    tracer.start(["eu"], path)
    try:
        yield events
    finally:
        tracer.stop()
    events += [json.loads(line) for line in path.read_text().splitlines()]


def fields(events: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    assert {record["category"] for record in events} <= {"eu"}
    return [record["fields"] for record in events if record["event"] == event]


def test_a_kernel_is_told_once_with_its_instructions_and_each_walker(lab: ComputeLab, tmp_path: Path) -> None:
    one = walker(inline=[DATA, 0], groups=(2, 1, 1))
    with traced(lab, tmp_path / "t.jsonl") as events:
        job = lab.compute_job(FORTY_TWO + EOT, *one, *one)
        job.submit()
        lab.run()
    place = BATCH_VA + KERNEL
    (kernel,) = fields(events, "kernel")
    instructions = fields(events, "instruction")
    assert kernel == {"engine": "ccs0", "by": "COMPUTE_WALKER", "address": place, "instructions": len(instructions)}
    assert instructions[0]["address"] == place
    assert instructions[-1]["text"].startswith("(W) send.gtwy")
    told = {"engine": "ccs0", "kernel": place, "groups": "2x1x1", "local": "16x1x1", "simd": 16, "threads": 1, "slm": 0}
    assert fields(events, "walker") == [told, told]


def test_other_code_at_the_same_place_is_told_again(lab: ComputeLab, tmp_path: Path) -> None:
    with traced(lab, tmp_path / "t.jsonl") as events:
        for constant in ("1", "2"):
            job = lab.compute_job(f"mov (16|M0)  r20.0<1>:ud  {constant}:ud\n" + EOT, *walker(), setup=base_addresses())
            job.submit()
            lab.run()
    texts = [record["text"] for record in fields(events, "instruction")]
    assert [text for text in texts if text.startswith("mov")] == [
        "mov (16|M0)  r20.0<1>:ud  0x1:ud",
        "mov (16|M0)  r20.0<1>:ud  0x2:ud",
    ]


def test_a_second_trace_has_the_kernel_too(lab: ComputeLab, tmp_path: Path) -> None:
    for name in ("first.jsonl", "second.jsonl"):
        with traced(lab, tmp_path / name) as events:
            lab.dispatch(FORTY_TWO + EOT, inline=[DATA, 0])
        assert len(fields(events, "kernel")) == 1


def test_a_kernel_that_cannot_be_read_is_told_with_the_reason(lab: ComputeLab, tmp_path: Path) -> None:
    with traced(lab, tmp_path / "t.jsonl") as events:
        lab.compute_job(EOT, *walker(kernel=0x4000_0000)).submit()
        lab.run()
    (kernel,) = fields(events, "kernel")
    assert "0x40100000" in kernel["unreadable"]


def test_a_thread_that_faults_is_kept_and_traced(lab: ComputeLab, tmp_path: Path) -> None:
    with traced(lab, tmp_path / "t.jsonl") as events:
        job = lab.compute_job(FORTY_TWO.replace("r1.0<0;1,0>:uq", "r5.0<0;1,0>:uq") + EOT, *walker(inline=[DATA, 0]))
        job.submit()
        lab.run()
    (text,) = lab.engine("ccs0").inspect()["threads"]
    assert "kernel at 0x8000: thread 0: stopped" in text
    assert "send.ugm" in text
    lines = [record["text"] for record in fields(events, "thread")]
    assert "\n".join(lines) in text
    assert any(line.startswith("lanes 0x0000ffff at") for line in lines)


def test_a_walker_that_is_given_up_says_where_a_thread_of_it_is(lab: ComputeLab) -> None:
    job = lab.compute_job(LOOP + EOT, *walker())
    job.submit()

    def is_begun() -> bool:
        """Its kernel is translated on another thread, which a busy host lets wait."""
        in_flight = job.context.members[0].in_flight
        return isinstance(in_flight, partial) and bool(in_flight.args[0].describe())

    lab.run(is_begun, limit=100_000)
    lab.engines.remove(job.context)
    lab.run()
    (text,) = lab.engine("ccs0").threads
    assert "a walker is given up in the middle: group (0, 0, 0), kernel at 0x8000: thread 0: running" in text
    assert "lanes 0x0000ffff at" in text
