"""The control plane: commands by name, with JSON arguments and results. The socket is `vfio_user_xe.emulator.vfio_user`'s.

A request is one line, `{"id": 1, "command": "ledger", "arguments": {"clear": true}}`; its answer is one line,
`{"id": 1, "result": ...}` or `{"id": 1, "error": {"message": "...", "allowed": [...]}}`. `docs/control-socket.md`
lists the commands. Device models add theirs to `card.commands`; those run on the card's executor, where they may look at
everything that the model does, unless they are marked `inline`.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vfio_user_xe.emulator.control.commands import core_commands
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.card import Card, CardError
from vfio_user_xe.emulator.model.executor import Busy, NotRunning
from vfio_user_xe.emulator.model.made_card import check_commands
from vfio_user_xe.emulator.model.options import UnknownName, similar

log = logging.getLogger(__name__)

EXECUTOR_PATIENCE = 30.0
"""Seconds that a command waits for its turn on the executor."""

Function = TypeVar("Function", bound=Callable[..., Any])


def inline(command: Function) -> Function:
    """Mark a command that runs on the control plane's own thread: it must not touch what the executor changes."""

    @functools.wraps(command)
    def call(**arguments: Any) -> Any:
        return command(**arguments)

    call.on_executor = False  # type: ignore[attr-defined]
    return typing.cast(Function, call)


class Control:
    """The commands of one card."""

    def __init__(self, card: Card) -> None:
        """Take the card's commands.

        Raises:
            CardError: the device model has one that cannot be called, or is called as one of every card.
        """
        self._card = card
        core = {name: inline(command) for name, command in core_commands(card).items()}
        self._core = {"help": inline(self.help), **core}
        check_commands(card.config.model, card.commands, self._core)

    @property
    def commands(self) -> Mapping[str, Callable[..., Any]]:
        """Every command by name: the model's and the core's."""
        return {**self._card.commands, **self._core}

    def help(self, command: str | None = None) -> list[dict[str, str]]:
        """The commands, or one: name, arguments, and what it does."""
        wanted = [self._find(command)] if command is not None else sorted(self.commands)
        return [
            {
                "command": name,
                "arguments": _usage(self.commands[name]),
                "help": (inspect.getdoc(self.commands[name]) or "").partition("\n")[0],
            }
            for name in wanted
        ]

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command; blocks.

        Raises:
            CommandError: The command is unknown, its arguments are wrong, it refuses them, or it failed.

        From any thread.
        """
        command = self.commands[self._find(name)]
        try:
            converted = _converted(name, command, arguments)
        except CommandError:
            raise
        except Exception as error:
            raise _internal(name, error) from error
        try:
            if getattr(command, "on_executor", True):
                return self._card.executor.run_sync(lambda: command(**converted), EXECUTOR_PATIENCE)
            return command(**converted)
        except CommandError as error:
            raise CommandError(f"{name}: {error.message}", error.allowed) from error
        except UnknownName as error:
            raise CommandError(f"{name}: {error}", error.allowed) from error
        except (AccessFault, CardError) as error:
            raise CommandError(f"{name}: {error}") from error
        except (Busy, NotRunning) as error:
            log.warning("control command %s: %s", name, error)
            raise CommandError(f"{name}: {error}") from error
        except MISTAKES as error:
            raise _internal(name, error) from error

    def handle(self, line: bytes) -> bytes:
        """Answer one request line with one line; blocks, never raises."""
        identity: Any = None
        try:
            request = _parse(line)
            identity = request.get("id")
            name = request["command"]
            result = self.call(name, request.get("arguments", {}))
            try:
                answer = json.dumps({"id": identity, "result": result})
            except (TypeError, ValueError, RecursionError) as error:
                raise _internal(name, error) from error
        except CommandError as error:
            answer = json.dumps({"id": identity, "error": {"message": error.message, "allowed": error.allowed}})
        return answer.encode() + b"\n"

    def _find(self, name: str) -> str:
        if name not in self.commands:
            raise CommandError(f'there is no command "{name}"{similar(name, self.commands)}', sorted(self.commands))
        return name


def _internal(name: str, error: BaseException) -> CommandError:
    """What is answered for an error that is nobody's wrong argument: a defect, whose traceback is in the log."""
    log.error("control command %s failed", name, exc_info=error)
    return CommandError(
        f"{name}: internal error: {type(error).__name__}: {error}; the server's log (its standard error) has the traceback"
    )


def _parse(line: bytes) -> dict[str, Any]:
    """A request, its members of the right types."""
    try:
        request = json.loads(line)
    except ValueError as error:
        raise CommandError(f"the request is not a line of JSON: {error}") from None
    except RecursionError:
        raise CommandError("the request is nested too deeply") from None
    allowed = ["id", "command", "arguments"]
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise CommandError('the request must be an object with a "command"', allowed)
    if not isinstance(request.get("arguments", {}), dict):
        raise CommandError('"arguments" must be an object', allowed)
    for member in request:
        if member not in allowed:
            raise CommandError(f'a request has no member "{member}"', allowed)
    return request


def _usage(command: Callable[..., Any]) -> str:
    """ "function: str, length: int = 4"."""
    parameters = inspect.signature(command).parameters.values()
    return ", ".join(str(parameter).replace("'", "") for parameter in parameters)


def _converted(name: str, command: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` as the command's annotations want them: numbers may be written as "0x40"."""
    parameters = inspect.signature(command).parameters
    usage = [str(parameter).replace("'", "") for parameter in parameters.values()]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for given in arguments:
        if given not in parameters and not open_ended:
            raise CommandError(f'{name} has no argument "{given}"{similar(given, parameters)}', usage)
    for needed, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if required and needed not in arguments:
            raise CommandError(f'{name} needs the argument "{needed}"', usage)
    hints = typing.get_type_hints(inspect.unwrap(command))
    return {given: _convert(name, given, value, hints.get(given, Any), usage) for given, value in arguments.items()}


def _convert(command: str, argument: str, value: Any, hint: Any, usage: list[str]) -> Any:
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    choices = typing.get_args(hint) if union else (hint,)
    if int in choices and isinstance(value, str) and str not in choices:
        try:
            return int(value, 0)
        except ValueError:
            raise CommandError(f'{command}: {argument}: "{value}" is not a number', usage) from None
    if not any(_is(value, choice) for choice in choices):
        wanted = " or ".join(_in_words(choice) for choice in choices if choice is not type(None))
        given = json.dumps(value)
        cure = f"; write {json.dumps([value])}" if isinstance(value, str) and list[str] in choices else ""
        raise CommandError(
            f"{command}: {argument}: {given} is {_in_words(type(value))}, wanted is {wanted}{cure}", usage
        )
    return value


_WORDS = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_MANY = {bool: "booleans", int: "integers", float: "numbers", str: "strings", list: "lists", dict: "objects"}


def _is(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is what the annotation of a command's argument says."""
    if hint is Any:
        return True
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if not isinstance(kind, type):
        return True  # an annotation of another kind: the command looks at the value itself
    if isinstance(value, bool):
        return bool(kind is bool)
    if kind is float:
        return isinstance(value, (int, float))
    if not isinstance(value, kind):
        return False
    if isinstance(value, list) and inner:
        return all(_is(item, inner[0]) for item in value)
    return not (isinstance(value, dict) and inner) or all(_is(item, inner[1]) for item in value.values())


def _in_words(hint: Any) -> str:
    """An annotation as a person says it: "a list of strings"."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    words = _WORDS.get(kind, str(hint))
    of = _MANY.get(typing.get_origin(inner[-1]) or inner[-1]) if inner else None
    return f"{words} of {of}" if of else words
