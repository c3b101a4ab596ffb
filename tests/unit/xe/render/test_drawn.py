"""What a context remembers of its render targets, and pictures of them."""

from __future__ import annotations

import numpy as np

from tests.support.xe.engine_lab import DATA_VA
from tests.support.xe.render_lab import (
    FLAT,
    HEIGHT,
    RECTLIST,
    TARGET,
    WIDTH,
    WRITE,
    RenderLab,
    element,
    elements,
    pixel_shader,
    primitive,
    setup_backend,
    target_state,
    vertex_buffer,
)
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.render.drawn import MOST, note, targets
from vfio_user_xe.device_models.xe.screenshot import read

RED = (1.0, 0.0, 0.0, 1.0)
X, TILE4 = 2, 3


def draw(lab: RenderLab, surface: tuple[int, ...]) -> Lrc:
    """A red rectangle in rows 3 to 7, columns 2 to 9."""
    corners = [[0, 0, 0, 0, x, y, 0.5, 1, *RED] for x, y in ((10, 8), (2, 8), (2, 3))]
    commands = (
        *vertex_buffer(48, 144),
        *elements(element(0), element(16), element(32)),
        *setup_backend(1, flat=1),
        *pixel_shader(),
        *primitive(RECTLIST, 3),
    )
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=corners, surface=surface)
    (lrc,) = job.context.members
    return lrc


def test_a_context_remembers_the_target_of_its_draw(lab: RenderLab) -> None:
    (found,) = targets(draw(lab, target_state()))
    assert (found.surface.base, found.surface.width, found.surface.height) == (TARGET, WIDTH, HEIGHT)


def test_a_picture_of_a_target_is_what_was_drawn_in_every_tiling(lab: RenderLab) -> None:
    for tiling, pitch in ((0, 4 * WIDTH), (X, 512), (TILE4, 128)):
        lrc = draw(lab, target_state(pitch=pitch, tiling=tiling))
        pixels = read(lrc.space, targets(lrc)[0].surface)
        expected = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        expected[3:8, 2:10] = [255, 0, 0]
        assert (pixels == expected).all(), tiling


def test_the_latest_target_comes_first_and_the_oldest_is_forgotten(lab: RenderLab) -> None:
    lrc = draw(lab, target_state())
    first = targets(lrc)[0].surface
    others = [SurfaceState.of((*target_state()[:8], DATA_VA + 0x1_0000 * n, *target_state()[9:])) for n in range(MOST)]
    now = targets(lrc)[0].when
    for surface in others:
        note(lrc, surface, now + 1)
    assert first not in [found.surface for found in targets(lrc)]
    note(lrc, others[3], now + 2)
    assert [found.surface for found in targets(lrc)] == [
        others[3],
        *(o for o in reversed(others) if o is not others[3]),
    ]
    assert [found.when - now for found in targets(lrc)] == [2, *[1] * (MOST - 1)]


def test_a_target_without_pixels_is_not_remembered(lab: RenderLab) -> None:
    assert targets(draw(lab, (7 << 29, *target_state()[1:]))) == []
