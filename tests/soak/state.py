"""What a soak has done and measured so far, in a file from which the next run goes on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Rest:
    """A server that has no guest: what it holds then must not grow."""

    hours: float
    """Of the soak, all of its runs together, when this was measured."""
    server: int
    """Number of the server; each is one of a soak's."""
    guests: int
    """How many guests it has had."""
    descriptors: int
    threads: int
    own: float
    """MiB of the process that are its own (RssAnon)."""
    memory: float
    """MiB of VRAM, GGTTs and the like that are in use."""


@dataclass
class State:
    """Counts, measurements and findings of one shard."""

    path: Path | None = None
    seconds: float = 0.0
    next: int = 0
    """Number of the next round."""
    servers: int = 0
    guests: int = 0
    rounds: Counter[str] = field(default_factory=Counter)
    """By the name of the scenario, of those that came to their end."""
    known: Counter[str] = field(default_factory=Counter)
    """Known defects of the kernel that were met."""
    killed: Counter[str] = field(default_factory=Counter)
    rests: list[Rest] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path | None) -> State:
        """What an earlier run left in a file; the beginning without one.

        Raises:
            ValueError: the file is not a soak's state.
        """
        state = cls(path)
        if path is None or not path.exists():
            return state
        try:
            kept = json.loads(path.read_text())
            for name in ("rounds", "known", "killed"):
                kept[name] = Counter(kept[name])
            kept["rests"] = [Rest(**rest) for rest in kept["rests"]]
            return cls(path, **kept)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not the state of a soak: {error!r}") from error

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        kept: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "path"}
        kept["rests"] = [asdict(rest) for rest in self.rests]
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(kept, indent=1))
        beside.replace(self.path)

    @property
    def hours(self) -> float:
        """How long it has gone on."""
        return self.seconds / 3600

    def find(self, what: str, why: str, **more: Any) -> None:
        """Note a finding, with the number of the round, and print it."""
        print(f"round {self.next}: {what}: {why}", flush=True)
        self.findings.append({"round": self.next, "what": what, "why": why, **more})
