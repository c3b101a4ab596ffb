"""`vfio-user-xe replay, redact`: what is done with recordings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail
from vfio_user_xe.emulator.model.card import CardError
from vfio_user_xe.emulator.observe.trace import parse_trace_argument
from vfio_user_xe.emulator.recording.format import RecordingError
from vfio_user_xe.emulator.recording.player import replay
from vfio_user_xe.emulator.recording.redact import redact

File = Annotated[Path, typer.Argument(metavar="FILE", help="A file that 'serve --record' wrote.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(
        "replay",
        epilog="Example: vfio-user-xe serve --socket-dir /tmp/card --record bug.gz, use it, then vfio-user-xe replay bug.gz",
    )(replay_command)
    app.command("redact", epilog="Example: vfio-user-xe redact bug.gz probe.xz --without firmware.bin")(redact_command)


def replay_command(
    file: File,
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
    trace: Annotated[
        str | None, typer.Option(metavar="CATEGORY,...:FILE", help="Trace these categories (or 'all') to a file.")
    ] = None,
) -> None:
    """Repeat what a recorded card did, without a guest, and report the first difference (exit code 1)."""
    with _explained():
        outcome = replay(file, trace=_trace(trace) if trace else None)
    if as_json:
        print(json.dumps(asdict(outcome)))
    else:
        rate = outcome.accesses / outcome.seconds if outcome.seconds else 0
        print(
            f"{outcome.events} events: {outcome.accesses} accesses, {outcome.jobs} jobs, {outcome.interrupts} interrupts"
            f" in {outcome.seconds:.2f} s ({rate:.0f} accesses/s)"
        )
        if outcome.failures:
            print(f"{outcome.failures} jobs of the device failed")
        if outcome.cut_off:
            print(outcome.cut_off)
        print(outcome.difference or "no difference")
    raise typer.Exit(1 if outcome.difference is not None or outcome.cut_off else 0)


def redact_command(
    file: File,
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The file for the redacted recording; *.xz is smallest.")
    ],
    without: Annotated[
        list[Path], typer.Option("--without", metavar="FILE", help="Remove the bytes of this file; repeatable.")
    ],
) -> None:
    """Remove bytes of others (firmware) from a recording, except for the few without which it does not replay."""
    if file.exists() and target.exists() and file.samefile(target):
        fail(f"redact: {target} is the recording itself: name another file", EXIT_USAGE)
    with _explained():
        done = redact(file, [path.read_bytes() for path in without], target)
    print(f"{target}: {done.found} bytes were found in it, {done.kept} had to stay ({done.replays} replays)")
    for event, offset, data in done.kept_at:
        print(f"  event {event}, offset {offset:#x}: {data.hex(' ')}")


def _trace(argument: str) -> tuple[list[str], str]:
    try:
        return parse_trace_argument(argument)
    except ValueError as exc:
        raise RecordingError(f"--trace {exc}") from None


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (RecordingError, CardError) as exc:
        fail(exc, EXIT_USAGE)
    except OSError as exc:
        fail(f"{exc.filename}: {exc.strerror}", EXIT_USAGE)
