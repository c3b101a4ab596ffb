"""KTAP, in which KUnit says how its tests ended (Documentation/dev-tools/ktap.rst)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RESULT = re.compile(r"^(\s*)(not )?ok \d+ (?:- )?(.*?)(?: # (.*))?$")
_SUBTEST = re.compile(r"^\s*# Subtest: (.+)$")


@dataclass(frozen=True, slots=True)
class KtapTest:
    """One test without subtests: its name with those that it is part of, how it ended, and why it was skipped."""

    name: str
    passed: bool
    skipped: bool = False
    why: str = ""


def ktap_tests(text: str) -> list[KtapTest]:
    """The tests in a log, the innermost ones only; lines of anything else are passed over."""
    found: list[tuple[int, KtapTest]] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if subtest := _SUBTEST.match(line):
            path = [(depth, name) for depth, name in path if depth < indent]
            path.append((indent, subtest[1]))
        elif result := _RESULT.match(line):
            within = [name for depth, name in path if depth <= indent]
            inner = [test for depth, test in found if depth > indent]
            if inner:
                # This line sums up what was inside of it.
                found = [(indent, test) if depth > indent else (depth, test) for depth, test in found]
                path = [(depth, name) for depth, name in path if depth <= indent]
                if result[2] and all(test.passed for test in inner):
                    found.append((indent, KtapTest(" > ".join([*within, result[3]]), False)))
                continue
            skipped = (result[4] or "").upper().startswith("SKIP")
            why = (result[4] or "")[4:].strip() if skipped else ""
            found.append((indent, KtapTest(" > ".join([*within, result[3]]), not result[2], skipped, why)))
    return [test for _, test in found]
