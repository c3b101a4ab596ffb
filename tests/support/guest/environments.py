"""A guest environment that nobody fetched."""

from __future__ import annotations

from pathlib import Path

from vfio_user_xe.emulator.guest.environment import Environment, Manifest, Qemu


def environment_in(root: Path = Path("/nonexistent"), qemu: Qemu | None = None) -> Environment:
    """An environment whose packages are unpacked in `root`, with this QEMU."""
    manifest = Manifest({}, "6.1.0-1-amd64", None, downloaded_bytes=0, installed_bytes=0, created="")
    return Environment(root, manifest, qemu or Qemu(("qemu-system-x86_64",)))
