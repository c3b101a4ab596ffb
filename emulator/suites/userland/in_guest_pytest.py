"""Runs pytest tests inside a guest, each with a time limit, and prints a line of JSON for each.

The guest's python3 runs this file as a program, so it uses the standard library alone.  pytest is a child process: a test
that hangs is ended with it, one that crashes ends it, and the rest goes on in a new child.

    python3 in_guest_pytest.py list FOLDER FILE...             the tests, a line of JSON each
    python3 in_guest_pytest.py run FOLDER LIMIT BUDGET <FILE   FILE has a line of JSON for each test; both times in seconds

After BUDGET seconds no further test begins; what was not run is not in the output.  Where IN_GUEST_LOG names a file, /dev/kmsg,
a line there says which test begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

KEPT = 4000
"""Characters of a failure's text that are kept, from its end."""

MARK = "in-guest: begin "
"""What a line of the log begins with, before the test's id."""

START_LIMIT = 300.0
"""Seconds until pytest has collected its tests: imports are slow where the guest is emulated."""

# pytest's plug-in in the child: which tests run, and a line for each event.
_PLUGIN = """
import json, os
_wanted = set(json.loads(os.environ["IN_GUEST_WANTED"])) if "IN_GUEST_WANTED" in os.environ else None
_out = os.fdopen(int(os.environ["IN_GUEST_FD"]), "w", buffering=1)

def _say(**fields):
    _out.write(json.dumps(fields) + "\\n")

def pytest_collection_modifyitems(items):
    if _wanted is None:
        for item in items:
            _say(event="found", id=item.nodeid)
    else:
        items[:] = [item for item in items if item.nodeid in _wanted]

def pytest_collectreport(report):
    if report.failed:
        _say(event="end", id=report.nodeid, outcome="fail", seconds=0, text=str(report.longrepr)[-4000:])

def pytest_runtest_logstart(nodeid):
    _say(event="begin", id=nodeid)

def pytest_runtest_logreport(report):
    outcome = {"passed": "pass", "failed": "fail", "skipped": "skip"}[report.outcome]
    if hasattr(report, "wasxfail"):
        outcome = "skip" if report.outcome == "skipped" else "pass"
    text = "" if outcome == "pass" else str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if report.when == "call" or outcome != "pass":
        _say(event="end", id=report.nodeid, outcome=outcome, seconds=report.duration, text=text[-4000:])
"""


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    command, folder, *rest = arguments
    if command == "list":
        for event in _events(folder, rest, None, lambda: START_LIMIT):
            print(json.dumps(event), flush=True)
        return
    limit, budget = (float(word) for word in rest)
    for result in run(folder, [json.loads(line) for line in sys.stdin if line.strip()], limit, budget):
        print(json.dumps(result), flush=True)


def run(folder: str, wanted: Sequence[str], limit: float, budget: float) -> Iterator[dict[str, object]]:
    """Run the tests `wanted` (pytest's ids) in `folder`; a result for each that was run, in order."""
    until = time.monotonic() + budget
    left = list(wanted)
    while left and time.monotonic() < until:
        progress = False
        for result in _child(folder, left, limit, until):
            progress = True
            name = str(result["id"])
            # An error of a whole file is the result of each test of it.
            ended = [name] if name in left else [item for item in left if item.split("::")[0] == name]
            for item in ended:
                left.remove(item)
                yield result | {"id": item}
        if not progress:
            return


def _child(folder: str, wanted: Sequence[str], limit: float, until: float) -> Iterator[dict[str, object]]:
    """The results of one child, until its end, the first test that does not end, or the time `until`."""
    running: str | None = None
    began = time.monotonic()

    def allowed() -> float:
        return (limit if running is not None else START_LIMIT) - (time.monotonic() - began)

    files = list(dict.fromkeys(name.split("::")[0] for name in wanted))
    for event in _events(folder, files, wanted, allowed):
        kind = event.pop("event")
        if kind == "begin":
            running, began = str(event["id"]), time.monotonic()
            _mark(running)
        elif kind == "end":
            running, began = None, time.monotonic()
            yield event
            if time.monotonic() > until:
                return
        elif kind in ("crash", "timeout"):
            seconds = time.monotonic() - began
            yield event | {"id": running or wanted[0], "outcome": kind, "seconds": seconds}
            return


def _mark(name: str) -> None:
    log = os.environ.get("IN_GUEST_LOG")
    if not log:
        return
    with contextlib.suppress(OSError):
        # /dev/kmsg cannot be sought, as open(..., "a") wants to, and takes a record with each write.
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, f"{MARK}{name}\n".encode())
        finally:
            os.close(file)


def _events(
    folder: str, files: Sequence[str], wanted: Sequence[str] | None, allowed: Callable[[], float]
) -> Iterator[dict[str, object]]:
    """What the plug-in of one child says; then "crash" or "timeout" where it did not end by itself."""
    with tempfile.TemporaryDirectory(prefix="in-guest-") as scratch:
        yield from _child_events(folder, files, wanted, allowed, Path(scratch))


def _child_events(
    folder: str, files: Sequence[str], wanted: Sequence[str] | None, allowed: Callable[[], float], plugin: Path
) -> Iterator[dict[str, object]]:
    read_end, write_end = os.pipe()
    (plugin / "in_guest_reporter.py").write_text(_PLUGIN)
    environment = {
        **os.environ,
        "IN_GUEST_FD": str(write_end),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(plugin), os.environ.get("PYTHONPATH")])),
    }
    if wanted is not None:
        environment["IN_GUEST_WANTED"] = json.dumps(list(wanted))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "in_guest_reporter", "-p", "no:cacheprovider"]
    words += ["--continue-on-collection-errors", "--rootdir", folder]
    words += ["--collect-only"] if wanted is None else []
    output = plugin / "output.txt"
    with output.open("wb") as log:
        child = subprocess.Popen(
            [*words, *files], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=[write_end], start_new_session=True,
        )  # fmt: skip
    os.close(write_end)
    kept = b""
    try:
        with os.fdopen(read_end, "rb", buffering=0) as stream:
            poller = select.poll()
            poller.register(stream, select.POLLIN)
            while True:
                ready = poller.poll(max(0.0, allowed()) * 1000)
                if not ready:
                    yield {"event": "timeout", "text": _tail(output)}
                    return
                data = stream.read(65536)
                if not data:
                    break
                *lines, kept = (kept + data).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        code = child.wait()
        if code not in (0, 1, 5):
            text = f"signal {-code}" if code < 0 else f"exit code {code}"
            yield {"event": "crash", "text": f"{text}\n{_tail(output)}"}
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-KEPT:]


if __name__ == "__main__":
    main(sys.argv[1:])
