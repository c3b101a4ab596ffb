"""A Debian archive in a folder: packages, package lists, Release files signed by a key of its own."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pysequoia import SignatureMode, Tsk, sign

from vfio_user_xe.emulator.guest.debian.packages import COMPONENTS, SUITES


def package(files: Mapping[str, bytes]) -> bytes:
    """A package file with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": made.getvalue()}
    packed = b"!<arch>\n"
    for name, content in members.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        packed += b"\n" * (len(content) % 2)
    return packed


@dataclass
class Archive:
    """The archive in `root`; its address is `address`."""

    root: Path
    key: Tsk = field(default_factory=lambda: Tsk.generate("Archive <archive@example.org>"))
    stanzas: dict[str, list[str]] = field(default_factory=lambda: {suite: [] for suite in SUITES})

    @property
    def address(self) -> str:
        """What --mirror is given."""
        return self.root.as_uri()

    @property
    def keyring(self) -> Path:
        """A file with the archive's key."""
        file = self.root / "keyring.pgp"
        self.root.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(self.key.extract_certificate()))
        return file

    def add(
        self,
        name: str,
        version: str = "1",
        suite: str = SUITES[0],
        files: Mapping[str, bytes] | None = None,
        **fields: str,
    ) -> Path:
        """Put a package into a suite's list; fields of its stanza have `_` for `-`."""
        content = package(files or {f"usr/share/{name}": version.encode()})
        path = self.root / f"pool/{name}_{version.replace(':', '%3a')}_amd64.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        said = {"Package": name, "Version": version, **{key.replace("_", "-"): text for key, text in fields.items()}}
        said |= {
            "Filename": str(path.relative_to(self.root)),
            "Size": str(len(content)),
            "SHA256": hashlib.sha256(content).hexdigest(),
        }
        self.stanzas.setdefault(suite, []).append("".join(f"{key}: {text}\n" for key, text in said.items()))
        return path

    def publish(self, suite: str | None = None, **fields: str) -> None:
        """Write the package lists and signed Release files of all suites, or of one with these fields in its Release file."""
        for each in [suite] if suite else self.stanzas:
            said = {"Codename": each, **{key.replace("_", "-"): text for key, text in fields.items()}}
            text = "".join(f"{key}: {value}\n" for key, value in said.items()) + "SHA256:\n"
            for component in COMPONENTS:
                stanzas = self.stanzas[each] if component == COMPONENTS[0] else []
                listed = lzma.compress("\n".join(stanzas).encode())
                name = f"{component}/binary-amd64/Packages.xz"
                path = self.root / "dists" / each / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(listed)
                text += f" {hashlib.sha256(listed).hexdigest()} {len(listed)} {name}\n"
            signed = sign(self.key.signer(), text.encode(), mode=SignatureMode.CLEAR)
            (self.root / "dists" / each / "InRelease").write_bytes(signed)
