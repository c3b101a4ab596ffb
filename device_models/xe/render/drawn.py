"""What a context has drawn to: its latest render targets, for those who look at a card."""

from __future__ import annotations

from dataclasses import dataclass

from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.engines.lrc import Lrc

MOST = 8
"""Targets that are kept of a context."""
_WITHOUT_PIXELS = (SurfaceType.NULL, SurfaceType.BUFFER, SurfaceType.STRUCTURED, SurfaceType.SCRATCH)


@dataclass(frozen=True)
class Drawn:
    """A render target."""

    surface: SurfaceState
    when: int
    """Nanoseconds of the card's clock at its latest draw."""


def note(lrc: Lrc, surface: SurfaceState, when: int) -> None:
    """The context draws to `surface` at `when`, nanoseconds of the card's clock. On the card's executor."""
    if surface.type in _WITHOUT_PIXELS:
        return
    kept = lrc.drawn
    kept.pop(surface, None)
    kept[surface] = when
    if len(kept) > MOST:
        del kept[next(iter(kept))]


def targets(lrc: Lrc) -> list[Drawn]:
    """What the context drew to, the latest first. On the card's executor."""
    return [Drawn(surface, when) for surface, when in reversed(lrc.drawn.items()) if isinstance(surface, SurfaceState)]
