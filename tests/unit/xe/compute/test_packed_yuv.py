"""Packed 4:2:2 formats: which byte is what, and that neighbours share their chroma."""

from __future__ import annotations

from unittest.mock import create_autospec

import numpy as np
import pytest

from vfio_user_xe.device_models.xe.compute.compiled_images import texture_struct
from vfio_user_xe.device_models.xe.compute.filtering import Mips
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory, numbers
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Image, UnknownImage
from vfio_user_xe.device_models.xe.engines.tiling import TILE_4

Y0, Y1, CB, CR = 10, 200, 60, 90
ORDERS = {
    0x182: (Y0, CB, Y1, CR),
    0x183: (CR, Y0, CB, Y1),
    0x18F: (Y0, CR, Y1, CB),
    0x190: (CB, Y0, CR, Y1),
}
"""YUYV, VYUY, YVYU, UYVY in memory."""


def surface(code: int, tiling: int) -> SurfaceState:
    return SurfaceState(
        type=SurfaceType.D2, format=code, tiling=tiling, base=0, width=70, height=3, depth=1, pitch=256, entries=1,
        q_pitch=32, first_element=0, array=False, level=0, levels=1, swizzle=(4, 5, 6, 7), alignment=(0, 1),
    )  # fmt: skip


def memory_of(raw: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> UnitMemory:
    memory = create_autospec(UnitMemory, instance=True)
    memory.load.side_effect = lambda where, size: numbers(raw[where.astype(np.int64)[:, None] + np.arange(size)], size)
    assert isinstance(memory, UnitMemory)
    return memory


@pytest.mark.parametrize("code", ORDERS)
@pytest.mark.parametrize("tiling", [0, 3])
def test_two_texels_have_their_own_luma_and_the_same_chroma(code: int, tiling: int) -> None:
    # Texels 66 and 67 of row 2: in Tile4, which is 128 bytes wide, they are in the second tile.
    place = 2 * 256 + 66 * 2 if not tiling else TILE_4.size + 2 * 16 + 2 * 2
    raw = np.zeros(2 * TILE_4.size, dtype=np.uint8)
    raw[place : place + 4] = ORDERS[code]
    image = Image(memory_of(raw), surface(code, tiling), sampled=True)
    x = np.array([67, 66, 67])
    found = image.texels(x, np.full(3, 2), np.zeros(3, dtype=np.int64)) * 255
    expected = [[CR, Y1, CB, 255], [CR, Y0, CB, 255], [CR, Y1, CB, 255]]
    np.testing.assert_allclose(found, expected)


def test_only_the_sampler_takes_them() -> None:
    with pytest.raises(UnknownImage, match="surface format 0x182"):
        Image(memory_of(np.zeros(16, dtype=np.uint8)), surface(0x182, 0))


def test_compiled_code_leaves_them_to_the_reference() -> None:
    mips = Mips(memory_of(np.zeros(16, dtype=np.uint8)), surface(0x182, 0))
    with pytest.raises(UnknownImage, match="0x182"):
        texture_struct(0, mips)
