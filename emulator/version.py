"""What this installation is: its version, the commit that it was made from, the guest environment beside it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path

from vfio_user_xe.emulator import API_VERSION
from vfio_user_xe.emulator.guest import environment
from vfio_user_xe.emulator.guest.errors import GuestError

DISTRIBUTION = "vfio-user-xe"
_HERE = Path(__file__).resolve().parent


def commit() -> str:
    """The commit: of a checkout git's, with "-dirty" where files differ; of a distribution what it was built from; "" if unknown."""
    root = _HERE.parent
    if (root / ".git").exists():
        # Without the lock of the index, which would make a `git commit` beside it fail.
        command = ["git", "--no-optional-locks", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"]
        try:
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""
    file = _HERE / "commit.txt"
    if file.is_file():
        return file.read_text("ascii").strip()[:12]
    return _installed_from()[:12]


def _installed_from() -> str:
    """The commit that pip fetched, where it was asked for one of a repository (PEP 610)."""
    text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    try:
        return str(json.loads(text or "{}").get("vcs_info", {}).get("commit_id", ""))
    except ValueError:
        return ""


def described() -> str:
    """Version, commit, and what guests would be of, a line each."""
    made_from = commit()
    about = f" (commit {made_from})" if made_from else ""
    lines = [
        f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}{about}, plug-in API {'.'.join(map(str, API_VERSION))}"
    ]
    try:
        found = environment.locate()
    except GuestError:
        lines.append("guest environment: none (vfio-user-xe guest fetch)")
    else:
        manifest = found.manifest
        lines.append(f"guest environment: {found.qemu}, kernel {manifest.kernel}, of {manifest.created[:10]}")
    return "\n".join(lines)
