"""Unmodified Mesa draws on the card: pictures equal those of its software renderer."""

from __future__ import annotations

import pytest

from tests.support.guest.gl_scenes import Difference, picture, program
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.userland import locate_userland
from vfio_user_xe.emulator.testing.lab import open_lab

pytestmark = pytest.mark.guest
SCENES = {
    "clear": 0, "triangle": 0, "nearest": 0, "linear": 0, "mipmap": 0, "depth": 4, "blend": 0, "stencil": 4,
    "scissor": 0, "cube": 8, "holes": 8, "clipped": 8, "points": 0, "lines": 8, "cubemap": 32, "volume": 0,
    "layers": 0, "shadow": 100, "instances": 0, "restart": 4, "samples": 8,
}  # fmt: skip
"""Each scene's pixels of 16384 that may differ by more than two steps: at edges of primitives, of cubes, and of comparisons."""
ON_THE_VF = ("clear", "cube", "samples")


@pytest.mark.timeout(900)
def test_pictures_on_the_pf_and_a_vf_equal_those_of_the_software_renderer() -> None:
    try:
        locate_userland("graphics")
    except GuestError as error:
        pytest.skip(str(error))
    files = {"/usr/bin/scenes": program(locate())}
    with open_lab(["--vfs", "1"], modules=["xe"], userland="graphics", memory=2048, files=files) as lab:
        lab.guest.run("modprobe xe", check=True, timeout=120)
        lab.card.call("ledger", clear=True)
        names = " ".join(SCENES)
        drawn = lab.guest.run(f"mkdir -p /tmp/card /tmp/soft; scenes /tmp/card {names}", check=True, timeout=400)
        assert "Arc" in drawn.stderr, drawn.stderr
        kinds = {row["kind"] for row in lab.card.call("ledger") if row["initiator"] == "pf"}
        assert {"3d vram", "eu vram"} <= kinds
        software = "LIBGL_ALWAYS_SOFTWARE=1"
        soft = lab.guest.run(f"{software} scenes /tmp/soft {names}", check=True, timeout=400)
        assert "llvmpipe" in soft.stderr, soft.stderr
        lab.guest.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs; mkdir /tmp/vf", check=True, timeout=120)
        lab.card.call("ledger", clear=True)
        second = f"GL_DEVICE=/dev/dri/renderD129 scenes /tmp/vf {' '.join(ON_THE_VF)}"
        lab.guest.run(second, check=True, timeout=400)
        assert "3d vram" in {row["kind"] for row in lab.card.call("ledger") if row["initiator"] == "vf1"}
        drawn_by = {"card": tuple(SCENES), "vf": ON_THE_VF}
        differences = {
            (folder, name): Difference.between(
                picture(lab.guest.get(f"/tmp/{folder}/{name}.pam")), picture(lab.guest.get(f"/tmp/soft/{name}.pam"))
            )
            for folder, scenes in drawn_by.items()
            for name in scenes
        }
    too_different = {key: found for key, found in differences.items() if found.noticeable > SCENES[key[1]]}
    assert not too_different, differences
