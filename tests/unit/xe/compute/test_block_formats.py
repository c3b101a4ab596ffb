"""Blocks of compressed formats: by hand where they are simple, otherwise beside what another decoder made of random ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.block_formats import FORMATS

BC1, BC2, BC3, BC4, BC4_SIGNED, BC1_SRGB, DXT1_RGB = 0x186, 0x187, 0x188, 0x189, 0x199, 0x18B, 0x191
BC6_UNSIGNED, BC7, ETC2, ETC2_PUNCHED, ETC2_ALPHA, EAC, EAC_SIGNED = 0x1A4, 0x1A2, 0x1AA, 0x1C0, 0x1C2, 0x1AB, 0x1AD


def decoded(code: int, block: str | bytes) -> NDArray[np.float64]:
    """[16, 4] of one block."""
    raw = bytes.fromhex(block) if isinstance(block, str) else block
    return FORMATS[code].decode(np.frombuffer(raw, dtype=np.uint8).reshape(1, -1))[0]


def test_bc1_has_two_colours_between_its_ends_or_one_and_nothing() -> None:
    codes = bytes([0b11100100] * 4)
    four = decoded(BC1, b"\x00\xf8" + b"\x1f\x00" + codes)  # red, blue
    assert np.allclose(four[:4], [[1, 0, 0, 1], [0, 0, 1, 1], [2 / 3, 0, 1 / 3, 1], [1 / 3, 0, 2 / 3, 1]])
    three = decoded(BC1, b"\x1f\x00" + b"\x00\xf8" + codes)
    assert np.allclose(three[:4], [[0, 0, 1, 1], [1, 0, 0, 1], [0.5, 0, 0.5, 1], [0, 0, 0, 0]])
    assert decoded(DXT1_RGB, b"\x1f\x00" + b"\x00\xf8" + codes)[3].tolist() == [0, 0, 0, 1]


def test_bc2_has_four_bits_of_alpha_a_texel_and_always_four_colours() -> None:
    texels = decoded(BC2, bytes(range(8)) + b"\x1f\x00" + b"\x00\xf8" + bytes([0b11100100] * 4))
    assert np.allclose(texels[:4, 3] * 15, [0, 0, 1, 0])
    assert np.allclose(texels[3, :3], [2 / 3, 0, 1 / 3])


def test_bc4_ends_at_the_limits_where_its_first_end_is_not_the_larger() -> None:
    codes = (0b111_110_010_001_000).to_bytes(6, "little")
    assert np.allclose(decoded(BC4, b"\x10\x80" + codes)[:5, 0] * 255, [16, 128, 16 + 112 / 5, 0, 255])
    assert np.allclose(decoded(BC4, b"\x80\x10" + codes)[:5, 0] * 255, [128, 16, 112, 48, 32])


def test_the_lowest_number_of_bc4_with_signs_is_minus_one() -> None:
    assert decoded(BC4_SIGNED, b"\x80\x7f" + bytes(6))[0, 0] == -1


def test_srgb_formats_are_made_linear_but_for_alpha() -> None:
    block = b"\x10\x84" * 2 + bytes(4)
    plain, linear = decoded(BC1, block), decoded(BC1_SRGB, block)
    assert linear[0, 1] == pytest.approx(((plain[0, 1] + 0.055) / 1.055) ** 2.4)
    assert linear[0, 3] == 1


def test_eac_has_eleven_bits_and_steps_that_are_not_multiplied_where_the_factor_is_zero() -> None:
    codes = (0b111 << 45).to_bytes(6, "big")
    assert decoded(EAC, b"\x10\x10" + codes)[0, 0] == pytest.approx((16 * 8 + 4 + 14 * 8) / 2047)
    assert decoded(EAC, b"\x10\x00" + codes)[0, 0] == pytest.approx((16 * 8 + 4 + 14) / 2047)
    assert decoded(EAC_SIGNED, b"\x80\x10" + bytes(6))[0, 0] == -1


def test_a_block_without_the_opaque_bit_has_texels_that_are_not_there() -> None:
    # Base colour 8, 8, 8; the first texel has code 2.
    block = bytes([0x40, 0x40, 0x40, 0, 0, 1, 0, 0])
    texels = decoded(ETC2_PUNCHED, block)
    assert texels[0].tolist() == [0, 0, 0, 0]
    assert np.allclose(texels[1], [66 / 255] * 3 + [1])  # without a step
    assert decoded(ETC2_PUNCHED, block[:3] + b"\x02" + block[4:])[0, 3] == 1


SECOND_ROWS: dict[int, tuple[tuple[str, str], ...]] = {
    BC7: (
        ("0fa9e7aff119ce956af07075740bdd32", "83d2e6ff79c7dcff31c652ff49ce51ff"),
        ("be8cebdc742fa17e0f29484fdeac0c73", "57dbf8ffc6942bff7e6e36ffa6f0f6ff"),
        ("f47e8735c9873a0271161b0e9e1c91ba", "ef4229ff91b67cff4a0039ff622e67ff"),
        ("a89956ba8dc38f605452b8e38634290b", "4d1d2bff60137aff37198fff4d1d2bff"),
        ("30b8f7ac7396071e94d4fc3ed9fb8443", "9cceceef8aceceefd5efd6c6d5efd6c6"),
        ("e027ae23318e87ec7f26cd9038952289", "b91269e34e1c69c7711969d09615b3da"),
        ("c0a490279a33f37f807cf2daa81350ad", "9071dbf4844498fe8955b2fa864ba3fc"),
        ("805af747ce8beedd77ef2ad4a35fa2bd", "f7bedfae96bedf555a6dc929f2a9c9cf"),
    ),
    BC6_UNSIGNED: (
        ("58bce5cadbddcd6c6a169bac2619fa70", "c783d1ffbf9bc5ffca7ed5ffaf9facff"),
        ("c915e68f127927ab924468091e7e9f9c", "14ffffff5cff0eff5cff0eff5cff0eff"),
        ("42e4baec756ed8361d733aa8cff4d308", "260017ff2b0017ff2a0016ff280016ff"),
        ("e32f965402a9d33a779d985626abf02c", "09ffadff08fffdff0b6847ff0d382aff"),
        ("e6ebabfd218f19a50478862b3bb0afe8", "454000ff484600ff443800ff463a00ff"),
        ("e79b5a71ae2a05d422ebbff9d3d93878", "001212ff001018ff000f1bff001212ff"),
        ("2a5e3aa12721800f6cfcb515681c3246", "1606e3ff1606e3ff1706e2ff1706e3ff"),
        ("8bb77ad3ddd5574a5bcad6123db32443", "0f5244ff0d4336ff115a51ff115d55ff"),
        ("ced14f8ae19e9972f0d7a0e3574f16b4", "030b28ff030b28ff030b1aff05082bff"),
        ("cf543b90a9c94cd482443ab6223536b5", "ff250effff250effff250effff250eff"),
        ("b24b76daf8147442248c4c157c9268fb", "15ff50ff5fff62ffffff6fff66ff1dff"),
        ("36ce2c7af0155a416f6387a0446e6cdb", "6b1602ff3d2b01ff3d2b01ff6b1602ff"),
        ("7a69b4b92470b6b28573912a607e1f8d", "052e0eff053513ff061c05ff052e0eff"),
        ("1efe1c241bb1508e4aa43d8ebc26964b", "ff521cffff521cffff0073ffffff0bff"),
    ),
    ETC2: (
        ("1c6f5cf56889a9ab", "c8ffffffc8ffffff409584ff000000ff"),
        ("6e4fed662411318a", "9574ffff7857fcff5f47dbff4931c5ff"),
        ("8031d77a491e469b", "5a07acff913ee3ffeea3ffffa55aefff"),
        ("b913ec9ea3cb0f46", "8100b3ffcf22ffff0f0017ff97009fff"),
        ("4d8dc8bf6bdc8d2b", "9adcffff9adcffff3274b6ff3274b6ff"),
        ("fc514601a7c3fc73", "f74d3cffff5d4cfffd5342fff74d3cff"),
    ),
    ETC2_ALPHA: (
        ("31add754a31eaf841800cb324d2ff4f2", "0700bd3b0700bd132a12f98b543cff45"),
        ("a7c40e62f5734cc511551c7bd32ca671", "3eacdc1773acc917a9abb6bfdfaba217"),
    ),
}
"""Blocks, each mode of BC7 and BC6H among them, and their second row in eight bits."""


@pytest.mark.parametrize("code", SECOND_ROWS)
def test_random_blocks_are_decoded_as_another_decoder_does(code: int) -> None:
    for block, row in SECOND_ROWS[code]:
        found = np.clip(decoded(code, block)[4:8], 0, 1) * 255
        assert np.abs(found - np.frombuffer(bytes.fromhex(row), dtype=np.uint8).reshape(4, 4)).max() <= 1, block


def test_bc6_modes_that_are_reserved_are_black() -> None:
    assert decoded(BC6_UNSIGNED, b"\x13" + bytes([0xFF] * 15))[0].tolist() == [0, 0, 0, 1]
