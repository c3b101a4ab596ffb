"""A black-box conformance suite for vfio-user servers, written from the specification; see `docs/conformance.md`.

    results = run("/run/card/pf.sock", Profile.load("my-device.toml"))

The suite speaks to a socket and knows nothing of the server behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vfio_user_xe.emulator.conformance.case import suite_name
from vfio_user_xe.emulator.conformance.profile import Profile, ProfileError
from vfio_user_xe.emulator.conformance.runner import Runner, ServerGone, select_cases
from vfio_user_xe.emulator.conformance.started import NotStarted, StartedServer
from vfio_user_xe.emulator.results import Report, Result, Verdict
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.results.text import RULE, line, summary


def run(
    socket_path: str,
    profile: Profile | None = None,
    *,
    cases: Sequence[str] = (),
    slow: bool = False,
    timeout: float = 30.0,
    start: str = "",
    progress: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Run cases against the server at `socket_path`, which must have no other client.

    `cases` are patterns of ids ("dma.*"), all without; `slow` adds the slow ones; `timeout` is seconds a case; `start` is
    a command that serves, run now and whenever it has ended. Fewer results than cases: the server is gone for good.

    Raises:
        ValueError: a pattern matches nothing.
        ServerGone: the server cannot even be asked what it is.
        NotStarted: `start` does not lead to a socket.
    """

    chosen = select_cases(cases, slow=slow)
    server = StartedServer(start, socket_path) if start else None
    try:
        return Runner(socket_path, profile or Profile(), timeout, server).run(chosen, progress)
    finally:
        if server is not None:
            server.close()


def report_of(results: Sequence[Result], subject: str) -> Report:
    """The results of `run` as a report; `subject` is the profile's name."""

    return Report(suite_name(subject), list(results))


def summary_of(results: Sequence[Result]) -> str:
    """How many cases passed, failed and were skipped, in one line."""

    counted = summary(results, "cases", (Verdict.PASS, Verdict.FAIL, Verdict.SKIP))
    return f"{counted} in {sum(result.seconds for result in results):.1f} s"


def main(
    socket_path: str,
    profile_path: str | None = None,
    junit_path: str | None = None,
    *,
    cases: Sequence[str] = (),
    slow: bool = False,
    list_only: bool = False,
    timeout: float = 30.0,
    start: str = "",
    echo: Callable[[str], None] = print,
) -> int:
    """`vfio-user-xe conformance`: run, print, write the JUnit file; returns the exit code.

    0: every case passed or was skipped. 1: at least one failed. 2: nothing could be run (`echo` says why).
    Interrupted (KeyboardInterrupt), the file has what has come out so far.
    """

    so_far: list[Result] = []

    def progress(result: Result) -> None:
        so_far.append(result)
        echo(line(result, RULE))

    def save(results: Sequence[Result], subject: str) -> None:
        if junit_path:
            Path(junit_path).write_text(junit(report_of(results, subject)), "utf-8")

    try:
        if list_only:
            for case in select_cases(cases, slow=True):
                echo(f"{case.id}  [{case.section}]  {case.summary}")
            return 0
        profile = Profile.load(profile_path) if profile_path else Profile(name=socket_path)
        try:
            results = run(socket_path, profile, cases=cases, slow=slow, timeout=timeout, start=start, progress=progress)
        except KeyboardInterrupt:
            save(so_far, profile.name)
            raise
        save(results, profile.name)
    except (ProfileError, ServerGone, NotStarted, ValueError) as exc:
        echo(f"error: {exc}")
        return 2
    except OSError as exc:
        echo(f"error: cannot write {junit_path}: {exc.strerror}")
        return 2
    echo(summary_of(results))
    left = len(select_cases(cases, slow=slow)) - len(results)
    if left:
        echo(f"the server is gone: {left} cases were not run")
    return int(report_of(results, profile.name).failed)
