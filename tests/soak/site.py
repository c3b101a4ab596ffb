"""A server that outlives its guests, and the scenarios' runner on it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from tests.soak.plan import Kind, Round, Victim
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.settings import Beside, GuestSettings
from vfio_user_xe.emulator.results import Result
from vfio_user_xe.emulator.scenarios.runner import Runner
from vfio_user_xe.emulator.testing.lab import Lab, LiveCard, open_card, open_guest


class Site:
    """One server, and one guest after the other that has its card. From one thread."""

    def __init__(self, card: LiveCard, kind: Kind, kernel: Kernel | None, consoles: Path | None) -> None:
        self.card = card
        self.guests = 0
        """How many have been started."""
        self._kind = kind
        self._kernel = kernel
        self._consoles = consoles
        self._lab: Lab | None = None

    @contextlib.contextmanager
    def guest(self) -> Iterator[Runner[Any]]:
        """A runner of scenarios whose guests have this server's card; the last one is ended with the block.

        Raises:
            MissingEnvironment: there is no guest environment.
        """
        environment = locate()
        runner: Runner[Any] = Runner(
            self._kind.suite,
            self._kind.suite.files(environment),
            kernel=self._kernel or Kernel.packaged(environment),
            console_folder=self._consoles,
            opened=self._opened,
        )
        with runner.session():
            yield runner

    def play(self, runner: Runner[Any], one: Round) -> Result:
        """Run a round's scenario; its victim is killed meanwhile, or when it has ended."""
        if one.victim is Victim.NOBODY:
            return runner.run_one(one.scenario)
        done = threading.Event()
        killer = threading.Thread(target=self._kill, args=(one, done), name="killer")
        killer.start()
        try:
            return runner.run_one(one.scenario)
        finally:
            done.set()
            killer.join()

    def _kill(self, one: Round, done: threading.Event) -> None:
        # A guest that is not there yet is not waited for: the server may be killed while one boots.
        done.wait(one.after)
        lab = self._lab
        with contextlib.suppress(ProcessLookupError, LookupError):
            if one.victim is Victim.SERVER:
                os.kill(self.card.pid, signal.SIGKILL)
            elif lab is not None:
                os.kill(lab.guest.pid, signal.SIGKILL)

    @contextlib.contextmanager
    def _opened(
        self,
        serve: Sequence[str],
        *,
        others: Sequence[Sequence[str]],
        beside: Sequence[Beside],
        **guest: Unpack[GuestSettings],
    ) -> Iterator[Lab]:
        if others or beside or tuple(serve) != self.card.arguments:
            raise ValueError(f"this server was started with {self.card.arguments}, the set-up wants {tuple(serve)}")
        self.guests += 1
        with open_guest(self.card, **guest) as booted:
            self._lab = Lab(self.card, booted)
            try:
                yield self._lab
            finally:
                self._lab = None


@contextlib.contextmanager
def site(kind: Kind, kernel: Kernel | None = None, consoles: Path | None = None) -> Iterator[Site]:
    """Serve a card of this kind; gone with the block.

    Raises:
        ServedCardError: it cannot be served.
    """
    with open_card(kind.scenarios[0].setup.serve) as card:
        yield Site(card, kind, kernel, consoles)
