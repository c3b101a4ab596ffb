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
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import urllib.response
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vfio_user_xe.emulator.guest.debian.signatures import signed_text
from vfio_user_xe.emulator.guest.errors import ExpiredSuites, FetchFailed, NotUsable

if TYPE_CHECKING:
    from pysequoia import Cert

_Answer = http.client.HTTPResponse | urllib.response.addinfourl

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
        """Read the text of a Release file.

        Raises:
            FetchFailed: a line of its files is none.
        """
        fields = dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*)$", text, re.MULTILINE))
        block = re.search(r"^SHA256:[ \t]*\n((?:[ \t].*\n?)*)", text, re.MULTILINE)
        files = {}
        for line in block[1].splitlines() if block else ():
            try:
                sha256, size, path = line.split()
                files[path] = Described(f"dists/{suite}/{path}", int(size), sha256)
            except ValueError as error:
                raise FetchFailed(f"the Release file of {suite} describes a file by {line!r}") from error
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
            NotSigned: none of the keys has signed it.
            FetchFailed: it cannot be had, or is none.
        """
        return Release.parse(suite, signed_text(self._in_release(suite), keys, f"InRelease of {suite}"))

    def unchecked_release(self, suite: str) -> Release:
        """A suite's Release file as anybody may have written it: to find keys that are then known by their fingerprints."""
        return Release.parse(suite, self._in_release(suite).decode("utf-8", "replace"))

    def _in_release(self, suite: str) -> bytes:
        content = bytearray()
        self._read(f"dists/{suite}/InRelease", _RELEASE_LIMIT, content.extend, content.clear)
        return bytes(content)

    def fetch(
        self,
        file: Described,
        target: Path,
        release: Release | None,
        arrived: Callable[[int], None],
        limit: int = sys.maxsize,
    ) -> None:
        """Put a file at `target`, if it is not there already; `arrived` is called with the bytes of each piece.

        With `release` it is one that this release lists, and is asked for by its hash where the mirror has it so.

        Raises:
            FetchFailed: it cannot be had, is not the one described, or is described with more than `limit` bytes.
            OSError: it cannot be written.
        """
        if not 0 <= file.size <= limit:
            raise FetchFailed(f"{self.address}/{file.path} has {file.size} bytes (allowed: {limit})")
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
            arriving = _Arriving(stack.enter_context(partial.open("wb")), arrived)
            for path in paths:
                try:
                    self._read(path, file.size, arriving.write, arriving.again)
                    arriving.file.flush()
                    if not _is(partial, file):
                        raise FetchFailed(
                            f"{self.address}/{path} is not what the archive describes: {arriving.size} bytes, where SHA-256 "
                            f"{file.sha256} of {file.size} bytes is wanted"
                        )
                except FetchFailed:
                    if path == paths[-1]:
                        raise
                    arriving.again()
                else:
                    break
            partial.replace(target)

    def _read(self, path: str, limit: int, write: Callable[[bytes], object], again: Callable[[], None]) -> None:
        """Read a file of the mirror, at most `limit` bytes of it; `again` is called before another try.

        Raises:
            FetchFailed: it cannot be had whole, or has more.
            OSError: from `write`.
        """
        address = f"{self.address}/{urllib.parse.quote(path, safe='/~+')}"
        for tried in range(_TRIES):
            try:
                answer = urllib.request.urlopen(address, timeout=_TIMEOUT)
            except (OSError, http.client.HTTPException) as error:
                problem: Exception | None = error
            else:
                with answer:
                    problem = _copy(answer, address, limit, write)
            if problem is None:
                return
            gone = isinstance(problem, urllib.error.HTTPError) and problem.code < 500
            if gone or tried + 1 == _TRIES or address.startswith("file:"):
                raise FetchFailed(f"{address} cannot be had: {problem}") from problem
            again()
            time.sleep(1 << tried)


class _Arriving:
    """A file that arrives, from its begin `again` if it must be; `arrived` is told of the bytes."""

    def __init__(self, file: IO[bytes], arrived: Callable[[int], None]) -> None:
        self.file, self._arrived, self.size = file, arrived, 0

    def write(self, piece: bytes) -> None:
        self.file.write(piece)
        self.size += len(piece)
        self._arrived(len(piece))

    def again(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self._arrived(-self.size)
        self.size = 0


def _copy(answer: _Answer, address: str, limit: int, write: Callable[[bytes], object]) -> Exception | None:
    """Write what the mirror sends, all of it; returns what went wrong with the mirror, which another try may mend.

    Raises:
        FetchFailed: it sends more than `limit` bytes.
        OSError: from `write`.
    """
    announced, got = answer.headers.get("Content-Length", ""), 0
    while True:
        try:
            piece = answer.read(min(_CHUNK, limit + 1 - got))
        except (OSError, http.client.HTTPException) as error:
            return error
        if not piece:
            break
        got += len(piece)
        if got > limit:
            raise FetchFailed(f"{address} is larger than {limit} bytes")
        write(piece)
    # http.client says nothing of a connection that ends early when it is read by pieces.
    if announced.isdecimal() and got < int(announced):
        return ConnectionError(f"it ended after {got} of {announced} bytes")
    return None


def _is(path: Path, file: Described) -> bool:
    """Whether a file is the one described."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
