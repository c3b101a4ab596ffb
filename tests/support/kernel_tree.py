"""A stand-in for a kernel tree: it has what a build asks of one, and "builds" in no time.

Its bzImage is a boot header with the release, and behind it the text of the file `behaviour`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

MAKEFILE = r"""
.PHONY: tinyconfig bzImage modules modules_install
tinyconfig:
	printf 'CONFIG_SLUB_TINY=y\n' > $(O)/.config
bzImage:
	@! grep -q does-not-build behaviour || { echo "behaviour.c:7: error: it does not build"; exit 2; }
	mkdir -p $(O)/arch/x86/boot
	python3 -c "import struct; h = bytearray(1024); h[0x202:0x206] = b'HdrS'; struct.pack_into('<H', h, 0x20e, 0x100); \
	h[0x300:0x306] = b'9.9.9\0'; open('$(O)/arch/x86/boot/bzImage', 'wb').write(bytes(h) + open('behaviour', 'rb').read())"
modules:
	echo "LD [M] some.ko"
modules_install:
	mkdir -p $(INSTALL_MOD_PATH)/lib/modules/9.9.9/kernel
"""
MERGE = r"""#!/bin/sh
# -O FOLDER CONFIG FRAGMENT...: takes every option but VFIO.
folder=$2; shift 3
cat "$@" | grep -E '^CONFIG_' | grep -v '^CONFIG_VFIO=' >> "$folder/.config"
"""


def make_tree(folder: Path, behaviour: str = "good") -> Path:
    """Make the tree; returns its folder. The test is skipped where there is no make."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    (folder / "scripts" / "kconfig").mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "Kconfig").write_text("")
    merge = folder / "scripts" / "kconfig" / "merge_config.sh"
    merge.write_text(MERGE)
    merge.chmod(0o755)
    (folder / "behaviour").write_text(behaviour)
    return folder
