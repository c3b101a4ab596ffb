"""Finding plug-ins: device models and interconnects that installed packages offer as entry points.

A package names a class in its `pyproject.toml`, and the class states the API version that it was written for:

    [project.entry-points."vfio_user_xe.interconnects"]
    delay = "my_package:Delay"

    class Delay:
        "Makes accesses slow."
        API_VERSION = (2, 0)
        OPTIONS = (Option("microseconds", "int", 10),)

A plug-in that cannot be loaded is named with the reason. It does not affect cards that do not use it.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from vfio_user_xe.emulator import API_VERSION
from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.model_info import ModelInfo
from vfio_user_xe.emulator.model.options import Option, unknown

DEVICE_MODEL = "device model"
INTERCONNECT = "interconnect"
GROUPS = {DEVICE_MODEL: "vfio_user_xe.device_models", INTERCONNECT: "vfio_user_xe.interconnects"}


class PluginError(Exception):
    """A plug-in that is not there, or cannot be loaded; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point. `factory` is None when it cannot be loaded, and `error` says why."""

    kind: str
    name: str
    module: str
    distribution: str
    version: str
    doc: str = ""
    options: tuple[Option, ...] = ()
    api_version: tuple[int, int] | None = None
    factory: Callable[..., Any] | None = None
    error: str = ""
    info: ModelInfo = field(default_factory=ModelInfo)
    """What a device model says of itself; of other plug-ins, nothing."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for `plugins list --json`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "module": self.module,
            "distribution": self.distribution,
            "version": self.version,
            "doc": self.doc,
            "options": [
                {"name": o.name, "kind": o.kind, "default": o.default, "allowed": o.allowed(), "help": o.help}
                for o in self.options
            ],
            "error": self.error,
        }


def find_plugins(*kinds: str) -> list[Plugin]:
    """Every plug-in of these kinds (none: of all) that is installed, loaded, by kind and name; the broken ones too."""
    found = []
    for kind in kinds or GROUPS:
        entries = sorted(importlib.metadata.entry_points(group=GROUPS[kind]), key=lambda entry: entry.name)
        for entry in entries:
            plugin, alike = _load(kind, entry), [other for other in entries if other.name == entry.name]
            found.append(replace(plugin, factory=None, error=_several(alike)) if len(alike) > 1 else plugin)
    return found


def device_models() -> list[Plugin]:
    """The installed device models that can be loaded, by name."""
    return [plugin for plugin in find_plugins(DEVICE_MODEL) if not plugin.error]


def default_model() -> Plugin:
    """The device model of a card that names none.

    Raises:
        PluginError: none of the installed models is the default, or several are.
    """
    found = [plugin for plugin in device_models() if plugin.info.default]
    if len(found) == 1:
        return found[0]
    said = "no device model is" if not found else f"the device models {', '.join(p.name for p in found)} each say to be"
    raise PluginError(f"{said} the default: name the model (allowed: {', '.join(plugin_names(DEVICE_MODEL))})")


def plugin_names(kind: str) -> list[str]:
    """The names of the plug-ins of `kind`, sorted, without loading any."""
    return sorted({entry.name for entry in importlib.metadata.entry_points(group=GROUPS[kind])})


def load_plugin(kind: str, name: str) -> Plugin:
    """The plug-in of `kind` called `name`.

    Raises:
        PluginError: there is none, several packages offer it, or it cannot be imported.
    """
    entries = list(importlib.metadata.entry_points(group=GROUPS[kind], name=name))
    if not entries:
        raise PluginError(unknown(name, kind, plugin_names(kind)))
    if len(entries) > 1:
        raise PluginError(f'{kind} "{name}" {_several(entries)}')
    plugin = _load(kind, entries[0])
    if plugin.error:
        raise PluginError(f'{kind} "{name}" ({plugin.module}, package {plugin.distribution}): {plugin.error}')
    return plugin


def _load(kind: str, entry: importlib.metadata.EntryPoint) -> Plugin:
    distribution, version = _distribution(entry)

    def broken(error: str) -> Plugin:
        return Plugin(kind, entry.name, entry.value, distribution, version, error=error)

    try:
        factory = entry.load()
    except MISTAKES as error:  # whatever a stranger's module does at import
        return broken(f"cannot be loaded: {type(error).__name__}: {error}")
    api_version = getattr(factory, "API_VERSION", None)
    refusal = _refusal(api_version)
    if refusal:
        return broken(refusal)
    options = getattr(factory, "OPTIONS", ())
    if not callable(factory):
        return broken(f"is {type(factory).__name__}, not a class or a function (card, options)")
    if not isinstance(options, tuple) or not all(isinstance(option, Option) for option in options):
        return broken("its OPTIONS is not a tuple of vfio_user_xe.emulator.model.card.Option")
    names = [option.name for option in options]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return broken(f"several of its OPTIONS are called {', '.join(twice)}")
    if "name" in names:
        return broken("one of its OPTIONS is called name, as the card and the interconnect are: it needs another name")
    info = getattr(factory, "INFO", ModelInfo()) if kind == DEVICE_MODEL else ModelInfo()
    if not isinstance(info, ModelInfo):
        return broken("its INFO is not a vfio_user_xe.emulator.api.ModelInfo")
    if problem := info.problem():
        return broken(problem)
    doc = (inspect.getdoc(factory) or "").partition("\n")[0]
    return Plugin(kind, entry.name, entry.value, distribution, version, doc, options, api_version, factory, info=info)


def _several(entries: Iterable[importlib.metadata.EntryPoint]) -> str:
    """That plug-ins of one name cannot be told apart."""
    owners = ", ".join(sorted(_distribution(entry)[0] for entry in entries))
    return f"is offered by several packages: {owners}; uninstall all but one"


def _refusal(api_version: Any) -> str:
    """Why a plug-in written for `api_version` cannot run here; empty when it can."""
    ours = ".".join(map(str, API_VERSION))
    if api_version is None:
        return f"states no API version; give it the attribute API_VERSION = {API_VERSION}, this emulator's"
    if not (isinstance(api_version, tuple) and len(api_version) == 2 and all(isinstance(n, int) for n in api_version)):
        return f"its API_VERSION is {api_version!r}, not two integers such as {API_VERSION}"
    if api_version[0] != API_VERSION[0] or api_version[1] > API_VERSION[1]:
        theirs = ".".join(map(str, api_version))
        newer = api_version > API_VERSION
        cure = "update vfio-user-xe" if newer else "look for a newer version of the plug-in"
        return f"was written for API version {theirs}, this emulator has {ours}; {cure}"
    return ""


def _distribution(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "unknown")
