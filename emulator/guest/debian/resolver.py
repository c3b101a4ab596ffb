"""Which packages a set of packages needs, out of the package lists of several suites.

A package is taken in the version of the preferred suite if it is there, else in the newest of all suites that serves. Where a
relation has alternatives, one that is taken already serves, else the first that can be had: the rules by which apt decides where
nothing is installed and nothing conflicts. What conflicts is an error here.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vfio_user_xe.emulator.guest.debian.versions import Relation, order, relations
from vfio_user_xe.emulator.guest.errors import FetchFailed

_FIELD = re.compile(r"^([A-Za-z0-9-]+):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)
_NAME = re.compile(r"^Package:[ \t]*(\S+)", re.MULTILINE)
_PROVIDES = re.compile(r"^Provides:[ \t]*(.*)", re.MULTILINE)
_PRIORITIES = ("required", "important", "standard")


@dataclass(frozen=True)
class Entry:
    """A package as a suite's list has it."""

    name: str
    suite: str
    text: str

    @cached_property
    def fields(self) -> Mapping[str, str]:
        return dict(_FIELD.findall(self.text))

    @property
    def version(self) -> str:
        return self.fields["Version"]

    @property
    def needs(self) -> list[tuple[Relation, ...]]:
        return [one for name in ("Pre-Depends", "Depends") for one in relations(self.fields.get(name, ""))]

    @property
    def conflicts(self) -> list[Relation]:
        return [one for name in ("Conflicts", "Breaks") for (one,) in relations(self.fields.get(name, ""))]

    @property
    def provides(self) -> dict[str, str]:
        """What it stands for, with the version ("" for none)."""
        return {one.name: one.version for (one,) in relations(self.fields.get("Provides", ""))}

    def serves(self, relation: Relation) -> bool:
        """Whether it is what the relation asks for, by its name or by what it provides."""
        if relation.name == self.name:
            return relation.admits(self.version)
        provided = self.provides
        return relation.name in provided and relation.admits(provided[relation.name])


class PackageLists:
    """The packages of suites; `preferred` is the suite whose version is taken where it has one."""

    def __init__(self, preferred: str) -> None:
        self._preferred = preferred
        self._entries: dict[str, list[Entry]] = defaultdict(list)
        self._providers: dict[str, list[Entry]] = defaultdict(list)

    def add(self, suite: str, text: str) -> None:
        """Add a suite's list, a file `Packages`."""
        for stanza in text.split("\n\n"):
            if (match := _NAME.search(stanza)) is None:
                continue
            entry = Entry(match[1], suite, stanza)
            self._entries[entry.name].append(entry)
            if provides := _PROVIDES.search(stanza):
                for (relation,) in relations(provides[1]):
                    self._providers[relation.name].append(entry)

    def names(self, prefix: str) -> list[str]:
        """Names of packages that begin with `prefix`, sorted."""
        return sorted(name for name in self._entries if name.startswith(prefix))

    def candidates(self, name: str) -> list[Entry]:
        """A package in its versions, the one to prefer first."""
        return sorted(
            self._entries.get(name, ()),
            key=lambda entry: (entry.suite == self._preferred, order(entry.version)),
            reverse=True,
        )

    def offers(self, relation: Relation) -> list[Entry]:
        """What a relation can be satisfied by: the package of its name, else packages that provide it, the usual ones first."""
        own = [entry for entry in self.candidates(relation.name) if entry.serves(relation)]
        others = [entry for entry in self._providers.get(relation.name, ()) if entry.serves(relation)]
        others.sort(key=lambda entry: order(entry.version), reverse=True)
        return own + sorted(others, key=lambda entry: (entry.fields.get("Priority") not in _PRIORITIES, entry.name))


class _Chosen:
    """The packages chosen so far, by their names and by what they provide."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._serving: dict[str, list[Entry]] = defaultdict(list)

    def add(self, entry: Entry) -> None:
        self.entries[entry.name] = entry
        for name in (entry.name, *entry.provides):
            self._serving[name].append(entry)

    def serving(self, relation: Relation) -> list[Entry]:
        return [entry for entry in self._serving.get(relation.name, ()) if entry.serves(relation)]


def resolve(lists: PackageLists, wanted: Sequence[str], assumed: Mapping[str, str]) -> list[Entry]:
    """The wanted packages and everything they need, in the order in which they were found to be needed.

    `assumed` is there already, in these versions.

    Raises:
        FetchFailed: something cannot be had, or two of them conflict.
    """
    chosen = _Chosen()
    waiting: deque[tuple[tuple[Relation, ...], str]] = deque(((Relation(name),), "") for name in wanted)
    while waiting:
        alternatives, needed_by = waiting.popleft()
        if any(one.name in assumed and one.admits(assumed[one.name]) for one in alternatives) or any(
            chosen.serving(one) for one in alternatives
        ):
            continue
        entry = _choice(lists, alternatives, chosen, needed_by)
        chosen.add(entry)
        waiting += [(need, entry.name) for need in entry.needs]
    for entry in chosen.entries.values():
        for relation in entry.conflicts:
            for other in chosen.serving(relation):
                if other is not entry:
                    raise FetchFailed(f"{entry.name} conflicts with {relation}, and {other.name} is needed, too")
    return list(chosen.entries.values())


def _choice(lists: PackageLists, alternatives: tuple[Relation, ...], chosen: _Chosen, needed_by: str) -> Entry:
    for one in alternatives:
        for entry in lists.offers(one):
            if entry.name not in chosen.entries:
                return entry
    what = " | ".join(map(str, alternatives))
    taken = [chosen.entries[one.name] for one in alternatives if one.name in chosen.entries]
    reason = f" ({', '.join(f'{entry.name} {entry.version} is taken' for entry in taken)})" if taken else ""
    need = f", which {needed_by} needs," if needed_by else ""
    raise FetchFailed(f"{what}{need} cannot be had from the suites{reason}")
