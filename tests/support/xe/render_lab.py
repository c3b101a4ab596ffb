"""Draws on the compute lab: state of the 3-D pipeline as commands, with shaders that are assembled."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.xe.compute_lab import KERNEL, SURFACES, ComputeLab, base_addresses
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, Job
from vfio_user_xe.device_models.xe.compute.back_end import units
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.profiles.profile import RENDER
from vfio_user_xe.device_models.xe.render import threads

TARGET = DATA_VA + 0x4000
"""The render target's pixels."""
DEPTH = DATA_VA + 0x8000
VERTICES = DATA_VA
WIDTH = HEIGHT = 16
PIXEL_KERNEL, VERTEX_KERNEL = KERNEL, KERNEL + 0x1000
STATE, TABLE, BLEND, VIEWPORT, DEPTH_RANGE = 0x100, 0x80, 0x2400, 0x2500, 0x2600
WRITE = "sendc.rc (16|M0)  null  r60  null:0  0x0  0x08031000  {EOT}\n"
"""Four floats a pixel from r60 on, to the first target; the thread ends."""
FLAT = """
    mov (16|M0)  r60.0<1>:f  r{0}.0<0;1,0>:f
    mov (16|M0)  r61.0<1>:f  r{0}.3<0;1,0>:f
    mov (16|M0)  r62.0<1>:f  r{0}.6<0;1,0>:f
    mov (16|M0)  r63.0<1>:f  r{0}.9<0;1,0>:f
"""
"""The first attribute, flat, as the colour; it is set up in this register."""
INTERPOLATE = "".join(
    f"""
    mad (16|M0)  r{60 + n}.0<1>:f  r3.{3 * n}<0;0>:f  r1.0<1;0>:f  r3.{3 * n + 1}<0>:f
    mad (16|M0)  r{60 + n}.0<1>:f  r{60 + n}.0<1;0>:f  r2.0<1;0>:f  r3.{3 * n + 2}<0>:f
    """
    for n in range(4)
)
"""The first attribute by barycentrics in r1 and r2, with setup data in r3."""
R8G8B8A8 = 0x0C7


def target_state(format: int = R8G8B8A8, pitch: int = 4 * WIDTH, tiling: int = 0) -> tuple[int, ...]:
    """RENDER_SURFACE_STATE of the target: 2-D, its own channels."""
    return (
        1 << 29 | format << 18 | 1 << 16 | tiling << 12, 0, WIDTH - 1 | HEIGHT - 1 << 16, pitch - 1, 0, 0, 0,
        4 << 25 | 5 << 22 | 6 << 19 | 7 << 16, TARGET & 0xFFFFFFFF, TARGET >> 32, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def vertex_buffer(pitch: int, size: int, address: int = VERTICES) -> tuple[int, ...]:
    """3DSTATE_VERTEX_BUFFERS with buffer 0."""
    return 0x78080003, 1 << 14 | pitch, address & 0xFFFFFFFF, address >> 32, size


def element(offset: int, controls: int = 0x1111, format: int = 0) -> tuple[int, int]:
    """VERTEX_ELEMENT_STATE of buffer 0; a nibble a component, the first one highest."""
    parts = [controls >> shift & 0xF for shift in (12, 8, 4, 0)]
    return 1 << 25 | format << 16 | offset, parts[0] << 28 | parts[1] << 24 | parts[2] << 20 | parts[3] << 16


def elements(*pairs: tuple[int, int]) -> tuple[int, ...]:
    """3DSTATE_VERTEX_ELEMENTS."""
    flat = [word for pair in pairs for word in pair]
    return 0x78090000 | len(flat) - 1, *flat


def pixel_shader(
    first_register: int = 1, *, fast_clear: bool = False, kills: bool = False, modes: int = 0
) -> tuple[int, ...]:
    """3DSTATE_PS with a SIMD16 kernel, 3DSTATE_PS_EXTRA, 3DSTATE_WM."""
    return (
        0x7820000A, PIXEL_KERNEL | 1, 0, 0, 0, 0, fast_clear << 8, first_register << 16, 0, 0, 0, 0,
        0x784F0000, 1 << 31 | kills << 28,
        0x78140000, modes << 11,
    )  # fmt: skip


def setup_backend(attributes: int, flat: int = 0) -> tuple[int, ...]:
    """3DSTATE_SBE: attributes are behind the position."""
    return 0x781F0004, attributes << 22 | 1 << 11 | 1 << 5, 0, flat, 0xFFFFFFFF, 0xFFFFFFFF


def primitive(topology: int, vertices: int, *, instances: int = 1, first: int = 0) -> tuple[int, ...]:
    """3DPRIMITIVE."""
    return 0x7B000005, topology, vertices, first, instances, 0, 0


SCREEN_SPACE = (
    0x78120002, 0, 1 << 9, 0,  # CLIP: no division by w
    0x78130002, 0, 0, 0,  # SF: no viewport transform
    0x78500003, 1 << 16, 0, 0, 0,  # RASTER: no culling
)  # fmt: skip
RECTLIST, TRILIST = 0xF, 4
NO_VERTEX_SHADER = (0x78100007, 0, 0, 0, 0, 0, 0, 0, 0)
POINTERS = (0x782A0000, TABLE, 0x78240000, BLEND | 1, 0x78230000, DEPTH_RANGE)
DEFAULT = (*SCREEN_SPACE, *NO_VERTEX_SHADER, *POINTERS)


class RenderLab(ComputeLab):
    """A lab with a render target of 16 by 16 pixels."""

    def draw(
        self,
        shader: str,
        *commands: int,
        vertices: Sequence[Sequence[float]] = (),
        surface: Sequence[int] | None = None,
        blend: Sequence[int] = (),
        vertex_kernel: str = "",
        pixels: bytes = b"",
        submit: bool = True,
    ) -> Job:
        """Run a batch of `DEFAULT` and `commands`; `vertices` are rows of floats at `VERTICES`."""
        job = self.job(engine_class=RENDER)
        self.load(job, shader, PIXEL_KERNEL)
        if vertex_kernel:
            self.load(job, vertex_kernel, VERTEX_KERNEL)
        self.place(job, SURFACES + STATE, *(target_state() if surface is None else surface))
        self.place(job, SURFACES + TABLE, STATE)
        self.place(job, BLEND, *(blend or [0] * 17))
        self.place(job, DEPTH_RANGE, *struct.unpack("<2I", struct.pack("<2f", 0, 1)))
        viewport = (
            WIDTH / 2,
            HEIGHT / 2,
            0.5,
            WIDTH / 2,
            HEIGHT / 2,
            0.5,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            WIDTH - 1,
            0,
            HEIGHT - 1,
        )
        self.place(job, VIEWPORT, *struct.unpack("<16I", struct.pack("<16f", *viewport)))
        if vertices:
            job.set_bytes(VERTICES - DATA_VA, np.array(vertices, dtype=np.float32).tobytes())
        if pixels:
            job.set_bytes(TARGET - DATA_VA, pixels)
        job.batch(*base_addresses(), *DEFAULT, *commands, 0x0500_0000)
        job.ring(*job.start())
        if submit:
            job.submit()
            self.run()
        return job

    def pixels(self, job: Job) -> NDArray[np.uint8]:
        """[rows, columns, 4] of a linear target."""
        dwords = np.array(job.data(TARGET - DATA_VA, WIDTH * HEIGHT), dtype=np.uint32)
        return dwords.view(np.uint8).reshape(HEIGHT, WIDTH, 4)


def code(text: str) -> bytes:
    """Assembled."""
    return assemble(text)


def render_labs(back_end: str) -> Iterator[RenderLab]:
    """A lab whose execution units are of "reference" or "compiled"; skips the test where there is no compiler."""
    with pytest.MonkeyPatch.context() as patch:
        if back_end == "reference":
            patch.setattr(threads, "compiled_back_end", lambda: None)
        elif isinstance(units(), ReferenceUnits):
            pytest.skip("there is no compiler")
        yield RenderLab()


__all__ = ["BATCH_VA", "RenderLab", "render_labs"]
