"""How fast draws run, without a guest: `python -m tests.bench.bench_rendering [--json FILE] [--rounds N]`.

Scenes are batches of the 3-D pipeline with shaders as Mesa's compiler makes them: their instructions and messages, not its text. Times are
from the doorbell to the idle engine, the best of some rounds, by wall time and by processor time; the latter says what the machine can do
when others use it too.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from tests.bench.bench_engines import Figure
from tests.bench.timed_batch import timed
from tests.support.xe.commands import END
from tests.support.xe.compute_lab import SURFACES, base_addresses
from tests.support.xe.engine_lab import Job
from tests.support.xe.render_lab import (
    BLEND,
    DEFAULT,
    DEPTH_RANGE,
    INTERPOLATE,
    PIXEL_KERNEL,
    R8G8B8A8,
    STATE,
    TABLE,
    TRILIST,
    VERTEX_KERNEL,
    VIEWPORT,
    WRITE,
    RenderLab,
    element,
    elements,
    pixel_shader,
    primitive,
    setup_backend,
)
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.engines.lrc import TIMESTAMP, TIMESTAMP_UDW
from vfio_user_xe.device_models.xe.profiles.profile import RENDER
from vfio_user_xe.device_models.xe.render import compiled_pixels, pipeline
from vfio_user_xe.device_models.xe.render.compiled_state import NotCompiled

TARGET, DEPTH, TEXTURE, VERTICES = 0x4000_0000, 0x5000_0000, 0x6000_0000, 0x7000_0000
TRISTRIP = 5
TILE_4 = 3
TEXTURE_STATE, SAMPLERS = 0x140, 0x600
TEXELS = 256
ROUNDS = 5
QUANTUM_US, PREEMPT_US = 20_000, 500_000
SECONDS = 8.0
VERTEX = """
    mov (16|M0)  r10.0<1>:f  0:f
    send.urb (16|M0)  null  r1  r10:1  0x0  0x02000504
    add (16|M0)  r20.0<1>:ud  r1.0<8;8,1>:ud  16:ud
    send.urb (16|M0)  null  r20  r2:4  0x0  0x02003504
    add (16|M0)  r20.0<1>:ud  r1.0<8;8,1>:ud  32:ud
    send.urb (16|M0)  null  r20  r6:4  0x0  0x02003504
    (W) send.gtwy (1|M0)  null  r112  null:0  0x0  0x02000010  {EOT}
"""
"""The first element (r2 to r5) is the position, the second (r6 on) the attribute."""
TEXTURED = """
    mad (16|M0)  r14.0<1>:f  r3.0<0;0>:f  r1.0<1;0>:f  r3.1<0>:f
    mad (16|M0)  r14.0<1>:f  r14.0<1;0>:f  r2.0<1;0>:f  r3.2<0>:f
    mad (16|M0)  r15.0<1>:f  r3.3<0;0>:f  r1.0<1;0>:f  r3.4<0>:f
    mad (16|M0)  r15.0<1>:f  r15.0<1;0>:f  r2.0<1;0>:f  r3.5<0>:f
    send.smpl (16|M0)  r60  r14  null:0  0x0  0x04420001
"""
"""The texture at the first attribute, by a sample message: binding table index 1, sampler 0."""
LIT = INTERPOLATE + "".join(
    f"""
    mul (16|M0)  r{60 + n}.0<1>:f  r{60 + n}.0<1;1,0>:f  r{60 + n}.0<1;1,0>:f
    mad (16|M0)  r{60 + n}.0<1>:f  r{60 + n}.0<1;0>:f  r1.0<1;0>:f  r{60 + n}.0<1>:f
    """
    * 3
    for n in range(4)
)
"""Two dozen instructions of arithmetic on an attribute."""


@dataclass
class Scene:
    """One frame: vertices with position and attribute [vertices, 8], and draws of them."""

    name: str
    width: int
    height: int
    vertices: list[list[float]]
    draws: list[tuple[int, int, int]]
    """Topology, first vertex, vertices."""
    shader: str
    depth: bool = False
    blend: bool = False
    changes: bool = False
    """State commands stand between the draws."""


def quad() -> Scene:
    """A texture over all of a full HD target."""
    corners = [(-1, -1, 0, 0), (1, -1, 1, 0), (-1, 1, 0, 1), (1, 1, 1, 1)]
    vertices = [[x, y, 0.5, 1, u, v, 0, 1] for x, y, u, v in corners]
    return Scene("textured quad, 1920x1080", 1920, 1080, vertices, [(TRISTRIP, 0, 4)], TEXTURED)


def gears() -> Scene:
    """Three gears of 20, 10 and 10 teeth, seven strips a tooth and a draw a strip, as es2gears has them."""
    vertices: list[list[float]] = []
    draws: list[tuple[int, int, int]] = []
    for x, y, outer, teeth, shade in (
        (-0.3, -0.2, 0.42, 20, 0.8),
        (0.33, -0.2, 0.2, 10, 0.5),
        (-0.3, 0.45, 0.2, 10, 0.3),
    ):
        step = 2 * math.pi / teeth
        for tooth in range(teeth):
            for strip in range(7):
                first = len(vertices)
                for number in range(5):
                    angle = (tooth + strip / 7 + number / 35) * step
                    radius = outer * ((0.35, 0.8, 1.0)[(number + strip) % 3])
                    depth = 0.3 + 0.05 * strip
                    vertices.append(
                        [x + radius * math.cos(angle), y + radius * math.sin(angle), depth, 1, shade, 0.2, strip / 7, 1]
                    )
                draws.append((TRISTRIP, first, 5))
    return Scene("gears, 300x300, 280 draws", 300, 300, vertices, draws, INTERPOLATE, depth=True)


def mesh(changes: bool = False) -> Scene:
    """A lit sphere of 20,000 triangles with depth, as glmark2's build and shading scenes draw one."""
    rings = 100
    grid = []
    for ring in range(rings + 1):
        for step in range(rings + 1):
            polar, around = math.pi * ring / rings, 2 * math.pi * step / rings
            x, y, z = math.sin(polar) * math.cos(around), math.cos(polar), math.sin(polar) * math.sin(around)
            grid.append([0.8 * x, 0.8 * y, 0.5 + 0.4 * z, 1, abs(x), abs(y), abs(z), 1])
    vertices = []
    for ring in range(rings):
        for step in range(rings):
            a, b = ring * (rings + 1) + step, (ring + 1) * (rings + 1) + step
            vertices += [grid[a], grid[a + 1], grid[b], grid[b], grid[a + 1], grid[b + 1]]
    return Scene(
        "lit mesh, 320x240, 20,000 triangles", 320, 240, vertices, [(TRILIST, 0, len(vertices))], LIT, depth=True
    )


def layers() -> Scene:
    """Twenty blended, textured windows, with state between the draws."""
    vertices, draws = [], []
    for number in range(20):
        left, top = -0.9 + 0.05 * number, -0.9 + 0.04 * number
        corners = [(left, top, 0, 0), (left + 0.8, top, 1, 0), (left, top + 0.8, 0, 1), (left + 0.8, top + 0.8, 1, 1)]
        draws.append((TRISTRIP, len(vertices), 4))
        vertices += [[x, y, 0.5, 1, u, v, 0, 1] for x, y, u, v in corners]
    return Scene("20 blended windows, 640x480", 640, 480, vertices, draws, TEXTURED, blend=True, changes=True)


SCENES = (quad, gears, mesh, layers)


class Bench:
    """A context with a scene's buffers."""

    def __init__(self, scene: Scene, lab: RenderLab | None = None, vfid: int = 0) -> None:
        """`vfid`: a VF of `lab` draws, in 16 MiB of its own."""
        self.scene = scene
        self.lab = lab if lab is not None else RenderLab(vram=64 * MIB)
        self.job, self.places = self._context(vfid)
        job, lab = self.job, self.lab
        self.pitch = -(-4 * scene.width // 128) * 128
        rows = -(-scene.height // 32) * 32
        self.bytes = self.pitch * rows
        sizes = (self.bytes, self.bytes, 4 * TEXELS * TEXELS, 32 * len(scene.vertices))
        for address, place, size in zip((TARGET, DEPTH, TEXTURE, VERTICES), self.places, sizes, strict=True):
            job.tables.map(address, place * MIB, -(-size // 0x10000) * 0x10000)
        lab.load(job, scene.shader + WRITE, PIXEL_KERNEL)
        lab.load(job, VERTEX, VERTEX_KERNEL)
        lab.place(job, SURFACES + STATE, *self._surface(TARGET, scene.width, scene.height, self.pitch))
        lab.place(job, SURFACES + TEXTURE_STATE, *self._surface(TEXTURE, TEXELS, TEXELS, 4 * TEXELS))
        lab.place(job, SURFACES + TABLE, STATE, TEXTURE_STATE)
        lab.place(job, SURFACES + SAMPLERS, 1 << 17 | 1 << 14, 0, 0, 2 << 6 | 2 << 3 | 2)
        entry = 1 << 31 | 3 << 26 | 19 << 21 | 3 << 13 | 19 << 8 if scene.blend else 0
        lab.place(job, BLEND, 1 << 30 if scene.blend else 0, entry, 3 if scene.blend else 0, *[0] * 14)
        lab.place(job, DEPTH_RANGE, *struct.unpack("<2I", struct.pack("<2f", 0, 1)))
        half = scene.width / 2, scene.height / 2
        viewport = (*half, 0.5, *half, 0.5, 0, 0, 0, 0, 0, 0, 0, scene.width - 1, 0, scene.height - 1)
        lab.place(job, VIEWPORT, *struct.unpack("<16I", struct.pack("<16f", *viewport)))
        random = np.random.default_rng(1)
        self.view(self.places[2], 4 * TEXELS * TEXELS)[:] = random.integers(
            0, 256, 4 * TEXELS * TEXELS, dtype=np.uint8
        ).tobytes()
        self.view(self.places[3], 32 * len(scene.vertices))[:] = np.array(scene.vertices, dtype=np.float32).tobytes()
        self.batch = self._batch()

    def _context(self, vfid: int) -> tuple[Job, tuple[int, int, int, int]]:
        """A context, and where its target, depths, texture and vertices are, in MiB."""
        if not vfid:
            return self.lab.job(engine_class=RENDER), (16, 28, 40, 44)
        vf = self.lab.vf_with_memory(vfid, {n: 16 * vfid + n - 8 for n in range(8)}, (0x400_0000, 0x100_0000))
        job = Job(self.lab, vfid, engine_class=RENDER, function=vf)
        self.lab.jobs.append(job)
        return job, (5, 8, 11, 12)

    def view(self, place: int, size: int) -> memoryview:
        """A buffer's bytes."""
        return self.job._view(place * MIB, size)

    def pixels(self) -> bytes:
        """What was drawn, as it lies in memory."""
        return bytes(self.view(self.places[0], self.bytes))

    @staticmethod
    def _surface(address: int, width: int, height: int, pitch: int) -> tuple[int, ...]:
        return (
            1 << 29 | R8G8B8A8 << 18 | 1 << 16 | TILE_4 << 12, 0, width - 1 | height - 1 << 16, pitch - 1, 0, 0, 0,
            4 << 25 | 5 << 22 | 6 << 19 | 7 << 16, address & 0xFFFFFFFF, address >> 32, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip

    def _batch(self) -> int:
        scene = self.scene
        pitch, size = 32, 32 * len(scene.vertices)
        depth = (
            0x78050006, 1 << 29 | 1 << 28 | 1 << 24 | self.pitch - 1, DEPTH & 0xFFFFFFFF, DEPTH >> 32,
            scene.width - 1 << 1 | scene.height - 1 << 17, 0, 3 << 30, 0, 0x784E0002, 2 << 5 | 0b11, 0, 0,
            0x78520004, 1 << 30, 0, scene.width | scene.height << 16, 1, 0x3F800000,
        )  # fmt: skip
        state = (
            0x78080003, 1 << 14 | pitch, VERTICES & 0xFFFFFFFF, VERTICES >> 32, size,
            *elements(element(0), element(16)), *setup_backend(1), *pixel_shader(3, modes=1),
            0x782F0000, SAMPLERS + SURFACES,
            0x78120002, 0, 1 << 31, 0, 0x78130002, 2, 0, 0, 0x78210000, VIEWPORT, 0x78580001, 1, 0,
            0x78100007, VERTEX_KERNEL, 0, 0, 0, 0, 2 << 20 | 1 << 11, 1, 0,
        )  # fmt: skip
        draws: list[int] = []
        for topology, first, count in scene.draws:
            if scene.changes:
                draws += [0x782A0000, TABLE, *pixel_shader(3, modes=1)]
            draws += primitive(topology, count, first=first)
        self.commands = (*base_addresses(), *DEFAULT, *state, *(depth if scene.depth else ()), *draws)
        return self.job.batch(*self.commands, END)

    def seconds(self) -> tuple[float, float]:
        """Wall and processor time of one frame."""
        job, lab = self.job, self.lab
        job.ring(*job.start(self.batch))
        return timed(lab, job, "rcs0")


def best(bench: Bench, rounds: int) -> tuple[float, float]:
    """Wall and processor time of the best frame; the first one, in which pages and kernels are found, does not count."""
    bench.seconds()
    wall, used = (min(column) for column in zip(*(bench.seconds() for _ in range(rounds)), strict=True))
    return wall, used


def shares(make: Callable[[], Scene], other: Callable[[], Scene]) -> Figure:
    """How much of the engine's time a VF gets that draws one scene, where another VF draws the other; with the same quantum."""
    lab = RenderLab(vram=64 * MIB)
    benches = [Bench(scene(), lab, vfid) for vfid, scene in enumerate((make, other), start=1)]
    for vfid, bench in enumerate(benches, start=1):
        lab.engines.function_policy(vfid, quantum_us=QUANTUM_US, preempt_us=PREEMPT_US)
        # Frame after frame, for ever.
        bench.job.ring(*bench.job.start(bench.job.batch(*bench.commands, *bench.job.start(bench.batch))))
        bench.job.submit()
    begun = time.perf_counter()
    lab.run(lambda: time.perf_counter() > begun + SECONDS, limit=1 << 60)
    first, second = (bench.job.image(TIMESTAMP) | bench.job.image(TIMESTAMP_UDW) << 32 for bench in benches)
    name = f"time of {benches[0].scene.name.partition(',')[0]} beside {benches[1].scene.name.partition(',')[0]}"
    return Figure(name, 100 * first / (first + second), "%", f"50 % is its share; quanta of {QUANTUM_US // 1000} ms")


def measure(rounds: int) -> list[Figure]:
    """Frames of all scenes; beside them the same frame with its pixels in numpy, and what a second processor brings."""
    figures = []
    for make in SCENES:
        scene = make()
        wall, used = best(Bench(scene), rounds)
        with mock.patch.object(pipeline, "DrawState", side_effect=NotCompiled("for comparison")):
            _, in_numpy = Bench(scene).seconds()
        note = f"{used * 1e3:.1f} ms of processor time, {in_numpy / used:.1f} times as much with pixels in numpy"
        figures.append(Figure(scene.name, wall * 1e3, "ms", note))
    scene = quad()
    with mock.patch.object(compiled_pixels, "_processors", return_value=1):
        alone, by_one = best(Bench(scene), rounds)
    with mock.patch.object(compiled_pixels, "_processors", return_value=2):
        together, by_two = best(Bench(scene), rounds)
    note = f"{2 * by_one / by_two:.2f} by processor time"
    figures.append(Figure("textured quad, 2 processors against one", alone / together, "times", note))
    figures += [shares(gears, gears), shares(gears, layers), shares(mesh, layers)]
    return figures


def main() -> None:
    """Print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    for figure in figures:
        print(f"{figure.name:52} {figure.value:10.2f} {figure.unit:12} {figure.note}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))


if __name__ == "__main__":
    main()
