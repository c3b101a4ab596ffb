"""The loop: servers, their guests, the guests' rounds; after each guest the server is looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak import flat
from tests.soak.plan import GUESTS_OF_A_SERVER, KINDS, ROUNDS_OF_A_GUEST, Victim, round_of
from tests.soak.site import Site, site
from tests.soak.state import Rest, State
from tests.support.processes import descriptors
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.scenarios.runner import Runner

_SETTLE = 30.0
"""Seconds within which a server has noticed that its client is dead, and is at rest."""


class Soak:
    """Goes on with a state. From one thread."""

    def __init__(self, state: State, seed: int, shard: int, kernel: Kernel | None, consoles: Path | None) -> None:
        self._state = state
        self._seed = seed
        self._shard = shard
        self._kernel = kernel
        self._consoles = consoles
        self._since = time.monotonic()

    def run(self, until: float) -> None:
        """Until the moment `until` (of `time.monotonic`); the round that goes on then is finished.

        Raises:
            ServedCardError: a card cannot be served.
            MissingEnvironment: there is no guest environment.
        """
        self._since = time.monotonic()
        while time.monotonic() < until:
            kind = KINDS[self._state.servers % len(KINDS)]
            self._state.servers += 1
            with site(kind, self._kernel, self._consoles) as served:
                self._server(served, kind, until)
            self._count()

    def _server(self, served: Site, kind: Any, until: float) -> None:
        """The life of a server."""
        rests: list[Rest] = []
        for _ in range(GUESTS_OF_A_SERVER):
            if time.monotonic() >= until:
                break
            before = served.guests
            with served.guest() as runner:
                alive = self._guest(served, kind, runner, until)
            self._state.guests += served.guests - before
            self._count()
            if not alive:
                break
            rests.append(self.rest(served, rests[0].descriptors if rests else None))
            self._state.rests.append(rests[-1])
            for what, why in flat.left_over(served.card):
                self._state.find(what, why)
        if rests:
            # Of a server that was killed, nothing is open any more.
            for what, why in flat.growth(rests):
                self._state.find(what, why, open=sorted(one.target for one in descriptors(served.card.pid)))

    def _guest(self, served: Site, kind: Any, runner: Runner[Any], until: float) -> bool:
        """The rounds of a guest; whether the server lives."""
        for _ in range(ROUNDS_OF_A_GUEST):
            one = round_of(kind, self._seed, self._shard, self._state.next)
            result = served.play(runner, one)
            if one.victim is Victim.NOBODY:
                self.judged(result)
            else:
                self._state.killed[one.victim] += 1
            if one.victim is not Victim.SERVER and not served.card.alive:
                self._state.find(one.scenario.name, "the server has ended", log=served.card.log_tail())
            self._state.next += 1
            self._count()
            if not served.card.alive:
                return False
            if one.victim is Victim.QEMU or time.monotonic() >= until:
                break
        return True

    def judged(self, result: Result) -> None:
        """Count a result; a failure that no name explains is a finding."""
        if result.verdict is Verdict.FAIL:
            self._state.find(result.case.name, result.reason, evidence=[str(one)[:2000] for one in result.evidence])
        elif result.verdict is Verdict.EXPECTED_FAIL:
            self._state.known[result.defect] += 1
        self._state.rounds[result.case.name] += 1

    def rest(self, served: Site, usual: int | None) -> Rest:
        """What the server holds as soon as that does not change any more, and descriptors are not more than usual.

        On a busy host the end of a killed QEMU takes longer than two measurements.
        """
        deadline, last = time.monotonic() + _SETTLE, None
        for _ in self._until(deadline):
            rest = flat.measure(served.card, self._state.hours, self._state.servers, served.guests)
            settled = last is not None and (rest.descriptors, rest.threads) == (last.descriptors, last.threads)
            if settled and (usual is None or rest.descriptors <= usual):
                return rest
            last = rest
        assert last is not None
        return last

    @staticmethod
    def _until(deadline: float) -> Iterator[None]:
        while True:
            yield
            if time.monotonic() > deadline:
                return
            time.sleep(1)

    def _count(self) -> None:
        now = time.monotonic()
        self._state.seconds += now - self._since
        self._since = now
        self._state.save()
