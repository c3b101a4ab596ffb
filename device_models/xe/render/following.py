"""Draws that follow one another: what one took from its context's state is kept for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.compute.texels import UnknownImage
from vfio_user_xe.device_models.xe.render.draw import Draw, MeshDraw
from vfio_user_xe.device_models.xe.render.pipeline import Pipeline

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc


@dataclass(frozen=True, slots=True)
class _Latest:
    """The latest draw of a context."""

    pipeline: Pipeline
    end: int
    """Where the command behind it is."""
    generations: tuple[int, int]
    """Of the two address spaces."""


def run(streamer: CommandStreamer, draws: Sequence[Draw], begin: int, length: int) -> Bulk:
    """Everything that a 3DPRIMITIVE does whose `length` dwords begin at `begin`, and those behind it that can be joined to it.

    `draws` has its own draw, and those of commands that follow it at once and could be joined, for all that they say themselves.

    Nothing is looked up anew for a draw that follows another at once: no command between them has changed state or invalidated
    the caches that hardware keeps state in, and translations are the same.
    """
    lrc = streamer.lrc
    pipeline = _pipeline(streamer, begin)
    if pipeline is None:
        return
    taken = draws if len(draws) > 1 and pipeline.joins_draws else draws[:1]
    lrc.bulk_end = begin + 4 * length * len(taken)
    yield from pipeline.run(taken)
    _keep(lrc, pipeline)


def run_one(streamer: CommandStreamer, draw: Draw | MeshDraw, begin: int) -> Bulk:
    """One draw of a command at `begin`; one that is not the command's first begins where the command ends."""
    pipeline = _pipeline(streamer, begin)
    if pipeline is None:
        return
    yield from pipeline.run_meshes(draw) if isinstance(draw, MeshDraw) else pipeline.run([draw])
    _keep(streamer.lrc, pipeline)


def _pipeline(streamer: CommandStreamer, begin: int) -> Pipeline | None:
    """What the latest draw has kept, if it was just before `begin`, or the context's state now; None if that cannot be drawn to."""
    lrc = streamer.lrc
    latest, lrc.latest = lrc.latest, None
    if isinstance(latest, _Latest) and latest.end == begin and latest.generations == latest.pipeline.generations:
        return latest.pipeline
    try:
        return Pipeline(streamer)
    except UnknownImage as unknown:
        streamer.engine.report(f"a draw is skipped: {unknown} as a depth or stencil buffer")
        return None


def _keep(lrc: Lrc, pipeline: Pipeline) -> None:
    """For a draw behind the command that is executed."""
    if pipeline.is_kept:
        lrc.latest = _Latest(pipeline, lrc.bulk_end, pipeline.generations)
