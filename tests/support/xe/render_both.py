"""Draws in both ways: in compiled code and in numpy."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from unittest import mock

import numpy as np

from tests.support.xe.compute_lab import SURFACES
from tests.support.xe.engine_lab import DATA_VA
from tests.support.xe.render_lab import (
    TRILIST,
    RenderLab,
    element,
    elements,
    pixel_shader,
    primitive,
    setup_backend,
    vertex_buffer,
)
from vfio_user_xe.device_models.xe.render import pipeline
from vfio_user_xe.device_models.xe.render.compiled_pixels import CompiledPixels
from vfio_user_xe.device_models.xe.render.compiled_state import DrawState, NotCompiled
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort

TARGET_AT, DEPTH_AT, TEXTURE_AT, SAMPLERS, BORDER = 0x4000, 0x8000, 0x9000, 0x600, 0x640
TEXTURE_BYTES = 0x7000


@dataclass
class Drawn:
    """What a draw has left."""

    memory: bytes
    counted: dict[str, tuple[int, int]]
    """Bytes read and written, by the ledger's kind, of fixed functions."""


def draw(lab: RenderLab, compiled: bool, shader: str, commands: tuple[int, ...], **options: object) -> Drawn:
    """One draw into a context of its own, by compiled code or in numpy."""
    texture = options.pop("texture", b"")
    state: tuple[int, ...] = options.pop("texture_state", ())  # type: ignore[assignment]
    sampler: tuple[int, ...] = options.pop("sampler", ())  # type: ignore[assignment]
    depth, may_be_empty = options.pop("depth", b""), options.pop("may_be_empty", False)
    job = lab.draw(shader, *commands, submit=False, **options)  # type: ignore[arg-type]
    job.set_bytes(TEXTURE_AT, texture)  # type: ignore[arg-type]
    job.set_bytes(DEPTH_AT, depth)  # type: ignore[arg-type]
    if state:
        lab.place(job, SURFACES + 0x140, *state)
        lab.place(job, SURFACES + 0x84, 0x140)
        lab.place(job, SURFACES + SAMPLERS, *sampler)
        lab.place(job, SURFACES + BORDER, *struct.unpack("<4I", struct.pack("<4f", 0.25, 0.5, -1, 2)))
    before = _counts(lab)
    refuse = mock.Mock(side_effect=NotCompiled("in numpy"))
    with (
        mock.patch.object(CompiledPixels, "draw", autospec=True, side_effect=CompiledPixels.draw) as drawn,
        mock.patch.object(pipeline, "DrawState", DrawState if compiled else refuse),
        mock.patch.object(ShaderPort, "send", autospec=True, side_effect=ShaderPort.send) as sent,
    ):
        job.submit()
        lab.run()
    assert bool(drawn.call_count) is compiled
    # Nothing is interpreted in compiled code, and all messages are otherwise, unless tests leave nothing to shade.
    assert not sent.call_count if compiled else sent.call_count or may_be_empty
    assert not lab.listener.faults
    assert not lab.engine("rcs0").reports
    after = _counts(lab)
    counted = {
        kind: (after[kind][0] - before.get(kind, (0, 0))[0], after[kind][1] - before.get(kind, (0, 0))[1])
        for kind in after
    }
    return Drawn(job.bytes(0, 0x1_0000), counted)


def _counts(lab: RenderLab) -> dict[str, tuple[int, int]]:
    return {
        entry.kind: (entry.bytes_read, entry.bytes_written)
        for entry in lab.fabric.ledger.entries()
        if entry.kind.startswith("3d")
    }


def both(lab: RenderLab, shader: str, commands: tuple[int, ...], **options: object) -> bytes:
    """Draws in both ways, compares, and returns the memory."""
    one, other = (draw(lab, compiled, shader, commands, **options) for compiled in (True, False))
    assert one.memory == other.memory
    assert one.counted == other.counted
    return one.memory


def vertices(random: np.random.Generator, count: int, *, space: bool = True) -> list[list[float]]:
    """Header, position in pixels, attribute; some beyond the target."""
    rows = []
    for _ in range(count):
        x, y = random.uniform(-6, 22, 2).tolist()
        z, w = random.uniform(0, 1), random.uniform(0.5, 2) if space else 1.0
        rows.append([0, 0, 0, 0, round(x * 4) / 4, round(y * 4) / 4, z, w, *random.uniform(-0.5, 1.5, 4).tolist()])
    return rows


def triangles(
    count: int, *more: int, topology: int = TRILIST, extra: int = 0, modes: int = 1, first_register: int = 3
) -> tuple[int, ...]:
    """A draw of so many primitives; `extra` are further bits of 3DSTATE_PS_EXTRA."""
    shader = list(pixel_shader(first_register, modes=modes))
    shader[13] |= extra
    return (
        *vertex_buffer(48, 3 * count * 48), *elements(element(0), element(16), element(32)), *setup_backend(1),
        *shader, *more, *primitive(topology, 3 * count),
    )  # fmt: skip


def depth_state(form: int, function: int, write: bool) -> tuple[int, ...]:
    """3DSTATE_DEPTH_BUFFER in Tile4, and the test."""
    return (
        0x78050006, 1 << 29 | 1 << 28 | form << 24 | 127, DATA_VA + DEPTH_AT, 0, 15 << 1 | 15 << 17, 0, 3 << 30, 0,
        0x784E0002, function << 5 | 0b10 | write, 0, 0,
    )  # fmt: skip


def blend_entry(random: np.random.Generator) -> list[int]:
    """BLEND_STATE of one target with any factors, functions, masks and clamps."""
    factors = [1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21, 23, 24]

    def pick() -> int:
        return int(random.choice(factors))

    first = 1 << 31 | int(random.integers(5)) << 18 | pick() << 26 | pick() << 21 | int(random.integers(5)) << 5
    first |= pick() << 13 | pick() << 8 | int(random.choice([0, 0, 0b1010]))
    second = int(random.integers(4)) | int(random.integers(3)) << 2
    return [1 << 30, first, second, *[0] * 14]
