"""What plug-ins have made of a card, checked before anybody uses it: mistakes of their authors are told with the plug-in's name."""

from __future__ import annotations

import errno
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.options import CardError
from vfio_user_xe.emulator.model.plugin_loading import Plugin
from vfio_user_xe.emulator.pci.function import Function

log = logging.getLogger(__name__)

_FUNCTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_OF_THE_CARD = ("control", "memory", "qtest")
"""What a card that is served has beside its functions."""
_OF_THE_HOST = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)
"""What the host has no more of is no mistake of the plug-in that asks for it."""


@contextmanager
def mistakes_of(plugin: Plugin) -> Iterator[None]:
    """Whatever a plug-in raises leaves as an error that names the plug-in; the log has its traceback.

    Raises:
        CardError: it raised something else; its own CardErrors leave as they are.
        OSError: the host has no more descriptors, or no more memory.
    """
    try:
        yield
    except CardError:
        raise
    except MISTAKES as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_HOST:
            raise
        who = f"{plugin.kind} {plugin.name} ({plugin.module}, package {plugin.distribution})"
        # Not the frame of this block: the plug-in's own come first.
        frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
        log.exception("%s failed", who, exc_info=(type(error), error, frames))
        raise CardError(f"{who} fails: {type(error).__name__}: {error}") from None


def check_functions(model: str, functions: Sequence[Function]) -> None:
    """There are functions, whose names name them everywhere: on a command line, in a ledger, as a file.

    Raises:
        CardError: there are none, or a name cannot be one.
    """
    if not functions:
        raise CardError(f"the device model {model} has made no function: it appends them to card.functions")
    for one in functions:
        if not isinstance(one, Function):
            raise CardError(f"the device model {model} has made a function of {one!r}, which is no Function")
    names = [function.name for function in functions]
    for name in names:
        if not isinstance(name, str) or not _FUNCTION.fullmatch(name):
            raise CardError(
                f"the device model {model} calls a function {name!r}; a name is ASCII letters, digits, '-' and '_', the first one a letter or digit"
            )
        if name in _OF_THE_CARD:
            raise CardError(f"the device model {model} calls a function {name!r}, as something of every card is called")
        if names.count(name) > 1:
            raise CardError(f"the device model {model} calls {names.count(name)} functions {name!r}")


def check_commands(model: str, commands: Mapping[str, Callable[..., Any]], taken: Mapping[str, object]) -> None:
    """A model's commands can be called, and none is called as one of every card (`taken`).

    Raises:
        CardError: one cannot, or is.
    """
    for name, command in commands.items():
        if not callable(command):
            raise CardError(f"the device model {model} has a command {name!r} that is no function: {command!r}")
        if name in taken:
            raise CardError(
                f"the device model {model} has a command {name!r}, as every card has: it needs another name"
            )
        try:
            inspect.signature(command)
        except (TypeError, ValueError):
            raise CardError(
                f"the device model {model} has a command {name!r} whose arguments are not known: wrap it in a function"
            ) from None
