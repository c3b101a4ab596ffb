"""Write the package of a new device model or interconnect: `vfio-user-xe new device NAME`.

Templates are the files in `templates/KIND`; in their names and texts, `@name@` is the package's name, `@module@` that
of its module, `@Class@` that of its class.
"""

from __future__ import annotations

import builtins
import importlib.util
import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from vfio_user_xe.emulator.model.plugin_loading import DEVICE_MODEL, INTERCONNECT, plugin_names

KINDS = {"device": DEVICE_MODEL, "interconnect": INTERCONNECT}
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_FILES = ("setup", "conftest", "tests")
_SUFFIX = ".in"


class NameRefused(Exception):
    """A name that cannot be a package's, or a folder that cannot be written to; the text says why."""


def new_package(kind: str, name: str, parent: Path) -> list[Path]:
    """Write the package `name` of `kind` ("device" or "interconnect") into `parent`; returns the files, sorted.

    Raises:
        NameRefused: the name cannot be used, or its folder has something in it; nothing was written.
    """
    words = _checked(kind, name)
    target = parent / name
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = "the folder" if target.is_dir() else "a file"
        raise NameRefused(
            f'"{name}": {what} {target} is there already{" and is not empty" if target.is_dir() else ""}. Nothing was'
            f" written: choose another name, or another place with --directory"
        )
    contents = {target / _filled(path, words): _filled(text, words) for path, text in _templates(_folder(kind)).items()}
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return sorted(contents)


def _checked(kind: str, name: str) -> dict[str, str]:
    """What stands for the placeholders.

    Raises:
        NameRefused: the name is malformed, a word of Python, or taken.
    """
    if not _NAME.fullmatch(name):
        raise NameRefused(f'"{name}": want lower-case letters and digits, words joined by - or _, a letter first')
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or hasattr(builtins, module):
        raise NameRefused(f'"{name}": {module} is a word of Python')
    if module in _FILES:
        raise NameRefused(f'"{name}": a file {module}.py beside a pyproject.toml means something to pip or pytest')
    taken = plugin_names(KINDS[kind])
    if name in taken:
        raise NameRefused(f'"{name}": there is a {KINDS[kind]} of that name already (taken: {", ".join(taken)})')
    if importlib.util.find_spec(module) is not None:
        raise NameRefused(f'"{name}": there is a module {module} already, which it would hide or be hidden by')
    name_of_class = "".join(word.capitalize() for word in module.split("_"))
    return {"@name@": name, "@module@": module, "@Class@": name_of_class}


def _folder(kind: str) -> Traversable:
    return files("vfio_user_xe.emulator.authoring") / "templates" / kind


def _templates(folder: Traversable, path: str = "") -> dict[str, str]:
    """Every template under `folder` by its path there, without the suffix."""
    found: dict[str, str] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _templates(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            found[path + entry.name.removesuffix(_SUFFIX)] = entry.read_text("utf-8")
    return found


def _filled(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
