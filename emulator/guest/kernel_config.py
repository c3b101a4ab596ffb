"""Fragments of a kernel's configuration that say what each option is for, and what is lost without it.

    ## locks: slow                        a row: what its options are for, and a remark
    #! ACPI PCI: no function is found     without one of these options nothing can be run
    #- LOCKDEP: deadlocks are not told    what is lost without these
    #- verdicts lose something            what is lost without any other option of the row
    CONFIG_PROVE_LOCKING=y

The same files are what the kernel's scripts/kconfig/merge_config.sh takes: all of this is comments to it.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vfio_user_xe.emulator.guest.errors import NotUsable
from vfio_user_xe.emulator.guest.kernel import Kernel, object_folder
from vfio_user_xe.emulator.guest.vmlinux import payload

OFF = "n"
"""The value of an option that is not set."""

_OPTION = re.compile(r"CONFIG_(\w+)=(.+)|# CONFIG_(\w+) is not set")
_LOSS = re.compile(r"#([!-]) (?:((?:[A-Z0-9_]+ )*[A-Z0-9_]+): )?(.+)")
_BEGIN, _END = b"IKCFG_ST", b"IKCFG_ED"
"""Around the compressed configuration in an image that has it (kernel/configs.c, CONFIG_IKCONFIG)."""


class ConfigError(NotUsable):
    """A configuration cannot be read or found; the text names the file and what would do."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What is lost without one of `options`, or, where it names none, without any other of the row; `fatal`: everything."""

    text: str
    options: tuple[str, ...] = ()
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Options with what they are for; `wanted` has their values by name, without CONFIG_."""

    purpose: str
    remark: str
    wanted: Mapping[str, str]
    losses: tuple[Loss, ...] = ()

    def loss(self, option: str) -> Loss | None:
        """What is lost without an option of the row; None where nobody says."""
        named = next((loss for loss in self.losses if option in loss.options), None)
        return named or next((loss for loss in self.losses if not loss.options), None)


@dataclass(frozen=True, slots=True)
class Missing:
    """An option that is not as it is wanted. `has` is "n" where it is not set."""

    option: str
    wanted: str
    has: str
    purpose: str
    loss: str
    fatal: bool


def rows(file: Path) -> list[Row]:
    """The rows of a fragment.

    Raises:
        ValueError: a line is neither an option nor a comment, or comes before the first row; or a loss names an option that
            the row does not have.
    """
    found: list[Row] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            purpose, _, remark = line.removeprefix("## ").partition(": ")
            found.append(Row(purpose, remark, {}))
            continue
        option, loss = _OPTION.fullmatch(line), _LOSS.fullmatch(line)
        if (option or loss) and not found:
            raise ValueError(f"{file.name}: {line} belongs to no row")
        if option:
            name, value, off = option.groups()
            last = found[-1]
            found[-1] = Row(last.purpose, last.remark, {**last.wanted, off or name: value or OFF}, last.losses)
        elif loss:
            last = found[-1]
            made = Loss(loss[3], tuple((loss[2] or "").split()), loss[1] == "!")
            found[-1] = Row(last.purpose, last.remark, last.wanted, (*last.losses, made))
        elif line and not line.startswith("#"):
            raise ValueError(f"{file.name}: {line!r} is no option")
    for row in found:
        for item in row.losses:
            if unknown := [name for name in item.options if name not in row.wanted]:
                raise ValueError(f"{file.name}: {row.purpose}: a loss names {unknown[0]}, which the row does not have")
    return found


def table(file: Path) -> str:
    """The rows in Markdown: what for, which options, what is lost without them."""
    lines = ["| for | options | without them |", "|---|---|---|"]
    for row in rows(file):
        options = " ".join(
            f"{name}" if value in ("y", OFF) else f"{name}={value}" for name, value in row.wanted.items()
        )
        told = f"; {row.remark}" if row.remark else ""
        losses = "; ".join(
            f"{' '.join(f'`{name}`' for name in loss.options)}: {loss.text}" if loss.options else loss.text
            for loss in row.losses
        )
        lines.append(f"| {row.purpose} | `{options}`{told} | {losses} |")
    return "\n".join(lines)


def missing(config: Mapping[str, str], wanted: Iterable[Row]) -> list[Missing]:
    """What a configuration lacks. An option that is to be off counts only where a loss names it."""
    found = []
    for row in wanted:
        for name, value in row.wanted.items():
            has, loss = config.get(name, OFF), row.loss(name)
            named = loss is not None and name in loss.options
            if _serves(has, value, fatal=loss is not None and loss.fatal) or (value == OFF and not named):
                continue
            text, fatal = (loss.text, loss.fatal) if loss is not None else ("", False)
            found.append(Missing(name, value, has, row.purpose, text, fatal))
    return found


def _serves(has: str, wanted: str, *, fatal: bool) -> bool:
    if wanted.isdecimal():
        return has.isdecimal() and int(has) >= int(wanted)
    if wanted == OFF:
        return has == OFF
    return has == "y" or (has == "m" and (wanted == "m" or not fatal))


def parse(text: str) -> dict[str, str]:
    """A configuration: values by name, without CONFIG_; what is not set is left out."""
    return {
        match[1]: match[2].strip('"') for line in text.splitlines() if (match := _OPTION.fullmatch(line)) and match[1]
    }


def read_config(path: Path, kernel: Kernel | None = None) -> tuple[dict[str, str], str]:
    """The configuration in a file, or of a kernel image: what is in it, or lies beside it; and where it was found.

    An image has it with CONFIG_IKCONFIG; beside it are the object folder's .config, a distribution's config-RELEASE.
    `kernel` is the image's, where it is known.

    Raises:
        ConfigError: there is none; the text says where it was looked for.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if content[0x202:0x206] != b"HdrS":
        found = parse(content.decode(errors="replace"))
        if not found:
            raise ConfigError(f"{path}: is neither a kernel's configuration nor a bzImage")
        return found, str(path)
    kernel = kernel or Kernel(path, None)
    image = payload(content, kernel.zstd) or b""
    if (start := image.find(_BEGIN)) >= 0:
        packed = image[start + len(_BEGIN) : image.find(_END, start)]
        try:
            return parse(gzip.decompress(packed).decode(errors="replace")), f"{path} (CONFIG_IKCONFIG)"
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{path}: its configuration cannot be unpacked: {error}") from error
    places = _beside(path, kernel.release)
    for place in places:
        if place.is_file():
            return parse(place.read_text("utf-8", errors="replace")), str(place)
    looked = ", ".join(map(str, places))
    raise ConfigError(f"{path}: has no configuration in it (CONFIG_IKCONFIG), and there is none beside it ({looked})")


def _beside(image: Path, release: str) -> list[Path]:
    places = [image.parent / f"config-{release}", image.parent / "config"]
    if (built := object_folder(image)) is not None:
        places.append(built / ".config")
    return places
