"""Signatures of Debian's archive, checked by Sequoia (the package pysequoia).

The keys are those of a keyring: the user's own, or the one of the package debian-archive-keyring where the machine has it. Where
it has none, they come from the mirror, and only those whose fingerprints are below are believed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vfio_user_xe.emulator.guest.debian.packages import KEYRINGS
from vfio_user_xe.emulator.guest.errors import MissingEnvironment, NotSigned, NotUsable

if TYPE_CHECKING:
    from pysequoia import Cert

# https://ftp-master.debian.org/keys.html: fingerprints of the primary keys.
FINGERPRINTS = frozenset(
    {
        "b8b80b5b623eab6ad8775c45b7c5d7d6350947f8",  # Debian Archive Automatic Signing Key (12/bookworm)
        "04b54c3cdca79751b16bc6b5225629df75b188bd",  # Debian Archive Automatic Signing Key (13/trixie)
        "4d64fec119c2029067d6e791f8d2585b8783d481",  # Debian Stable Release Key (12/bookworm)
        "41587f7db8c774bccf131416762f67a0b2c39de4",  # Debian Stable Release Key (13/trixie)
    }
)


def require_sequoia() -> None:
    """Make sure that signatures can be checked.

    Raises:
        MissingEnvironment: pysequoia is not installed; the text has the command.
    """
    try:
        import pysequoia  # noqa: F401
    except ImportError as error:
        raise MissingEnvironment(
            f"Signatures of Debian's archive cannot be checked: {error}. Install the extra: "
            "pip install 'vfio-user-xe[fetch]' (with pipx: pipx inject vfio-user-xe pysequoia)."
        ) from None


def read_keyring(file: Path | None) -> list[Cert]:
    """The keys of the user's keyring, without one of Debian's on this machine; none where there is none that can be read.

    Raises:
        NotUsable: the user's keyring cannot be read.
    """
    from pysequoia import Cert

    if file is None:
        for path in map(Path, KEYRINGS):
            with contextlib.suppress(OSError, RuntimeError):
                return Cert.split_bytes(path.read_bytes())
        return []
    try:
        found = Cert.split_bytes(file.read_bytes())
    except OSError as error:
        raise NotUsable(f"{file}: cannot be read: {error.strerror}") from error
    except RuntimeError as error:
        raise NotUsable(f"{file}: is no keyring: {_first_line(error)}") from error
    if not found:
        raise NotUsable(f"{file}: is no keyring: there is no key in it")
    return found


def known_keys(keyrings: Sequence[bytes]) -> list[Cert]:
    """Those keys of keyrings from anywhere that are Debian's, by their fingerprints."""
    from pysequoia import Cert

    keys: dict[str, Cert] = {}
    for keyring in keyrings:
        try:
            keys |= {key.fingerprint.lower(): key for key in Cert.split_bytes(keyring)}
        except RuntimeError:
            continue
    return [key for fingerprint, key in keys.items() if fingerprint in FINGERPRINTS]


def signed_text(document: bytes, keys: Sequence[Cert], what: str) -> str:
    """The text of a document signed in the clear, as it was signed.

    Raises:
        NotSigned: none of the keys has signed it.
    """
    from pysequoia import verify

    try:
        verified = verify(bytes=document, store=lambda ids: list(keys))
    except RuntimeError as error:
        raise NotSigned(f"{what} is not signed by a key of Debian's archive: {_first_line(error)}") from None
    if not verified.valid_sigs or verified.bytes is None:
        raise NotSigned(f"{what} is not signed by a key of Debian's archive")
    return verified.bytes.decode("utf-8", "replace")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
