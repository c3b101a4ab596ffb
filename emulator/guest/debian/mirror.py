"""A Debian mirror read by Python: Release files with their signatures, and files whose hashes these have.

What is believed is a chain: a key signs InRelease, InRelease has the hash of each package list, a list that of each package. A file
appears under its name only when its hash was right. See https://wiki.debian.org/DebianRepository/Format.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import hashlib
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vfio_user_xe.emulator.guest.debian.signatures import signed_text
from vfio_user_xe.emulator.guest.errors import ExpiredSuites, FetchFailed, NotUsable

if TYPE_CHECKING:
    from pysequoia import Cert

_SCHEMES = ("http", "https", "file")
_TIMEOUT = 60.0
_TRIES = 3
_CHUNK = 1 << 18
_RELEASE_LIMIT = 16 << 20
"""Bytes: no InRelease file is near it."""
_CLOCKS = datetime.timedelta(minutes=10)
"""By how much the mirror's clock may be ahead of this machine's."""


@dataclass(frozen=True, slots=True)
class Described:
    """A file as a signed one describes it: its path below the mirror's address, bytes, SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """A suite's Release file: what it says of itself, and the files that it has the hashes of, by their path."""

    suite: str
    fields: dict[str, str]
    files: dict[str, Described]

    @staticmethod
    def parse(suite: str, text: str) -> Release:
        """Read the text of a Release file."""
        fields = dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*)$", text, re.MULTILINE))
        block = re.search(r"^SHA256:[ \t]*\n((?:[ \t].*\n?)*)", text, re.MULTILINE)
        files = {}
        for line in block[1].splitlines() if block else ():
            sha256, size, path = line.split()
            files[path] = Described(f"dists/{suite}/{path}", int(size), sha256)
        return Release(suite, fields, files)

    def check(self, accept_expired: bool) -> None:
        """That it is of this suite, and of now.

        Raises:
            ExpiredSuites: it is past its date, and that is not accepted.
            FetchFailed: it is of another suite, or of the future.
        """
        names = [self.fields.get(key, "") for key in ("Codename", "Suite")]
        if self.suite not in names:
            raise FetchFailed(f"the Release file of {self.suite} is that of {' or '.join(filter(None, names))}")
        now = datetime.datetime.now(datetime.UTC)
        made, ends = (_moment(self.fields.get(key, "")) for key in ("Date", "Valid-Until"))
        if made is not None and made > now + _CLOCKS:
            raise FetchFailed(f"the Release file of {self.suite} is of the future: {self.fields['Date']}")
        if ends is not None and ends < now and not accept_expired:
            raise ExpiredSuites(
                f"the Release file of {self.suite} has expired: it was valid until {self.fields['Valid-Until']}",
                (self.suite,),
            )


def _moment(text: str) -> datetime.datetime | None:
    if not text:
        return None
    try:
        found = email.utils.parsedate_to_datetime(text)
    except ValueError as error:
        raise FetchFailed(f"a Release file has a date that is none: {text!r}") from error
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


class Mirror:
    """A mirror at an address with its path, as http://HOST/debian."""

    def __init__(self, address: str) -> None:
        if urllib.parse.urlsplit(address).scheme not in _SCHEMES:
            raise NotUsable(f"{address}: is no address of a mirror (allowed: {', '.join(_SCHEMES)}, with the path)")
        self.address = address.rstrip("/")

    def release(self, suite: str, keys: Sequence[Cert]) -> Release:
        """A suite's Release file, its signature checked.

        Raises:
            FetchFailed: it cannot be had, or none of the keys has signed it.
        """
        return Release.parse(suite, signed_text(self._in_release(suite), keys, f"InRelease of {suite}"))

    def unchecked_release(self, suite: str) -> Release:
        """A suite's Release file as anybody may have written it: to find keys that are then known by their fingerprints."""
        return Release.parse(suite, self._in_release(suite).decode("utf-8", "replace"))

    def _in_release(self, suite: str) -> bytes:
        content = bytearray()
        self._read(f"dists/{suite}/InRelease", _RELEASE_LIMIT, content.extend, content.clear)
        return bytes(content)

    def fetch(self, file: Described, target: Path, release: Release | None, arrived: Callable[[int], None]) -> None:
        """Put a file at `target`, if it is not there already; `arrived` is called with the bytes of each piece.

        With `release` it is one that this release lists, and is asked for by its hash where the mirror has it so.

        Raises:
            FetchFailed: it cannot be had, or is not the one described.
        """
        if _is(target, file):
            arrived(file.size)
            return
        paths = [file.path]
        if release is not None and release.fields.get("Acquire-By-Hash") == "yes":
            # A copy of a mirror may lack those; what the usual name has is compared with the hash all the same.
            paths.insert(0, f"{file.path.rpartition('/')[0]}/by-hash/SHA256/{file.sha256}")
        partial = target.with_name(f"{target.name}.partial")
        with contextlib.ExitStack() as stack:
            stack.callback(partial.unlink, missing_ok=True)
            opened = stack.enter_context(partial.open("wb"))
            counted = 0

            def write(piece: bytes) -> None:
                nonlocal counted
                opened.write(piece)
                counted += len(piece)
                arrived(len(piece))

            def again() -> None:
                nonlocal counted
                opened.seek(0)
                opened.truncate()
                arrived(-counted)
                counted = 0

            try:
                self._read(paths[0], file.size, write, again)
            except FetchFailed:
                if len(paths) == 1:
                    raise
                again()
                self._read(paths[1], file.size, write, again)
            opened.flush()
            if not _is(partial, file):
                raise FetchFailed(
                    f"{self.address}/{file.path} is not what the archive describes: {counted} bytes, where SHA-256 "
                    f"{file.sha256} of {file.size} bytes is wanted"
                )
            partial.replace(target)

    def _read(self, path: str, limit: int, write: Callable[[bytes], object], again: Callable[[], None]) -> None:
        """Read a file of the mirror, at most `limit` bytes of it; `again` is called before another try."""
        address = f"{self.address}/{urllib.parse.quote(path, safe='/~+')}"
        for tried in range(_TRIES):
            try:
                with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
                    left = limit + 1
                    while left and (piece := answer.read(min(_CHUNK, left))):
                        write(piece)
                        left -= len(piece)
                if left == 0:
                    raise FetchFailed(f"{address} is larger than {limit} bytes")
            except (OSError, http.client.HTTPException) as error:
                gone = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if gone or tried + 1 == _TRIES or address.startswith("file:"):
                    raise FetchFailed(f"{address} cannot be had: {error}") from error
                again()
                time.sleep(1 << tried)
            else:
                return


def _is(path: Path, file: Described) -> bool:
    """Whether a file is the one described."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
