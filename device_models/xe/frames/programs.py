"""The programs in the guest: `client/*.c`, a renderer, a compositor, and a display for other programs, on the device that `GL_DEVICE` names.

The guest's root file system has Mesa with EGL, OpenGL ES and GBM: the userland `graphics`. Messages between them are
docs/virtual-machine-frames.md.
"""

from __future__ import annotations

from pathlib import Path

from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.programs import SHARED_FLAGS, compile_program

SOURCES = Path(__file__).parent / "client"
RENDERER, COMPOSITOR, DISPLAY = "/usr/bin/frame-renderer", "/usr/bin/frame-compositor", "/usr/bin/frame-display"
"""Where the programs are in a guest."""
_DRAWS = ("gl", "message", "surface")
PARTS = {
    RENDERER: (*_DRAWS, "renderer", "scene"),
    COMPOSITOR: (*_DRAWS, "compositor", "source", "windows"),
    DISPLAY: ("buffers", "display", "message", "scanout", "wire"),
}
"""What each is made of: `client/NAME.c`."""
_LIBRARIES = ("-Wl,--no-as-needed", "-lm")


def gl_flags() -> tuple[str, ...]:
    """The compiler's flags for a program that uses `gl.h`."""
    return (*SHARED_FLAGS, f"-I{SOURCES}")


def gl_source() -> Path:
    """What `gl.h` declares."""
    return SOURCES / "gl.c"


def compiled(environment: Environment) -> dict[str, Path]:
    """All programs, by their paths in a guest.

    Raises:
        NoCompiler: this host has no C compiler.
        CompileError: a source does not compile.
    """
    return {
        path: compile_program(
            environment,
            Path(path).name,
            [SOURCES / f"{name}.c" for name in parts],
            flags=(*gl_flags(), *_LIBRARIES),
        )
        for path, parts in PARTS.items()
    }
