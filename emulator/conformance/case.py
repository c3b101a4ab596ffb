"""Conformance cases, and the list of all of them.

A case is a function of one `Context`. Its name states the behaviour, its docstring the rule, and the decorator the
section of the vfio-user specification that the rule is in:

    @case("VFIO_USER_DMA_MAP")
    def identical_range_is_refused(t: Context) -> None:
        \"\"\"A range over an existing one is refused with EEXIST.\"\"\"

It returns for a pass and raises `Failure` or `Skip`. Cases know nothing of the server under test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vfio_user_xe.emulator import results
from vfio_user_xe.emulator.conformance.context import Context

Check = Callable[[Context], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `silent` says that the specification states no rule here, and the case tests robustness."""

    id: str
    section: str
    silent: bool
    slow: bool
    check: Check

    @property
    def summary(self) -> str:
        """The rule, in one line."""
        return (self.check.__doc__ or "").strip().splitlines()[0]

    def described(self, subject: str) -> results.Case:
        """The case as results name it; `subject` is what is tested."""
        group, _, name = self.id.partition(".")
        return results.Case(
            suite=suite_name(subject),
            group=f"conformance.{group}",
            name=name,
            rule=self.summary,
            source=self.section,
            label=self.id,
            tags=("robustness",) if self.silent else (),
        )


def suite_name(subject: str) -> str:
    """The suite's name in reports, when it is run against `subject`."""
    return f"vfio-user conformance: {subject}"


CASES: dict[str, Case] = {}


def case(section: str, *, silent: bool = False, slow: bool = False) -> Callable[[Check], Check]:
    """Register a case; see the module. `slow` ones run only when asked for."""

    def register(check: Check) -> Check:
        identity = f"{_group(check.__module__)}.{check.__name__}"
        if identity in CASES:
            raise ValueError(f"two cases are called {identity}")
        if not check.__doc__:
            raise ValueError(f"case {identity} does not say what its rule is")
        CASES[identity] = Case(identity, section, silent, slow, check)
        return check

    return register


def _group(module: str) -> str:
    """The group of the cases in a module: its name, or that of the package in `cases` which it is in."""
    inside = module.partition(".cases.")[2]
    return inside.partition(".")[0] if inside else module.rpartition(".")[2]
