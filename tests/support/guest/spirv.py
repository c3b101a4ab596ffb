"""Shaders of `tests/guest/programs/vk/shaders` as SPIR-V in a C header: `python -m tests.support.guest.spirv` writes it anew.

That needs glslangValidator (Debian: glslang-tools); nothing else does, since the header is a part of the sources.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "guest" / "programs" / "vk"
HEADER = FOLDER / "shaders.h"
_VARIANTS: dict[str, tuple[str, ...]] = {
    "culled_mesh": ("discs.mesh", "-DCULLED"),
    "numbered_mesh": ("tiles.mesh", "-DNUMBERED"),
}
"""Further arrays, by name: of which shader, with which option."""
_WORDS = 12
"""Of a line."""


def sources() -> dict[str, tuple[str, ...]]:
    """The name of a shader's file, and options, by its array's name."""
    shaders = sorted((FOLDER / "shaders").iterdir())
    named: dict[str, tuple[str, ...]] = {path.name.replace(".", "_"): (path.name,) for path in shaders}
    return named | _VARIANTS


def key() -> str:
    """A hash of all that the header is made of."""
    parts = [
        f"{name} {' '.join(made)}\n{(FOLDER / 'shaders' / made[0]).read_text()}" for name, made in sources().items()
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def header() -> str:
    """The header's text.

    Raises:
        FileNotFoundError: there is no glslangValidator.
        subprocess.CalledProcessError: a shader does not compile.
    """
    lines = [f"/* Made of shaders/ ({key()}) by `python -m tests.support.guest.spirv`. */"]
    for name, (file, *options) in sources().items():
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "code"
            command = ["glslangValidator", "-V", "--target-env", "vulkan1.3", *options, str(FOLDER / "shaders" / file)]
            subprocess.run([*command, "-o", str(target)], check=True, stdout=sys.stderr)
            words = memoryview(target.read_bytes()).cast("I").tolist()
        lines.append(f"static const uint32_t {name}[] = {{")
        lines += [
            "\t" + " ".join(f"{word:#x}," for word in words[at : at + _WORDS]) for at in range(0, len(words), _WORDS)
        ]
        lines.append("};")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    HEADER.write_text(header())
