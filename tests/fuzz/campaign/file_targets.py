"""Files of the user's: card files and recordings that are damaged. They are refused in words, or read."""

from __future__ import annotations

import lzma
import tempfile
from pathlib import Path
from random import Random
from typing import ClassVar

from tests.fuzz.campaign.target import Target, dword
from vfio_user_xe.emulator.model.card import CardConfig, CardError
from vfio_user_xe.emulator.model.packaged_cards import packaged_cards
from vfio_user_xe.emulator.recording.format import Recording, RecordingError

_ROOT = Path(__file__).parents[3]
_WORDS = (
    '"xe"', '"edu"', '""', "[", "]", "{", "}", "[[x]]", "[device]", "=", "==", "\n", "#", '"""', "true", "false", "nan", "inf",
    "-1", "0x", "1e400", '"12 GB"', '"64 GiB"', '"0 GiB"', "vfs", "vram", "name", "interconnects", '["iov"]', '"iov:a=b,c"',
    "1979-05-27", "\x00", "\ufeff", "é", "'", "a.b.c", "device.vfs",
)  # fmt: skip
_LONGEST = 4000
"""Characters of an error."""
_READ = 2000
"""Events of a recording that a case reads at most."""


class CardFiles(Target):
    """Packaged card files with words put in, taken out, and turned over."""

    name, unit, fresh = "card-files", "files", 400
    seconds: ClassVar[float] = 30.0

    def open(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self._path = Path(self._folder.name) / "card.toml"
        self._files = [path.read_text() for paths in packaged_cards().values() for path in paths]

    def close(self) -> None:
        self._folder.cleanup()

    def case(self, random: Random) -> int:
        text = random.choice(self._files)
        for _ in range(random.randrange(1, 6)):
            at, end = sorted((random.randrange(len(text) + 1), random.randrange(len(text) + 1)))
            kind = random.randrange(4)
            if kind == 0:
                text = text[:at] + random.choice(_WORDS) + text[at:]
            elif kind == 1:
                text = text[:at] + text[min(end, at + 12) :]
            elif kind == 2:
                text = text[:at] + str(dword(random)) + text[at:]
            else:
                lines = text.splitlines(keepends=True) or [""]
                line = random.randrange(len(lines))
                lines[line] = lines[line].partition("=")[0] + "= " + random.choice(_WORDS) + "\n"
                text = "".join(lines)
        data = text.encode()
        if random.random() < 0.1:
            data = data[: random.randrange(len(data) + 1)] + random.randbytes(4)
        self._path.write_bytes(data)
        refused = _refusal(self._path)
        if refused is not None:
            assert self._path.name in refused, f"the error does not name the file: {refused}"
            assert len(refused) < _LONGEST, f"the error is a page long: {refused}"
        return 1


def _refusal(path: Path) -> str | None:
    """What is said of a card file that is wrong."""
    try:
        CardConfig.load(path)
    except CardError as error:
        return str(error)
    return None


class Recordings(Target):
    """A recording with bytes turned over, cut off, or its header damaged."""

    name, unit, fresh = "recordings", "recordings", 100
    seconds: ClassVar[float] = 60.0

    def open(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self._path = Path(self._folder.name) / "probe.xz"
        whole = (_ROOT / "tests/unit/xe/fixtures/probe.xz").read_bytes()
        self._packed, self._plain = whole, lzma.decompress(whole)[: 200 << 10]

    def close(self) -> None:
        self._folder.cleanup()

    def case(self, random: Random) -> int:
        packed = random.random() < 0.4
        data = bytearray(self._packed if packed else self._plain)
        header = data.find(b"\n") if not packed else 0
        for _ in range(random.randrange(1, 10)):
            limit = header if header > 0 and random.random() < 0.4 else len(data)
            data[random.randrange(limit)] = random.getrandbits(8)
        if random.random() < 0.3:
            del data[random.randrange(len(data)) :]
        self._path.write_bytes(bytes(data) if packed else lzma.compress(bytes(data), preset=0))
        try:
            recording = Recording(self._path)
            recording.header.config("fuzz")
            for number, _ in enumerate(recording.events()):
                if number == _READ:
                    break
        except (RecordingError, CardError):
            pass
        return 1
