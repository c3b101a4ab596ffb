"""What an operation is: when it is allowed, what it changes, what it must answer, and the commands that carry it out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import VFS, Import, State

OK: Collection[str] = ("0",)
DEAD: Collection[str] = ("ENODEV",)
ACTORS = ("a", "b", "c")
SYSTEM = "guest"
"""The actor of what is done through sysfs and debugfs."""

SOURCE, TARGET = 0x1000_0000, 0x8000_0000
"""Virtual addresses of imports and of the buffer that is copied to."""
_SLOT = 16 << 20

Arguments = tuple[str, ...]


class Operation:
    """One of a process, or of the system. All that is asked of it is about the moment before it is carried out."""

    name: ClassVar[str]
    weight: ClassVar[float] = 1.0
    of_system: ClassVar[bool] = False
    in_turn: ClassVar[bool] = False
    """Each of its commands may block: the next one is sent when the one before was answered."""
    detached: ClassVar[bool] = False
    """Its commands are about a thread of the process that goes on; they return at once or wait for that thread."""
    may_refuse: ClassVar[bool] = False
    """Of the system: the kernel may say no."""
    waits_for_users: ClassVar[bool] = False
    """It may rightly wait until VFs that it takes away are closed."""

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        """Arguments that could be allowed."""
        yield ()

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        """Whether it may be carried out now; `actor` is a process that exists."""
        return True

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        """How likely it is beside others."""
        return self.weight

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        """What becomes of the state when it is carried out by a correct kernel."""

    def answers(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        """The errno names that are right, "0" for success."""
        return OK

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        """The client's commands, of which the first is the one that is judged; the rest is for when it succeeded.

        Of an operation of the system: one command of the shell. None of those that begin or end a process: the player does that.
        """
        return []

    def before(self, state: State, arguments: Arguments) -> list[str]:
        """What the client does first, which always succeeds."""
        return []

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        """The VFs that it concerns."""
        return ()

    def revokes(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        """The VFs whose importers have to let go before it is done."""
        return ()

    def meets(self, state: State, actor: str, arguments: Arguments, errno: str = "") -> str:
        """The known defect that it meets, on a kernel that has it, and that an answer `errno` shows; empty: none.

        Without an answer: whether it could.
        """
        return ""


class OfVf(Operation):
    """Of a process with the VFIO device that it opened: its arguments begin with the VF."""

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf,) for vf in VFS)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return bool(arguments) and arguments[0] in state.vfs and state.vfs[arguments[0]].opener == actor

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]


class Revoking(OfVf):
    """Of those that revoke what was exported of the VF, for a time."""

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        # Several importers are told one after the other: each must be.
        if several := len(state.stale_paths(arguments[0])) + len(state.mapped(arguments[0])):
            return self.weight * 2 * several**2
        return self.weight if state.exported(arguments[0]) else self.weight / 5

    def revokes(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        # While a driver is taken from the VF its device is locked: a reset answers EAGAIN, rightly, or not, by chance.
        return super().allowed(state, actor, arguments) and arguments[0] not in state.awaits


class OfBuffer(Operation):
    """Of a process with the descriptor of a dma-buf."""

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((name,) for name in state.buffers)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return bool(arguments) and arguments[0] in state.buffers and actor in state.buffers[arguments[0]].holders

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return (state.buffers[arguments[0]].vf,)


class OfImport(Operation):
    """Of a process with an import in a DRM file that it opened."""

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((name,) for name in state.imports)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        one = state.imports.get(arguments[0]) if arguments else None
        return one is not None and state.alive(one) and usable(state, one.gpu, actor)

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return (state.buffers[state.imports[arguments[0]].buffer].vf,)


def usable(state: State, gpu: str, actor: str) -> bool:
    """Whether the process can use the DRM file: it opened it, and has not closed it."""
    found = state.gpus.get(gpu)
    return found is not None and not found.gone and found.opener == actor and actor in found.holders


def is_new(state: State, name: str, kind: str) -> bool:
    """Whether the name is one for a new thing of this kind."""
    known = (*state.buffers, *state.gpus, *state.imports)
    return name[:1] == kind and name[1:].isdigit() and name not in known


def new(state: State, kind: str) -> str:
    """A name for a new thing."""
    return f"{kind}{state.made + 1}"


def named(state: State) -> None:
    """A name was given."""
    state.made += 1


def address(one: Import) -> int:
    """The virtual address where an import is bound."""
    return SOURCE + one.slot * _SLOT


def loop(one: Import) -> str:
    """The client's name of the thread in which an import's jobs run."""
    return f"loop{one.name}"
