"""The model: which slots have something, and steps whose calls mostly take what is there. Every call is allowed at any time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from vfio_user_xe.device_models.xe.scenarios.syscalls.grammar import (
    ARENA,
    CALLS,
    DMABUF,
    FILE,
    KINDS,
    PAGE,
    Call,
    Kind,
    arguments,
    encoded,
    fields_of,
)
from vfio_user_xe.emulator.scenarios.exploration.sequence import BadSequence, Step

ACTORS = ("a", "b")
CLOSE, BATCH, EXPORT = "close", "batch", "vf-export"
_OTHERS = {CLOSE: 0.6, BATCH: 1.0, EXPORT: 0.5}
_NOWHERE = 0.15
"""How likely a call is, beside others, that takes something which is not there."""
_BATCH_PAGE = 8
_VALUES = 2
"""Sets of values that are tried for a call at each step."""
_MI = (0x0500_0000, 0x0000_0000, 0x0200_0000, 0x1040_0002, 0x0E40_8003, 0x1100_0001, 0x1880_0101)
"""End, no-op, interrupt, store, wait for a semaphore, load a register, start a batch."""


class Calls:
    """See `vfio_user_xe.emulator.scenarios.exploration.world.World`."""

    def __init__(self) -> None:
        self._history: list[str] = []
        self._made: dict[str, dict[Kind, int]] = {actor: {FILE: FILE.count} for actor in ACTORS}
        """How many things of each kind an actor has made."""

    def choices(self) -> Sequence[tuple[Step, float]]:
        """Some steps, other ones after every other history."""
        chance = random.Random("/".join(self._history[-12:]) + f"/{len(self._history)}")
        found: list[tuple[Step, float]] = []
        for actor in ACTORS:
            for call in CALLS.values():
                for _ in range(_VALUES):
                    step = self._step(actor, call, chance)
                    there = all(self._there(actor, number) for number in slots_of(step))
                    found.append((step, call.weight / _VALUES * (1 if there else _NOWHERE)))
            others = (
                Step(actor, CLOSE, (f"s{chance.choice(chance.choice((DMABUF, KINDS[-1])).slots())}",)),
                Step(actor, BATCH, tuple(f"{self._command(chance):#x}" for _ in range(chance.randint(1, 6)))),
                Step(actor, EXPORT, (f"s{chance.choice(DMABUF.slots())}",)),
            )
            found += [(step, _OTHERS[step.operation]) for step in others]
        return found

    def opening(self, chance: random.Random) -> Sequence[Step]:
        """None: a call needs little that was there before."""
        return ()

    def allows(self, step: Step) -> bool:
        """Whether it is a call of the grammar.

        Raises:
            BadSequence: it is none; the text says why.
        """
        if step.actor not in ACTORS:
            raise BadSequence(f'there is no actor "{step.actor}" (there are: {", ".join(ACTORS)})')
        try:
            commands(step)
        except (KeyError, ValueError) as error:
            raise BadSequence(f'"{step}": {error}') from error
        return True

    def apply(self, step: Step) -> None:
        """Something may be in the slot that the step fills."""
        self._history.append(str(step))
        call = CALLS.get(step.operation)
        made = DMABUF if step.operation == EXPORT else call.makes[0] if call is not None and call.makes else None
        if made is not None:
            counts = self._made[step.actor]
            counts[made] = counts.get(made, 0) + 1

    def topics(self, step: Step) -> Iterable[str]:
        """The slots that it concerns, by process."""
        return [f"{step.actor}{number}" for number in slots_of(step)] or [step.actor]

    def provokes(self, step: Step) -> Iterable[str]:
        """None is known of calls alone."""
        return ()

    def goes_on(self, step: Step) -> bool:
        """Nothing is known that could end it."""
        return True

    def _step(self, actor: str, call: Call, chance: random.Random) -> Step:
        words = [f"s{chance.choice(call.on.slots())}", *arguments(call, chance)]
        if call.makes is not None:
            made = call.makes[0]
            words.append(f"to=s{made.first + self._made[actor].get(made, 0) % made.count}")
        return Step(actor, call.name, tuple(words))

    def _there(self, actor: str, number: int) -> bool:
        kind = next(kind for kind in KINDS if number in kind.slots())
        return number - kind.first < self._made[actor].get(kind, 0)

    @staticmethod
    def _command(chance: random.Random) -> int:
        address = ARENA + chance.randrange(16) * PAGE
        return chance.choice((*_MI, _MI[0], address & 0xFFFF_FFFF, address >> 32, chance.getrandbits(32)))


def slots_of(step: Step) -> list[int]:
    """The slots that a step takes something from."""
    if step.operation == EXPORT:
        return []
    values = [word.partition("=")[2] or word for word in step.arguments if not word.startswith("to=")]
    return [int(value[1:]) for value in values if value[:1] == "s" and value[1:].isdigit()]


def commands(step: Step) -> list[str]:
    """What the guest program is told (`client/raw.c`); the last is the call.

    Raises:
        KeyError: there is no such call or field.
        ValueError: an argument makes no sense.
    """
    if step.operation == CLOSE:
        return [f"raw-close {_slot(step.arguments)}"]
    if step.operation == BATCH:
        dwords = ".".join(f"{int(word, 0):x}" for word in step.arguments)
        return [f"raw-poke {_BATCH_PAGE * PAGE:#x} {dwords}.5000000"]
    if step.operation == EXPORT:
        return ["export v 2 0+0x200000 d", f"raw-take {_slot(step.arguments)} d"]
    if step.operation not in CALLS:
        raise KeyError(f'no call "{step.operation}" (there are: {", ".join((*CALLS, *_OTHERS))})')
    call = CALLS[step.operation]
    known = {*fields_of(call), "to"}
    values = dict(word.partition("=")[::2] for word in step.arguments[1:])
    if unknown := [name for name in values if name not in known]:
        raise KeyError(f"{call.name} has no field {unknown[0]} (it has: {', '.join(sorted(known))})")
    found = [
        f"raw-poke {one.page * PAGE:#x} {encoded(one.to, values, f'{one.name}.')}"
        for one in call.struct.fields
        if one.to is not None and values.get(one.name) == f"@{one.page}"
    ]
    request = f"raw-ioctl {_slot(step.arguments)} {call.request:#x} {encoded(call.struct, values)}"
    if call.makes is not None and "to" in values:
        where = call.makes[1]
        request += f" {int(values['to'][1:])} {'result' if where is None else where}"
    return [*found, request]


def _slot(words: Sequence[str]) -> int:
    if not words or words[0][:1] != "s" or not words[0][1:].isdigit():
        raise ValueError("the first argument is a slot, such as s0")
    return int(words[0][1:])
