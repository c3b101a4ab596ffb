"""Draws that follow one another: what one took from its context's state is kept for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.compute.texels import UnknownImage
from vfio_user_xe.device_models.xe.render.draw import Draw
from vfio_user_xe.device_models.xe.render.pipeline import Pipeline

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer


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
    latest, lrc.latest = lrc.latest, None
    try:
        if isinstance(latest, _Latest) and latest.end == begin and latest.generations == latest.pipeline.generations:
            pipeline = latest.pipeline
        else:
            pipeline = Pipeline(streamer)
    except UnknownImage as unknown:
        streamer.engine.report(f"a draw is skipped: {unknown} as a depth or stencil buffer")
        return
    taken = draws if len(draws) > 1 and pipeline.joins_draws else draws[:1]
    lrc.bulk_end = begin + 4 * length * len(taken)
    yield from pipeline.run(taken)
    if pipeline.is_kept:
        lrc.latest = _Latest(pipeline, lrc.bulk_end, pipeline.generations)
