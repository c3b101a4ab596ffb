"""Runs cases against a server: each on connections of its own, within a time, with a look at the server afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from vfio_user_xe.emulator.conformance.case import CASES, Case
from vfio_user_xe.emulator.conformance.context import RELEASE_TIMEOUT, Context, open_descriptors
from vfio_user_xe.emulator.conformance.outcomes import Failure, Skip
from vfio_user_xe.emulator.conformance.profile import Profile
from vfio_user_xe.emulator.conformance.started import StartedServer
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.vfio_user.client import Disconnected, ProtocolError, RequestError

CASE_TIMEOUT = 30.0
_GRACE = 0.05
"""Seconds in which a server that a case has brought down has ended."""
_LONG_GRACE = 0.5
"""And one whose first client has gone."""

_OF_SERVER = (Failure, Disconnected, ProtocolError, RequestError, TimeoutError)


class ServerGone(Exception):
    """The server does not answer at all: there is nothing to run cases against."""


def load_cases() -> dict[str, Case]:
    """Every case by id, in the order of the specification."""
    import vfio_user_xe.emulator.conformance.cases  # noqa: F401 - registers them

    return CASES


def select_cases(patterns: Sequence[str] = (), *, slow: bool = False) -> list[Case]:
    """The cases whose id matches one of `patterns` ("dma.*"; all without), the slow ones only if asked for or named.

    Raises:
        ValueError: a pattern matches nothing.
    """
    cases = load_cases()
    for pattern in patterns:
        if not any(fnmatchcase(identity, pattern) for identity in cases):
            groups = sorted({identity.partition(".")[0] for identity in cases})
            raise ValueError(f"no case matches {pattern!r}; groups are {', '.join(groups)}")
    return [
        found
        for found in cases.values()
        if (not patterns and (slow or not found.slow)) or any(fnmatchcase(found.id, p) for p in patterns)
    ]


class Runner:
    """Runs cases one by one. `server` is started again whenever it has ended.

    Raises:
        ServerGone: the server cannot even be asked what it is.
    """

    def __init__(
        self, path: str, profile: Profile, timeout: float = CASE_TIMEOUT, server: StartedServer | None = None
    ) -> None:
        self.path = path
        self.profile = profile
        self.timeout = timeout
        self.gone = False
        """Whether the server has stopped to serve clients."""
        self._server = server
        context = self._context()
        try:
            self.profile = profile.discovered(context.client)
        except _OF_SERVER as exc:
            raise ServerGone(f"{path}: {exc}") from exc
        finally:
            context.close()
        self._ready(_LONG_GRACE)
        # A second connection, so that what a server allocates once is allocated before descriptors are counted.
        self._look()

    def run(self, cases: Iterable[Case], progress: Callable[[Result], None] | None = None) -> list[Result]:
        """Run `cases`; `progress` is called with each result. Ends early when the server has ended and cannot be started again (`gone`)."""
        results = []
        for case in cases:
            result = self.run_one(case)
            results.append(result)
            if progress is not None:
                progress(result)
            if self.gone:
                break
        return results

    def run_one(self, case: Case) -> Result:
        """Run one case."""
        start = time.monotonic()
        described = case.described(self.profile.name)
        reason = self.profile.skip_reason(case.id)
        if reason is not None:
            return Result(described, Verdict.SKIP, reason)
        self._ready()
        if self._server is not None:
            self._server.trouble = ""
            self.profile = replace(self.profile, pid=self._server.pid)
        before = open_descriptors(self.profile.pid)
        verdict, detail = self._judge(case)
        if verdict is not Verdict.SKIP:
            harm = self._harm(before)
            if harm:
                verdict, detail = Verdict.FAIL, f"{detail}; {harm}" if detail else harm
        return Result(described, verdict, detail, time.monotonic() - start)

    def _judge(self, case: Case) -> tuple[Verdict, str]:
        context = self._context()
        outcome: list[BaseException | None] = []

        def body() -> None:
            try:
                case.check(context)
            except BaseException as exc:
                outcome.append(exc)
            else:
                outcome.append(None)

        thread = threading.Thread(target=body, name=case.id, daemon=True)
        thread.start()
        thread.join(self.timeout)
        hung = thread.is_alive()
        context.close()
        if hung:
            thread.join(self.timeout)
            return Verdict.FAIL, f"did not end within {self.timeout:g} s"
        error = outcome[0]
        if error is None:
            return Verdict.PASS, ""
        if isinstance(error, Skip):
            return Verdict.SKIP, str(error)
        if isinstance(error, _OF_SERVER):
            return Verdict.FAIL, str(error)
        # Not the server's doing: a mistake in the case.
        raise error

    def _look(self) -> None:
        context = self._context()
        try:
            context.serves_next_client()
        finally:
            context.close()

    def _harm(self, before: int | None) -> str:
        """What a case did to the server, if anything."""
        server = self._server
        self._ready()
        try:
            self._look()
        except _OF_SERVER as exc:
            self.gone = server is None
            if server is not None:
                server.start()
            return f"afterwards the server does not serve a client: {exc}"
        if server is not None and server.trouble:
            return server.trouble
        if before is None or (server is not None and server.pid != self.profile.pid):
            return ""
        deadline = time.monotonic() + RELEASE_TIMEOUT
        while (now := open_descriptors(self.profile.pid)) is not None and now > before:
            if time.monotonic() > deadline:
                return f"the server leaks {now - before} descriptors"
            time.sleep(0.005)
        return ""

    def _ready(self, grace: float = _GRACE) -> None:
        """A server that the suite has started is there, and not about to end because a client has gone."""
        if self._server is not None:
            self._server.revive(grace)
            if self._server.serves_one:
                self._server.start()

    def _context(self) -> Context:
        return Context(self.path, self.profile, None if self._server is None else self._server.revive)
