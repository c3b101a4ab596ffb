"""Operations on VFs and dma-bufs: opening, exporting, handing over, revoking, closing."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import (
    OK,
    Arguments,
    OfBuffer,
    OfVf,
    Operation,
    Revoking,
    is_new,
    named,
    new,
)
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import FILLED, MIB, VFS, Buffer, Content, State
from vfio_user_xe.device_models.xe.scenarios.machine import BAR2
from vfio_user_xe.emulator.pci.config_space import COMMAND

SEEDS = ("1", "2")
RANGES = (
    f"0+{2 * MIB:#x}",
    "0x200000+0x1000",
    f"{MIB:#x}+{2 * MIB:#x}",
    "0x300000+0x2000,0x1000+0x3000",
)
"""What is exported: a large page, a small one, something across a large page's border, two parts that are not in order."""

REFUSED: dict[tuple[str, str], Collection[str]] = {
    ("2", "0x1+0x1000"): ("EINVAL",),
    ("2", "0x1000+0x64"): ("EINVAL",),
    ("2", "0x1000+0"): ("EINVAL",),
    ("2", f"{BAR2 - 0x1000:#x}+0x2000"): ("EINVAL",),
    ("2", f"0x1000+0x1000,{BAR2:#x}+0x1000"): ("EINVAL",),
    ("2", "0xfffffffffffff000+0x1000"): ("EINVAL", "EOVERFLOW"),
    ("1", "0+0x1000"): ("ENODEV",),
    ("7", "0+0x1000"): ("ENODEV",),
}
"""What cannot be exported, by region and ranges, and the answers: not whole pages, nothing, beyond the BAR's end by a page, a second
range behind it, more than an address has bits; the upper half of a 64-bit BAR, which is no region; the ROM
(`vfio_pci_dmabuf.c:vfio_pci_core_feature_dma_buf`)."""

LOW_POWER_ENTRY, LOW_POWER_EXIT = 0x20003, 0x20005
"""VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_..."""


class Open(Operation):
    name, weight = "open", 3.0

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf,) for vf in VFS)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        vf = state.vfs.get(arguments[0]) if arguments else None
        return vf is not None and vf.driver == "vfio-pci" and not state.pending and actor not in vf.holders

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        return self.weight / 20 if state.vfs[arguments[0]].open else self.weight

    def answers(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return ("EBUSY",) if state.vfs[arguments[0]].open else OK

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        vf = state.vfs[arguments[0]]
        if not vf.open:
            vf.opener, vf.holders, vf.opening = actor, {actor}, vf.opening + 1
            vf.content, vf.memory = Content.CLEARED, True

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"vfio {arguments[0]} {{{arguments[0]}}}"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]


class Fill(OfVf):
    name, weight = "fill", 0.6

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf, seed) for vf in VFS for seed in SEEDS)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return len(arguments) == 2 and super().allowed(state, actor, arguments) and state.vfs[arguments[0]].memory

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        vf = state.vfs[arguments[0]]
        vf.content, vf.seed = Content.FILLED, int(arguments[1])

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        # What a reset clears, and importers read, is something that was written.
        return self.weight if state.vfs[arguments[0]].content is Content.FILLED else self.weight * 4

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"fill {arguments[0]} 0 {FILLED:#x} {arguments[1]}"]


class Check(OfVf):
    """The VF's user reads what it, or an importer, has written, or that it is clean."""

    name, weight = "check", 0.5

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        # The pattern of before is what should be gone.
        vf = state.vfs[arguments[0]]
        return self.weight * (6 if vf.content is Content.CLEARED and vf.seed else 1)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if not super().allowed(state, actor, arguments):
            return False
        vf = state.vfs[arguments[0]]
        return vf.memory and vf.content is not Content.UNKNOWN

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        vf = state.vfs[arguments[0]]
        return [
            f"check {vf.name} 0 {FILLED:#x} {vf.seed}"
            if vf.content is Content.FILLED
            else f"clean {vf.name} 0 {FILLED:#x}"
        ]


class Export(OfVf):
    name, weight = "export", 6.0

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf, new(state, "d"), ranges) for vf in VFS for ranges in RANGES)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return (
            len(arguments) == 3
            and super().allowed(state, actor, arguments)
            and is_new(state, arguments[1], "d")
            and not state.pending
        )

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        had = sum(buffer.vf == arguments[0] and bool(buffer.holders) for buffer in state.buffers.values())
        return self.weight / len(RANGES) / (1 + had)

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        vf, name, ranges = arguments
        parts = tuple((int(a, 0), int(b, 0)) for a, _, b in (part.partition("+") for part in ranges.split(",")))
        state.buffers[name] = Buffer(name, vf, parts, state.vfs[vf].opening, {actor})
        named(state)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        vf, name, ranges = arguments
        return [f"export {vf} 2 {ranges} {name}"]


class BadExport(OfVf):
    """What cannot be exported is refused, whatever else the device has exported."""

    name, weight = "bad-export", 0.8

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf, *what) for vf in VFS for what in REFUSED)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return len(arguments) == 3 and arguments[1:] in REFUSED and super().allowed(state, actor, arguments)

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        return self.weight / len(REFUSED)

    def answers(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return REFUSED[arguments[1], arguments[2]]

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"export {' '.join(arguments)} bad"]


class Take(Operation):
    """A process gets a dma-buf's descriptor from another."""

    name, weight = "take", 1.5

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        # Another importer, best of a buffer that has one already.
        buffer = state.buffers[arguments[0]]
        if not state.live(buffer):
            return self.weight / 3
        imported = any(one.buffer == buffer.name and state.alive(one) for one in state.imports.values())
        can = any(gpu.opener == actor and actor in gpu.holders for gpu in state.gpus.values())
        return self.weight * (2 if can else 1) * (3 if imported else 1)

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((name, other) for name in state.buffers for other in sorted(state.processes))

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        buffer = state.buffers.get(arguments[0]) if len(arguments) == 2 else None
        return buffer is not None and actor not in buffer.holders and arguments[1] in buffer.holders

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.buffers[arguments[0]].holders.add(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        name, other = arguments
        return [f"take {{{other}}} {{{other}.{name}}} {name} {state.buffers[name].length:#x}"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return (state.buffers[arguments[0]].vf,)


class OpenPath(OfBuffer):
    """An O_PATH descriptor of a dma-buf: it keeps the buffer, and lets the file go."""

    name, weight = "open-path", 0.9

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return super().allowed(state, actor, arguments) and actor not in state.buffers[arguments[0]].paths

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.buffers[arguments[0]].paths.add(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"path {arguments[0]} p{arguments[0]}"]


class ClosePath(Operation):
    name, weight = "close-path", 0.3

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((name,) for name in state.buffers)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return bool(arguments) and arguments[0] in state.buffers and actor in state.buffers[arguments[0]].paths

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.buffers[arguments[0]].paths.discard(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"close p{arguments[0]}"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return (state.buffers[arguments[0]].vf,)


class CloseBuffer(OfBuffer):
    name = "close"

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        # Who closes first is what matters: something else should have hold of the buffer.
        buffer = state.buffers[arguments[0]]
        others = (
            buffer.paths
            or len(buffer.holders) > 1
            or any(one.buffer == buffer.name and state.alive(one) for one in state.imports.values())
        )
        return self.weight * (3 if others else 0.5)

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.buffers[arguments[0]].holders.discard(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"close {arguments[0]}"]


class Release(OfVf):
    """The VFIO device is closed, and with it its group and container."""

    name = "release"

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        # What importers have mapped is what matters: it must be gone afterwards.
        if mapped := state.mapped(arguments[0]):
            return self.weight * 5 * len(mapped) ** 2
        return self.weight if state.exported(arguments[0]) else self.weight / 10

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.drop_device(arguments[0], actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"release {arguments[0]}"]

    def revokes(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1] if state.vfs[arguments[0]].holders == {actor} else ()


class Reset(Revoking):
    name = "reset"

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.reset(arguments[0])

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"reset {arguments[0]}"]


class Flr(Revoking):
    """FLR through configuration space."""

    name, weight = "flr", 0.7

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.reset(arguments[0])

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"flr {arguments[0]}"]


class MemoryOff(Revoking):
    """COMMAND.MEM cleared. A VF has no such bit: what VFIO shows is its own, and what was exported is given back at once."""

    name, weight = "memory-off", 1.0

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.revoke(arguments[0])
        state.vfs[arguments[0]].memory = False

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"config {arguments[0]} {COMMAND} 2 0"]


class Nap(Revoking):
    """VFIO's low-power feature, and the end of it. A kernel may refuse it for a VF."""

    name, weight, in_turn = "nap", 0.4, True

    def answers(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return ("0", "ENOTTY", "EINVAL", "EOPNOTSUPP")

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.revoke(arguments[0])

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        vf = arguments[0]
        return [f"feature {vf} {LOW_POWER_ENTRY:#x}", f"feature {vf} {LOW_POWER_EXIT:#x}"]


class MemoryOn(OfVf):
    name, weight = "memory-on", 4.0

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return super().allowed(state, actor, arguments) and not state.vfs[arguments[0]].memory

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.vfs[arguments[0]].memory = True

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"config {arguments[0]} {COMMAND} 2 6"]


class HoldDevice(Operation):
    """A process gets the VFIO device's descriptor from another: the device stays open when its opener closes or dies."""

    name, weight = "hold", 0.4

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf, other) for vf in VFS for other in sorted(state.processes))

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        vf = state.vfs.get(arguments[0]) if len(arguments) == 2 else None
        return vf is not None and vf.opener == arguments[1] and actor not in vf.holders

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.vfs[arguments[0]].holders.add(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        vf, other = arguments
        return [f"take {{{other}}} {{{other}.{vf}}} h{vf} 0"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]


class DropDevice(Operation):
    """It closes that descriptor."""

    name, weight = "drop", 0.7

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf,) for vf in VFS)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        vf = state.vfs.get(arguments[0]) if arguments else None
        return vf is not None and actor in vf.holders and vf.opener != actor

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.drop_device(arguments[0], actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"close h{arguments[0]}"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]

    def revokes(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1] if state.vfs[arguments[0]].holders == {actor} else ()


OPERATIONS: tuple[Operation, ...] = (
    Open(), Fill(), Check(), Export(), BadExport(), Take(), OpenPath(), ClosePath(), CloseBuffer(), Release(), Reset(), Flr(),
    MemoryOff(), MemoryOn(), Nap(), HoldDevice(), DropDevice(),
)  # fmt: skip
