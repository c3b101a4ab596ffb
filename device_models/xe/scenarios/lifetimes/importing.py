"""Operations on DRM files and imports: opening, importing, binding, jobs, closing."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import (
    DEAD,
    OK,
    TARGET,
    Arguments,
    OfImport,
    Operation,
    address,
    is_new,
    loop,
    named,
    new,
    usable,
)
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import MIB, Buffer, Content, Gpu, Import, State

MOST_FILES = 2
"""DRM files of a process."""


class OpenGpu(Operation):
    """A DRM file with a VM, a queue and a buffer to copy to."""

    name, weight = "gpu", 4.0

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield (new(state, "g"),)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return (
            len(arguments) == 1
            and is_new(state, arguments[0], "g")
            and state.pf_bound
            and sum(usable(state, gpu, actor) for gpu in state.gpus) < MOST_FILES
        )

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        return self.weight / (1 + 3 * sum(usable(state, gpu, actor) for gpu in state.gpus))

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.gpus[arguments[0]] = Gpu(arguments[0], actor, {actor})
        named(state)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        (gpu,) = arguments
        return [f"gpu {gpu} {{pf}}", f"buffer {gpu} t{gpu} {TARGET:#x} {4 * MIB:#x}"]


class OfGpu(Operation):
    """Of a process with a DRM file that it opened."""

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((gpu,) for gpu in state.gpus)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return bool(arguments) and usable(state, arguments[0], actor)

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return {state.buffers[one.buffer].vf for one in state.imports_of(arguments[0])}


class CloseGpu(OfGpu):
    name, weight = "close-gpu", 0.7

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return super().allowed(state, actor, arguments) and not state.loops_in(arguments[0])

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.gpus[arguments[0]].holders.discard(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"close {arguments[0]}"]


class ImportBuffer(Operation):
    name, weight = "import", 8.0

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((gpu, buffer, new(state, "i")) for gpu in state.gpus for buffer in state.buffers)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if len(arguments) != 3 or not usable(state, arguments[0], actor) or not is_new(state, arguments[2], "i"):
            return False
        buffer = state.buffers.get(arguments[1])
        # A file that has a handle of the buffer gets the same one again: two names for one import.
        return (
            buffer is not None
            and actor in buffer.holders
            and not any(one.handle and one.buffer == buffer.name for one in state.imports_of(arguments[0]))
        )

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        buffer = state.buffers[arguments[1]]
        if not state.live(buffer):
            return self.weight / 5
        others = any(one.buffer == buffer.name and state.alive(one) for one in state.imports.values())
        return self.weight * (3 if others else 1)

    def answers(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return OK if state.live(state.buffers[arguments[1]]) else DEAD

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        gpu, buffer, name = arguments
        if state.live(state.buffers[buffer]):
            state.imports[name] = Import(name, gpu, buffer, int(name[1:]))
        named(state)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"import {' '.join(arguments)}"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return (state.buffers[arguments[1]].vf,)


class Bind(OfImport):
    name, weight = "bind", 20.0

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if not super().allowed(state, actor, arguments):
            return False
        one = state.imports[arguments[0]]
        return one.handle and not one.bound

    def answers(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return OK if state.live(_buffer(state, arguments)) else DEAD

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        one = state.imports[arguments[0]]
        if state.live(_buffer(state, arguments)):
            one.bound = one.mapped = True

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"bind {arguments[0]} {address(state.imports[arguments[0]]):#x}"]


class Unbind(OfImport):
    name, weight = "unbind", 0.8

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if not super().allowed(state, actor, arguments):
            return False
        one = state.imports[arguments[0]]
        return one.bound and not one.looping

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.imports[arguments[0]].bound = False

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        one = state.imports[arguments[0]]
        return [f"unbind {one.gpu} {address(one):#x} {state.buffers[one.buffer].length:#x}"]


class CloseHandle(OfImport):
    name, weight = "gem-close", 1.2

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return super().allowed(state, actor, arguments) and state.imports[arguments[0]].handle

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.imports[arguments[0]].handle = False

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"gem-close {arguments[0]}"]


class Job(OfImport):
    """The PF copies what was imported; the data are compared. A VM with something dead in it runs no job."""

    name, weight = "job", 6.0

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if not super().allowed(state, actor, arguments):
            return False
        one = state.imports[arguments[0]]
        return one.bound and not state.loops_in(one.gpu)

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        # Whoever ignores that the exporter is closed is found by using it once more.
        one = state.imports[arguments[0]]
        if state.dead_in(one.gpu):
            return self.weight * 4
        # After a revocation: it must be mapped anew, and read what is there now.
        return self.weight * (1 if one.mapped else 3)

    def answers(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return DEAD if state.dead_in(state.imports[arguments[0]].gpu) else OK

    def meets(self, state: State, actor: str, arguments: Arguments, errno: str = "") -> str:
        doubled = state.doubled(state.imports[arguments[0]].gpu)
        return defects.EXEC_DUPLICATE if doubled and errno in ("", "EALREADY") else ""

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        for one in state.imports_of(state.imports[arguments[0]].gpu):
            one.mapped = one.mapped or (one.bound and state.live(state.buffers[one.buffer]))

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        one, buffer = state.imports[arguments[0]], _buffer(state, arguments)
        return [f"copy {one.gpu} {TARGET:#x} {address(one):#x} {buffer.length:#x}", *_compared(state, one, buffer)]


class Write(Job):
    """The PF writes what the memory holds already: nothing changes where it should not."""

    name, weight = "write", 4.0

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if not super().allowed(state, actor, arguments):
            return False
        return state.vfs[_buffer(state, arguments).vf].content is Content.FILLED

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        one, buffer = state.imports[arguments[0]], _buffer(state, arguments)
        return [f"copy {one.gpu} {address(one):#x} {TARGET:#x} {buffer.length:#x}"]

    def before(self, state: State, arguments: Arguments) -> list[str]:
        """What the client does first: the buffer that is copied from is given the memory's pattern."""
        one, buffer = state.imports[arguments[0]], _buffer(state, arguments)
        seed, at, found = state.vfs[buffer.vf].seed, 0, []
        for offset, length in buffer.ranges:
            found.append(f"paint t{one.gpu} {at:#x} {offset:#x} {length:#x} {seed}")
            at += length
        return found


class Loop(Job):
    """Jobs one after the other, until they are stopped."""

    name, weight, detached = "loop", 3.0, True

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return super().allowed(state, actor, arguments) and not state.pending

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        super().apply(state, actor, arguments)
        state.imports[arguments[0]].looping = True

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        one, buffer = state.imports[arguments[0]], _buffer(state, arguments)
        return [f"spawn {loop(one)} loop copy {one.gpu} {TARGET:#x} {address(one):#x} {buffer.length:#x}"]


class Stop(OfImport):
    name, weight, detached = "stop", 2.0, True

    def meets(self, state: State, actor: str, arguments: Arguments, errno: str = "") -> str:
        doubled = state.doubled(state.imports[arguments[0]].gpu)
        return defects.EXEC_DUPLICATE if doubled and errno in ("", "EALREADY") else ""

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return super().allowed(state, actor, arguments) and state.imports[arguments[0]].looping

    def answers(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return DEAD

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.imports[arguments[0]].looping = False

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        one = state.imports[arguments[0]]
        return [f"stop {loop(one)}", f"join {loop(one)} 20000"]


class HoldGpu(Operation):
    """A process gets a DRM file's descriptor from another: what was imported there stays when its opener closes or dies."""

    name, weight = "hold-gpu", 0.3

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((gpu, other) for gpu in state.gpus for other in sorted(state.processes))

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if len(arguments) != 2 or not usable(state, *arguments):
            return False
        return actor not in state.gpus[arguments[0]].holders

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.gpus[arguments[0]].holders.add(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        gpu, other = arguments
        return [f"take {{{other}}} {{{other}.{gpu}}} h{gpu} 0"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return {state.buffers[one.buffer].vf for one in state.imports_of(arguments[0])}


class DropGpu(OfGpu):
    """It closes that descriptor."""

    name, weight = "drop-gpu", 0.6

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        gpu = state.gpus.get(arguments[0]) if arguments else None
        return gpu is not None and actor in gpu.holders and gpu.opener != actor

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.gpus[arguments[0]].holders.discard(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"close h{arguments[0]}"]


class Reexport(OfImport):
    """The importer makes a descriptor of what it imported: of the exporter's own buffer."""

    name, weight = "reexport", 0.5

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if not super().allowed(state, actor, arguments):
            return False
        one = state.imports[arguments[0]]
        return one.handle and actor not in state.buffers[one.buffer].holders

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        _buffer(state, arguments).holders.add(actor)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"reexport {arguments[0]} {_buffer(state, arguments).name}"]


def _buffer(state: State, arguments: Arguments) -> Buffer:
    return state.buffers[state.imports[arguments[0]].buffer]


def _compared(state: State, one: Import, buffer: Buffer) -> list[str]:
    """What the data must be, as far as that is known."""
    vf = state.vfs[buffer.vf]
    if vf.content is Content.CLEARED:
        return [f"holds t{one.gpu} 0 {buffer.length:#x} 0"]
    if vf.content is Content.UNKNOWN:
        return []
    at, found = 0, []
    for offset, length in buffer.ranges:
        found.append(f"verify t{one.gpu} {at:#x} {offset:#x} {length:#x} {vf.seed}")
        at += length
    return found


OPERATIONS: tuple[Operation, ...] = (
    OpenGpu(), CloseGpu(), ImportBuffer(), Bind(), Unbind(), CloseHandle(), Job(), Write(), Loop(), Stop(), HoldGpu(),
    DropGpu(), Reexport(),
)  # fmt: skip
