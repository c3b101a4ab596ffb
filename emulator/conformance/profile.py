"""What the suite needs to know about a device, and how it finds most of it out.

The suite asks for regions, interrupts and features over the protocol. What only an author knows (where one may write
without harm) is in a profile, a TOML file:

    name = "my device"
    pid = 4242                      # the server's process, to see its descriptors; found out for Unix sockets

    [[scratch]]                     # memory that keeps what is written, and has no other effect
    region = 1
    offset = 0
    length = 0x1000
    trapped = true                  # false where the same bytes can be mapped

    [skip]                          # cases that do not apply, by id or by "group.*", each with the reason
    "reset.*" = "the device is shared"

Without a profile the suite uses mappable regions as scratch memory, and knows the conformance device by its ids.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, RequestError


class ProfileError(Exception):
    """A profile that cannot be used; the text names the file, the key and what is allowed."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """`length` bytes at `offset` of a region that keep what is written and do nothing else."""

    region: int
    offset: int
    length: int
    trapped: bool = True


@dataclass(frozen=True, slots=True)
class Profile:
    """A device as far as it is known. `scratch` is in order of preference."""

    name: str = "unnamed"
    pid: int = 0
    scratch: tuple[Scratch, ...] = ()
    conformance_device: bool = False
    skip: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """The profile in a TOML file.

        Raises:
            ProfileError: the file cannot be read, is no TOML, or has a key or value that no profile has.
        """
        try:
            table = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as exc:
            raise ProfileError(f"cannot read profile {path}: {exc.strerror}") from exc
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise ProfileError(f"{path}: not TOML: {exc}") from exc
        return _parse(table, str(path))

    def skip_reason(self, identity: str) -> str | None:
        """Why a case is not to be run, if it is not."""
        return next((why for pattern, why in self.skip.items() if fnmatchcase(identity, pattern)), None)

    def discovered(self, client: Client) -> Profile:
        """This profile, with what a connected client can find out added to it."""
        pid = self.pid or client.connection.peer_pid
        _, count, _ = client.device_info()
        is_ours = self.conformance_device or _is_conformance_device(client, count)
        scratch = list(self.scratch)
        if is_ours and not scratch:
            scratch.append(Scratch(device.SCRATCH, 0, device.SCRATCH_USABLE))
            scratch.append(Scratch(device.MAPPED, 0, device.MAPPED_SIZE, trapped=False))
        if not scratch:
            for index in range(min(count, wire.CONFIG)):
                info = client.region_info(index)
                if info.mappable and info.writable and info.readable:
                    scratch += [Scratch(index, offset, length, trapped=False) for offset, length in info.areas]
        return replace(self, pid=pid, scratch=tuple(scratch), conformance_device=is_ours)


def _is_conformance_device(client: Client, regions: int) -> bool:
    try:
        if regions <= wire.CONFIG or client.region_info(wire.CONFIG).size < 4:
            return False
        ids = client.read(wire.CONFIG, 0, 4)
        if ids != device.DEVICE_ID << 16 | device.VENDOR_ID:
            return False
        return client.read(device.REGISTERS, device.REG_MAGIC, 4) == device.MAGIC
    except RequestError:
        return False


_KEYS: dict[str, type] = {"name": str, "pid": int, "conformance_device": bool, "scratch": list, "skip": dict}


def _parse(table: dict[str, Any], source: str) -> Profile:
    for key, value in table.items():
        if key not in _KEYS:
            raise ProfileError(f"{source}: unknown key {key!r}; known are {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[key]):
            raise ProfileError(f"{source}: {key!r} must be a {_KEYS[key].__name__}, not {value!r}")
    scratch = []
    for entry in table.get("scratch", []):
        try:
            scratch.append(Scratch(**entry))
        except TypeError as exc:
            raise ProfileError(f"{source}: [[scratch]] wants region, offset, length, and maybe trapped: {exc}") from exc
    for pattern, reason in table.get("skip", {}).items():
        if not isinstance(reason, str):
            raise ProfileError(f"{source}: [skip] {pattern!r} must give its reason as a string, not {reason!r}")
    return Profile(
        name=table.get("name", Path(source).stem),
        pid=table.get("pid", 0),
        scratch=tuple(scratch),
        conformance_device=table.get("conformance_device", False),
        skip=table.get("skip", {}),
    )
