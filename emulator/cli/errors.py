"""How a command ends that cannot do its work: a message on standard error and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from vfio_user_xe.emulator.guest.errors import GuestError, NotUsable
from vfio_user_xe.emulator.guest.served import ServedCardError
from vfio_user_xe.emulator.model.options import CardError
from vfio_user_xe.emulator.model.plugin_loading import PluginError
from vfio_user_xe.emulator.recording.format import RecordingError
from vfio_user_xe.emulator.vfio_user.libvfio_user import BackendError
from vfio_user_xe.emulator.vfio_user.server import ServerError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""As a shell counts a program that SIGINT ended."""


def fail(message: object, code: int = EXIT_FAILED) -> NoReturn:
    """Print an error on standard error, and end with this exit code."""
    say(message)
    raise typer.Exit(code) from None


def say(message: object) -> None:
    """A message on standard error that names the program."""
    print(f"vfio-user-xe: {message}", file=sys.stderr)


def words(error: BaseException) -> str:
    """An error's text without the number that an OSError's begins with."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.errno == errno.EMFILE:
        return f"{error.strerror}: raise the limit of descriptors (ulimit -n)"
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part)


def exit_code_of(error: Exception) -> int:
    """`EXIT_USAGE` for what an argument names that is not there or cannot be used, `EXIT_FAILED` for the rest."""
    if isinstance(error, ServedCardError):
        return EXIT_USAGE if error.code == EXIT_USAGE else EXIT_FAILED
    return EXIT_USAGE if isinstance(error, CardError | PluginError | RecordingError | NotUsable) else EXIT_FAILED


@contextmanager
def explained() -> Iterator[None]:
    """Turn the errors that explain themselves into a message and an exit code."""
    try:
        yield
    except (CardError, PluginError, RecordingError, GuestError, ServedCardError) as exc:
        fail(exc, exit_code_of(exc))
    except (ServerError, BackendError) as exc:
        fail(exc)
    except OSError as exc:
        if not isinstance(exc, FileNotFoundError) and exc.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        fail(words(exc))
    except BaseExceptionGroup as group:
        # What ended one of trio's tasks; the nurseries around it wrap it.
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, (CardError, ServerError, BackendError, OSError)):
            fail(words(first), exit_code_of(first))
        raise
