"""The marks of the pytest plug-in: what a test writes of its card and its guest, checked before anything is started.

Whatever is wrong in a mark is a `pytest.UsageError` that names the mark, what was written, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pytest

if TYPE_CHECKING:
    from vfio_user_xe.emulator.guest.serve_options import ServeOptions

CARD_MARK = "vfio_user_card"
GUEST_MARK = "vfio_user_guest"

_VALUES = (str, int, float, bool)
_WORDS = "text, an integer, a float or a bool"


def card_of(request: pytest.FixtureRequest) -> tuple[tuple[str, ...], bool]:
    """Arguments of `serve` by the mark nearest to the test, and whether the card is the test's own.

    Raises:
        pytest.UsageError: the mark has an argument that is not allowed.
    """
    mark = request.node.get_closest_marker(CARD_MARK)
    named: dict[str, Any] = dict(mark.kwargs) if mark else {}
    fresh = _fresh(named, CARD_MARK)
    arguments = (*_options(named).argv(), *_texts(mark.args if mark else ()))
    file = request.config.getoption("vfio_user_xe_card")
    if file and not {"--card", "--model"} & set(arguments):
        arguments = (*_options({"card": file}).argv(), *arguments)
    return arguments, fresh


def _texts(arguments: Sequence[object]) -> list[str]:
    """Arguments as they stand on a command line."""
    for number, argument in enumerate(arguments, 1):
        if not isinstance(argument, str | int | float | Path) or isinstance(argument, bool):
            raise pytest.UsageError(
                f"the mark {CARD_MARK}: argument {number}, {argument!r}, is of type {type(argument).__name__}"
                " (allowed: text, an integer, a float or a path; anything else by keyword)"
            )
    return [str(argument) for argument in arguments]


def _options(named: Mapping[str, Any]) -> ServeOptions:
    """The options that the mark gives by keyword, each of the type that it has in `ServeOptions`."""
    from vfio_user_xe.emulator.guest.serve_options import ServeOptions

    hints = get_type_hints(ServeOptions)
    allowed = [item.name for item in fields(ServeOptions)]
    values: dict[str, Any] = {}
    for name, value in named.items():
        if name not in allowed:
            raise pytest.UsageError(
                f"the mark {CARD_MARK} has no keyword {name!r} (allowed: fresh, {', '.join(allowed)})"
            )
        if name == "settings":
            values[name] = _settings(value)
        elif tuple in (kinds := _kinds(hints[name])):
            values[name] = _list_of_texts(name, value)
        elif type(value) in kinds or (Path in kinds and isinstance(value, str | Path)):
            values[name] = value
        else:
            wanted = " or ".join(kind.__name__ for kind in kinds if kind is not NoneType)
            raise pytest.UsageError(
                f"the mark {CARD_MARK}: {name}={value!r} is of type {type(value).__name__} (allowed: {wanted})"
            )
    return ServeOptions(**values)


def _kinds(hint: Any) -> list[type]:
    """The classes of a type hint: int and None for `int | None`, tuple for `tuple[str, ...]`."""
    return [getattr(kind, "__origin__", kind) for kind in (get_args(hint) if _is_union(hint) else (hint,))]


def _is_union(hint: Any) -> bool:
    return NoneType in get_args(hint)


def _list_of_texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise pytest.UsageError(f"the mark {CARD_MARK}: {name}={value!r} is not a list of text")
    return tuple(value)


def _settings(value: object) -> tuple[str, ...]:
    """Options of the device model, as `--set` takes them."""
    if not isinstance(value, Mapping):
        raise pytest.UsageError(f"the mark {CARD_MARK}: settings={value!r} is not a dict of options and values")
    for key, one in value.items():
        if not isinstance(key, str) or type(one) not in _VALUES:
            raise pytest.UsageError(
                f"the mark {CARD_MARK}: settings[{key!r}]={one!r} is of type {type(one).__name__} (allowed: {_WORDS})"
            )
    return tuple(f"{key}={str(one).lower() if isinstance(one, bool) else one}" for key, one in value.items())


def guest_of(request: pytest.FixtureRequest) -> tuple[dict[str, Any], bool]:
    """Settings of `open_lab`, the mark nearest to the test first, and whether the guest is the test's own."""
    from vfio_user_xe.emulator.guest.kernel import Kernel
    from vfio_user_xe.emulator.testing.lab import guest_settings

    settings: dict[str, Any] = {}
    for mark in request.node.iter_markers(GUEST_MARK):
        if mark.args:
            raise pytest.UsageError(f"the mark {GUEST_MARK} takes keyword arguments only")
        settings = {**mark.kwargs, **settings}
    fresh = _fresh(settings, GUEST_MARK)
    allowed = guest_settings()
    for name in settings:
        if name not in allowed:
            raise pytest.UsageError(f"the mark {GUEST_MARK} has no setting {name!r} (allowed: {', '.join(allowed)})")
    option = request.config.getoption
    kernel, modules = option("vfio_user_xe_kernel"), option("vfio_user_xe_modules")
    if kernel is not None:
        settings.setdefault("kernel", Kernel.custom(kernel, modules))
    elif modules is not None:
        raise pytest.UsageError("--vfio-user-xe-modules needs --vfio-user-xe-kernel")
    settings.setdefault("accelerator", option("vfio_user_xe_accelerator"))
    folder: Path | None = option("vfio_user_xe_console")
    if folder is not None and "console" not in settings:
        folder.mkdir(parents=True, exist_ok=True)
        module = request.node.nodeid.partition("::")[0].replace("/", "_")
        name = "".join(c if c.isalnum() or c in "_.-" else "_" for c in request.node.name) if fresh else "shared"
        settings["console"] = folder / f"{module}.{name}.txt"
    return settings, fresh


def _fresh(named: dict[str, Any], mark: str) -> bool:
    """Take `fresh` out of a mark's keywords."""
    fresh = named.pop("fresh", False)
    if not isinstance(fresh, bool):
        raise pytest.UsageError(
            f"the mark {mark}: fresh={fresh!r} is of type {type(fresh).__name__} (allowed: True, False)"
        )
    return fresh
