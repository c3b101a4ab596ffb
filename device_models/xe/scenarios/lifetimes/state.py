"""What exists in the model: VFs, processes and their descriptors, dma-bufs, imports; and what becomes of it.

Names are unique in a sequence: v1 and v2 are the VFs and their VFIO devices, g1 ... DRM files, d1 ... dma-bufs, i1 ... imports. A
process knows a thing by the same name, whoever made it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

MIB = 1 << 20
FILLED = 4 * MIB
"""Of a VF's memory: what is filled, and where all ranges lie."""
VFS = ("v1", "v2")


class Content(StrEnum):
    """What the first bytes of a VF's memory hold."""

    UNKNOWN = "unknown"
    CLEARED = "cleared"
    """Zero: the PF's driver has cleared it after a reset."""
    FILLED = "filled"
    """The pattern of `Vf.seed`."""


@dataclass
class Vf:
    """A VF, and who has it."""

    name: str
    driver: str = "vfio-pci"
    """Empty: none, or the VF is disabled."""
    enabled: bool = True
    opener: str = ""
    """The process that opened it; empty: it is not open."""
    holders: set[str] = field(default_factory=set)
    """Processes that have a descriptor of the device."""
    opening: int = 0
    """How often it was opened: what was exported before is dead for good."""
    memory: bool = True
    """COMMAND.MEM as its user has set it."""
    content: Content = Content.UNKNOWN
    seed: int = 0
    """Of the last pattern; 0: its memory was never filled."""

    @property
    def open(self) -> bool:
        return bool(self.holders)


@dataclass
class Buffer:
    """A dma-buf."""

    name: str
    vf: str
    ranges: tuple[tuple[int, int], ...]
    """Offset and length of each."""
    opening: int
    holders: set[str] = field(default_factory=set)
    """Processes that have a descriptor."""
    paths: set[str] = field(default_factory=set)
    """Processes that have an O_PATH descriptor, which holds its directory entry but not its file."""
    passed_over: bool = False
    """Its device was closed while only an O_PATH descriptor was left: a driver that looks for its file leaves it on its list."""

    @property
    def length(self) -> int:
        return sum(length for _, length in self.ranges)


@dataclass
class Gpu:
    """A DRM file of a process, with one VM; `holders` have a descriptor of it."""

    name: str
    opener: str
    holders: set[str]
    gone: bool = False
    """The PF's driver was taken away: the file is of a device that is no more."""


@dataclass
class Import:
    """A buffer in a DRM file: its handle, and where it is bound. `mapped`: the importer has mapped the attachment."""

    name: str
    gpu: str
    buffer: str
    slot: int
    handle: bool = True
    bound: bool = False
    mapped: bool = False
    looping: bool = False
    """Jobs run there one after the other, in a thread of the process."""


@dataclass
class State:
    """All of it."""

    vfs: dict[str, Vf] = field(default_factory=lambda: {name: Vf(name) for name in VFS})
    processes: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    gpus: dict[str, Gpu] = field(default_factory=dict)
    imports: dict[str, Import] = field(default_factory=dict)
    pending: str = ""
    """A command of the system that waits for users of a VF to go: its text; empty: there is none."""
    awaits: frozenset[str] = frozenset()
    """The VFs whose users it waits for."""
    pf_bound: bool = True
    made: int = 0
    """Names given so far."""

    def live(self, buffer: Buffer) -> bool:
        """Whether it can be mapped: its device has been open ever since it was exported."""
        vf = self.vfs[buffer.vf]
        return vf.open and vf.opening == buffer.opening

    def alive(self, one: Import) -> bool:
        """Whether the import still exists: its file is open, and a handle or a mapping keeps it."""
        return bool(self.gpus[one.gpu].holders) and (one.handle or one.bound)

    def imports_of(self, gpu: str) -> Iterator[Import]:
        """Those that exist in a DRM file."""
        return (one for one in self.imports.values() if one.gpu == gpu and self.alive(one))

    def dead_in(self, gpu: str) -> bool:
        """Whether the VM has something bound that cannot be mapped any more: no job runs there."""
        return any(one.bound and not self.live(self.buffers[one.buffer]) for one in self.imports_of(gpu))

    def doubled(self, gpu: str) -> bool:
        """Whether the VM has one buffer bound by two imports."""
        bound = [one.buffer for one in self.imports_of(gpu) if one.bound]
        return len(set(bound)) < len(bound)

    def exists(self, buffer: Buffer, dying: Collection[str] = ()) -> bool:
        """Whether anything holds the buffer's file, or will when processes have ended."""
        return bool(buffer.holders.difference(dying)) or any(
            one.buffer == buffer.name and self.alive(one) and self.gpus[one.gpu].holders.difference(dying)
            for one in self.imports.values()
        )

    def loops_in(self, gpu: str) -> bool:
        """Whether jobs run in a VM one after the other."""
        return any(one.looping for one in self.imports_of(gpu))

    def idle(self, vf: str) -> list[Import]:
        """Imports that are mapped and whose VM has nothing to do."""
        return [one for one in self.mapped(vf) if not self.loops_in(one.gpu)]

    def mapped(self, vf: str) -> list[Import]:
        """Imports of a VF's memory, as it is exported now, that the importer has mapped."""
        return [
            one
            for one in self.imports.values()
            if one.mapped
            and self.alive(one)
            and not self.gpus[one.gpu].gone
            and self.buffers[one.buffer].vf == vf
            and self.live(self.buffers[one.buffer])
        ]

    def exported(self, vf: str) -> bool:
        """Whether something of a VF's memory, as it is open now, is exported."""
        return any(buffer.vf == vf and self.live(buffer) for buffer in self.buffers.values())

    def stale_paths(self, vf: str, dying: Collection[str] = ()) -> list[Buffer]:
        """Buffers of a VF that its driver may still know whose file is gone, while an O_PATH descriptor keeps the rest of them.

        Of a process that is dying, files are released in the reverse order, and of an import after a while: they may be gone first.
        """
        return [
            buffer
            for buffer in self.buffers.values()
            if buffer.vf == vf
            and buffer.paths
            and (self.live(buffer) or buffer.passed_over)
            and not self.exists(buffer, dying)
        ]

    def passed_over(self, vfs: Collection[str]) -> list[Buffer]:
        """Buffers that the close of these VFs' devices has passed over, as long as an O_PATH descriptor keeps them."""
        return [buffer for buffer in self.buffers.values() if buffer.vf in vfs and buffer.passed_over and buffer.paths]

    def revoke(self, vf: str) -> None:
        """Importers have to map anew what they have of a VF's memory."""
        for one in self.mapped(vf):
            one.mapped = self.loops_in(one.gpu)

    def reset(self, vf: str) -> None:
        """The VF was reset, and the PF's driver has cleared its memory."""
        self.revoke(vf)
        self.vfs[vf].content = Content.CLEARED

    def drop_device(self, vf: str, process: str, dying: Collection[str] = ()) -> None:
        """A process closes its descriptor of a VFIO device, maybe since it is dying; with the last one the device is closed and reset."""
        holders = self.vfs[vf].holders
        if process not in holders:
            return
        if holders == {process}:
            self.reset(vf)
            self.vfs[vf].memory = True
            for buffer in self.stale_paths(vf, dying):
                buffer.passed_over = True
        if self.vfs[vf].opener == process:
            self.vfs[vf].opener = ""
        holders.discard(process)

    def end(self, process: str) -> None:
        """A process ends, with all its descriptors."""
        for buffer in self.buffers.values():
            buffer.holders.discard(process)
            buffer.paths.discard(process)
        for vf in self.vfs:
            self.drop_device(vf, process, {process})
        for gpu in self.gpus.values():
            gpu.holders.discard(process)
            if gpu.opener == process:
                for one in self.imports_of(gpu.name):
                    one.looping = False
        self.processes.discard(process)
        self.ended.add(process)
