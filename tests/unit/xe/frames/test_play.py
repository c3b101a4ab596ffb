"""Renderers and a compositor in a guest that is played: what is run there, and what is made of the answer."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest

from tests.support.viewer import pixels
from vfio_user_xe.device_models.xe.frames.picture import Difference, as_png, picture
from vfio_user_xe.device_models.xe.frames.play import Picture, PlayFailed, Source, play
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.scenarios.machine import Shell

SAID = """\
gl: Mesa
ready
composed 1 vm1=1 vm2=1 ms=1107 at=5000
gone vm2
composed 2 vm1=2 vm2=0 ms=86 at=6100
"""


def shell(returncode: int = 0, output: str = SAID) -> Shell:
    made: Shell = create_autospec(Shell, instance=True)
    made.run.return_value = Result(returncode, output.encode(), "", 1.0)
    return made


def script(made: Shell) -> str:
    return str(made.run.call_args.args[0])


def test_every_picture_is_told_with_the_frames_in_it() -> None:
    sources = [Source("vm1", "/dev/dri/renderD129"), Source("vm2", "/dev/dri/renderD130")]
    played = play(shell(), "/dev/dri/renderD128", sources, frames=2, folder="/tmp/there")
    assert played.pictures == (
        Picture("/tmp/there/composed-0001.pam", {"vm1": 1, "vm2": 1}, 1107, 5000),
        Picture("/tmp/there/composed-0002.pam", {"vm1": 2, "vm2": 0}, 86, 6100),
    )


def test_a_renderer_is_on_its_own_node_and_a_software_renderer_passes_memory() -> None:
    made = shell()
    play(made, None, [Source("vm1", "/dev/dri/renderD129", modifier="tile4"), Source("soft", None)], frames=3)
    first, second = (line for line in script(made).splitlines() if "frame-renderer" in line)
    assert first.startswith("GL_DEVICE=/dev/dri/renderD129 ")
    assert "--modifier tile4" in first
    assert "--memory" not in first
    assert second.startswith("LIBGL_ALWAYS_SOFTWARE=1 ")
    assert "--memory" in second
    assert "--windows vm1,soft" in script(made)


def test_frames_are_saved_only_if_somebody_wants_them() -> None:
    made = shell()
    play(made, None, [Source("vm1", None)], frames=1, folder="/tmp/x")
    assert script(made).count("--save") == 1
    play(made, None, [Source("vm1", None)], frames=1, folder="/tmp/x", save_frames=True)
    assert script(made).count("--save /tmp/x") == 2


def test_a_renderer_with_a_node_can_pass_copies_too() -> None:
    made = shell()
    play(made, None, [Source("vm1", "/dev/dri/renderD129", copied=True)], frames=1, save=False)
    assert "GL_DEVICE=/dev/dri/renderD129 /usr/bin/frame-renderer" in script(made)
    assert "--memory" in script(made)
    assert "--save" not in script(made)


def test_a_program_that_fails_is_an_error_with_what_all_of_them_said() -> None:
    with pytest.raises(PlayFailed, match="frames from vm1 were not shown:\ngl: no display"):
        play(shell(1, "gl: no display\n"), None, [Source("vm1", None)], frames=1)


def pam(*rows: tuple[tuple[int, int, int, int], ...]) -> bytes:
    header = f"P7\nWIDTH {len(rows[0])}\nHEIGHT {len(rows)}\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    return header.encode() + bytes(channel for row in rows for pixel in row for channel in pixel)


def test_a_pam_is_read_row_by_row_also_when_its_pixels_look_like_a_header() -> None:
    found = picture(pam(((1, 2, 3, 4), *(tuple(b"ENDH"), tuple(b"DR\n\0"))), ((5, 6, 7, 8),) * 3))
    assert found.shape == (2, 3, 4)
    assert found[0, 0].tolist() == [1, 2, 3, 4]
    assert found[1, 2].tolist() == [5, 6, 7, 8]


def test_a_pam_becomes_a_png_without_alpha(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(as_png(pam(((1, 2, 3, 0), (255, 0, 9, 7)))))
    assert pixels(file) == [[(1, 2, 3), (255, 0, 9)]]


def test_a_difference_counts_pixels_by_their_worst_channel() -> None:
    one = np.zeros((2, 2, 4), dtype=np.int64)
    other = one.copy()
    other[0, 0] = [2, 2, 2, 2]
    other[1, 1] = [0, 3, 0, 90]
    assert Difference.between(one, other) == Difference(worst=90, noticeable=1)
