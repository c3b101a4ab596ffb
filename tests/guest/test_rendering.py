"""Unmodified Mesa draws on the card: pictures equal those of its software renderer."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.support.guest import vk_scenes
from tests.support.guest.gl_scenes import program
from vfio_user_xe.device_models.xe.frames.picture import Difference, picture
from vfio_user_xe.device_models.xe.frames.play import Source, frame_path, patient, play
from vfio_user_xe.device_models.xe.frames.programs import COMPOSITOR, compiled
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.userland import locate_userland
from vfio_user_xe.emulator.testing.lab import Lab, open_lab

pytestmark = pytest.mark.guest
SCENES = {
    "clear": 0, "triangle": 0, "nearest": 0, "linear": 0, "mipmap": 0, "depth": 4, "blend": 0, "stencil": 4,
    "scissor": 0, "cube": 8, "holes": 8, "clipped": 8, "points": 0, "lines": 8, "cubemap": 32, "volume": 0,
    "layers": 0, "shadow": 100, "instances": 0, "restart": 4, "samples": 8, "compressed": 0, "offsets": 0, "feedback": 0,
    "triangles": 1800, "quads": 0, "isolines": 8, "neighbours": 0, "tallies": 0, "numbers": 8, "grid": 0,
}  # fmt: skip
"""Each scene's pixels of 16384 that may differ by more than two steps: at edges of primitives, of cubes, and of comparisons; and
where triangles of a patch are connected otherwise ("triangles", whose places are not linear in the domain's)."""
MESHES = {"discs": 8, "indirect": 0}
"""As `SCENES`, of Vulkan."""
ON_THE_VF = ("clear", "cube", "samples")


FRAME_TOLERANCE = 8
"""Pixels of a composed picture that may differ by more than two steps: at edges of the cubes."""
PF_NODE, VF_NODE = "/dev/dri/renderD128", "/dev/dri/renderD129"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """PF and VF in one guest, both driven by xe."""
    try:
        locate_userland("graphics")
    except GuestError as error:
        pytest.skip(str(error))
    meshes = vk_scenes.program(locate())
    files = {"/usr/bin/scenes": program(locate()), "/usr/bin/meshes": meshes, **compiled(locate())}
    with open_lab(["--vfs", "1"], modules=["xe"], userland="graphics", memory=2048, files=files) as opened:
        opened.guest.run("modprobe xe", check=True, timeout=120)
        opened.guest.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", check=True, timeout=120)
        patient(opened.guest)
        # xe gives VFs 16 ms to give an engine up, and the GuC resets a context that takes longer: a draw on a busy host.
        limits = "/sys/bus/pci/devices/0000:01:00.0/sriov_admin/.bulk_profile"
        opened.guest.run(f"echo 0 >{limits}/preempt_timeout_us", check=True)
        yield opened


@pytest.mark.timeout(900)
def test_pictures_on_the_pf_and_a_vf_equal_those_of_the_software_renderer(lab: Lab) -> None:
    lab.card.call("ledger", clear=True)
    names = " ".join(SCENES)
    lab.sh("mkdir -p /tmp/card /tmp/soft /tmp/vf")
    drawn = lab.guest.run(f"GL_DEVICE={PF_NODE} scenes /tmp/card {names}", check=True, timeout=400)
    assert "Arc" in drawn.stderr, drawn.stderr
    kinds = {row["kind"] for row in lab.card.call("ledger") if row["initiator"] == "pf"}
    assert {"3d vram", "eu vram"} <= kinds
    software = "LIBGL_ALWAYS_SOFTWARE=1"
    soft = lab.guest.run(f"{software} scenes /tmp/soft {names}", check=True, timeout=400)
    assert "llvmpipe" in soft.stderr, soft.stderr
    lab.card.call("ledger", clear=True)
    lab.guest.run(f"GL_DEVICE={VF_NODE} scenes /tmp/vf {' '.join(ON_THE_VF)}", check=True, timeout=400)
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


@pytest.mark.timeout(900)
def test_meshes_of_the_card_equal_those_of_the_software_renderer(lab: Lab) -> None:
    """Tasks that launch groups, barriers, shared memory, data of primitives, culling, draws from memory."""
    lab.sh("mkdir -p /tmp/card /tmp/soft")
    names = " ".join(MESHES)
    drawn = lab.guest.run(f"VK_DEVICE=Arc meshes /tmp/card {names} culled", check=True, timeout=400)
    # Four tasks of 40 invocations launch nine groups of 64, each with 20 triangles.
    assert drawn.stdout.split("\n")[:3] == ["task invocations 160", "mesh invocations 576", "primitives 180"]
    # With wider vectors its compiler ends at shaders with barriers ("Cannot emit physreg copy instruction").
    soft = lab.guest.run(
        f"LP_NATIVE_VECTOR_WIDTH=128 VK_DEVICE=llvmpipe meshes /tmp/soft {names}", check=True, timeout=600
    )
    assert "llvmpipe" in soft.stderr
    for name, most in MESHES.items():
        found, wanted = (picture(lab.guest.get(f"/tmp/{folder}/{name}.pam")) for folder in ("card", "soft"))
        assert Difference.between(found, wanted).noticeable <= most, name
    # lavapipe culls all primitives of such a shader; here a twentieth of each disc shows what is behind it.
    whole, culled = (picture(lab.guest.get(f"/tmp/card/{name}.pam")) for name in ("discs", "culled"))
    differs = (whole != culled).any(axis=2)
    behind = culled[0, 0]
    assert (culled[differs] == behind).all()
    assert 15 <= (whole != behind).any(axis=2).sum() / differs.sum() <= 25


@pytest.mark.timeout(900)
def test_the_pf_shows_frames_in_the_memory_of_a_vf_without_a_copy(lab: Lab) -> None:
    """Linear and tiled at once: two renderers on the VF, one compositor on the PF, both windows in each picture.

    The tiled surface is replaced by a smaller one for its second frame.
    """
    sources = [
        Source("linear", VF_NODE, width=160, height=100),
        Source("tiled", VF_NODE, width=160, height=100, modifier="tile4", hue=1, resize=2),
    ]
    lab.card.call("ledger", clear=True)
    shown = play(lab.guest, PF_NODE, sources, frames=2, width=400, height=150, folder="/tmp/shown")
    rows = [row for row in lab.card.call("ledger") if (row["initiator"], row["owner"]) == ("pf", "vf1")]
    soft = [replace(source, node=None) for source in sources]
    expected = play(lab.guest, None, soft, frames=2, width=400, height=150, folder="/tmp/expected")
    assert [found.frames for found in shown.pictures] == [{"linear": n, "tiled": n} for n in (1, 2)], shown.said
    for found, wanted in zip(shown.pictures, expected.pictures, strict=True):
        difference = Difference.between(picture(lab.guest.get(found.path)), picture(lab.guest.get(wanted.path)))
        assert difference.noticeable <= FRAME_TOLERANCE, difference
    # Every pixel of every frame was sampled where it lies, through the VF's BAR: this kernel has no mappings by device address.
    (sampled,) = [row for row in rows if row["kind"].startswith("eu")]
    assert (sampled["interconnect"], sampled["kind"]) == ("p2p", "eu system")
    assert sampled["bytes_read"] >= 4 * 160 * 100 * 3 + 4 * 80 * 50
    assert not any(row["bytes_written"] for row in rows)


@pytest.mark.timeout(600)
def test_a_screenshot_shows_what_the_vf_drew_last_and_the_compositor_lets_go_when_it_is_asked_to(lab: Lab) -> None:
    """While the renderer holds its frame, with nothing read back: the card looks into its Tile4 buffer."""
    held = Source("held", VF_NODE, width=120, height=80, modifier="tile4")
    soft = replace(held, node=None)
    play(lab.guest, None, [soft], frames=1, width=160, height=120, folder="/tmp/soft-held", save_frames=True)
    drawn = picture(lab.guest.get(frame_path("/tmp/soft-held", soft, 1)))[:, :, :3]
    lab.guest.run(
        f"mkdir -p /tmp/held; cd /tmp/held; mkfifo stays\n"
        f"GL_DEVICE={PF_NODE} {COMPOSITOR} --socket socket --windows held --width 160 --height 120 >compositor 2>&1 &\n"
        "echo $! >pid; until grep -q ^ready compositor; do kill -0 $(cat pid) || exit 1; sleep 0.2; done\n"
        f"{held.command} --socket socket --frames 1 --revoke --hold <stays >renderer 2>&1 &\n"
        "pid=$!; sleep 1000 >stays & echo $! >holder\n"
        "until grep -q frames= renderer; do kill -0 $pid || exit 1; sleep 0.2; done",
        check=True,
        timeout=300,
    )
    try:
        shown = lab.card.call("screenshot", function="vf1")
        attached = re.findall(r"Total (\d+) devices attached", lab.sh("cat /sys/kernel/debug/dma_buf/bufinfo"))
    finally:
        lab.guest.run("cd /tmp/held; kill $(cat holder)")
    assert set(attached) == {"0"}, "the PF's driver still has a buffer after `released`"
    assert (shown["width"], shown["height"], shown["tiling"]) == (120, 80, "tile4")
    pixels = np.frombuffer(base64.b64decode(shown["pixels"]), dtype=np.uint8).reshape(80, 120, 3)
    assert Difference.between(pixels.astype(np.int64), drawn).noticeable <= FRAME_TOLERANCE
