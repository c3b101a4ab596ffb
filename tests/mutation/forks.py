"""A process that forks a pytest for each request: what tests import from outside of the checkout is imported once.

Run as a script in a copy of the checkout. A line of JSON on standard input, `{"arguments": [...], "timeout": seconds}`, is
answered with a line on the descriptor of the first argument: the exit code, or "timeout". What pytest prints goes to the
file `.output`.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import sys

OUTPUT = ".output"
TIMED_OUT = "timeout"

_IMPORTED = (
    "construct", "hypothesis.strategies", "jinja2", "numpy", "pytest", "pytest_cov.plugin", "pytest_html.plugin",
    "pytest_metadata.plugin", "pytest_timeout", "rich.console", "trio", "typer", "xdist.plugin",
)  # fmt: skip


def main() -> None:
    answers = int(sys.argv[1])
    # The script's own folder is no place to import from; the copy is.
    sys.path[0] = ""
    for name in _IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        os.write(answers, f"{_forked(request['arguments'], request['timeout'])}\n".encode())


def _forked(arguments: list[str], timeout: float | None) -> str:
    child = os.fork()
    if not child:
        os.setsid()
        output = os.open(OUTPUT, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        import pytest

        code = int(pytest.main(arguments))
        sys.stdout.flush()
        os._exit(code)
    ended = os.pidfd_open(child)
    try:
        in_time = bool(select.select([ended], [], [], timeout)[0])
    finally:
        os.close(ended)
    # Also what its tests have left running.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return str(os.waitstatus_to_exitcode(status)) if in_time else TIMED_OUT


if __name__ == "__main__":
    main()
