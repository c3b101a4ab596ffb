"""Renderers and a compositor at once in one guest.

played = play(lab.guest, "/dev/dri/renderD128", [Source("vm1", "/dev/dri/renderD129", modifier="tile4")], frames=2)
picture(lab.guest.get(played.pictures[0]))
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from vfio_user_xe.device_models.xe.frames.programs import COMPOSITOR, RENDERER
from vfio_user_xe.emulator.scenarios.machine import Shell

_SOFTWARE = "LIBGL_ALWAYS_SOFTWARE=1"
_COMPOSED = re.compile(r"^composed (\d+) (.*) ms=(\d+) at=(\d+)$", re.MULTILINE)


class PlayFailed(Exception):
    """A program ended with an error; the text has what all of them said."""


@dataclass(frozen=True)
class Source:
    """A renderer; sizes in pixels."""

    name: str
    node: str | None
    """The render node that draws, None: Mesa's software renderer, whose frames are copied by the processor."""
    width: int = 320
    height: int = 200
    modifier: str = "linear"
    """Of its buffers: "linear", "x" or "tile4"."""
    hue: int = 0
    copied: bool = False
    """Frames are read back and passed in system memory, as without dma-bufs; always so in software."""
    resize: int = 0
    """The frame from which on it has half the width and height; 0: none."""

    @property
    def command(self) -> str:
        """Without the socket and the number of frames."""
        how = "--memory" if self.copied or not self.node else f"--modifier {self.modifier}"
        size = f"--width {self.width} --height {self.height}"
        more = f"--hue {self.hue} --resize {self.resize}"
        return f"{_device(self.node)} {RENDERER} --name {shlex.quote(self.name)} {size} {how} {more}"


@dataclass(frozen=True)
class Picture:
    """One that the compositor drew."""

    path: str
    """In the guest: a PAM, its top row first."""
    frames: dict[str, int]
    """The frame of each source, 0 where its window is dark."""
    milliseconds: int
    """That the compositor spent on it, saving included."""
    at: int
    """When it was there: milliseconds of the guest's monotonic clock."""


@dataclass(frozen=True)
class Play:
    """What came of it."""

    pictures: tuple[Picture, ...]
    said: str
    """What the programs printed."""


def play(
    shell: Shell,
    compositor: str | None,
    sources: Sequence[Source],
    *,
    frames: int,
    width: int = 640,
    height: int = 240,
    folder: str = "/tmp/frames",
    save: bool = True,
    save_frames: bool = False,
    timeout: float = 300,
) -> Play:
    """Let every source draw `frames` frames, and compose each set of them on the render node `compositor` (None: in software).

    Without `save` no picture is written; with `save_frames` renderers write what they draw, too: `frame_path` says where.

    Raises:
        PlayFailed: a program failed.
        GuestError: it takes longer than `timeout` seconds, or the guest does not answer.
    """
    names = ",".join(source.name for source in sources)
    saved = f"--save {folder}" if save else ""
    options = f"--windows {shlex.quote(names)} --width {width} --height {height} --together {saved}"
    lines = [
        f"rm -rf {folder}; mkdir -p {folder}; cd {folder}; failed=0",
        f"{_device(compositor)} {COMPOSITOR} --socket {folder}/socket {options} >compositor.log 2>&1 &",
        "compositor=$!",
        "until grep -q ^ready compositor.log; do",
        "  kill -0 $compositor 2>/dev/null || { cat compositor.log; exit 1; }; sleep 0.2",
        "done",
        "renderers=",
    ]
    saving = f"--save {folder}" if save_frames else ""
    for number, source in enumerate(sources):
        more = f"--socket {folder}/socket --frames {frames} {saving}"
        lines.append(f"{source.command} {more} >source{number}.log 2>&1 &")
        lines.append('renderers="$renderers $!"')
    lines += [
        "for renderer in $renderers; do wait $renderer || failed=1; done",
        "if [ $failed = 1 ]; then kill $compositor 2>/dev/null; fi",
        "wait $compositor || failed=1",
        "cat compositor.log source*.log; exit $failed",
    ]
    done = shell.run("\n".join(lines), timeout=timeout)
    if done.returncode:
        raise PlayFailed(f"frames from {names} were not shown:\n{done.stdout}{done.stderr}")
    return Play(pictures(done.stdout, folder), done.stdout)


def pictures(said: str, folder: str) -> tuple[Picture, ...]:
    """What a compositor says that it has drawn, and saved in `folder`."""
    return tuple(
        Picture(f"{folder}/composed-{int(number):04}.pam", _frames(shown), int(taken), int(at))
        for number, shown, taken, at in _COMPOSED.findall(said)
    )


def patient(shell: Shell) -> None:
    """Give jobs of all xe devices of the guest as long as the driver allows, and as long to be preempted: on a busy host
    a large draw is no hang.

    Raises:
        CommandFailed: there is no xe device, or it has no such limits.
    """
    engines = "/sys/class/drm/card*/device/tile*/gt*/engines/*"
    limits = f"{engines}/job_timeout_ms {engines}/preempt_timeout_us"
    shell.run(f'for limit in {limits}; do cat "${{limit%_*}}_max" >"$limit" || exit 1; done', check=True)


def frame_path(folder: str, source: Source, frame: int) -> str:
    """Where a renderer writes a frame: a PAM, its top row first."""
    return f"{folder}/{source.name}-{frame:04}.pam"


def _device(node: str | None) -> str:
    return f"GL_DEVICE={shlex.quote(node)}" if node else _SOFTWARE


def _frames(shown: str) -> dict[str, int]:
    return {name: int(frame) for name, frame in (part.split("=") for part in shown.split())}
