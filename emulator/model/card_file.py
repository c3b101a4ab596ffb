"""A card file that explains itself, made from the options that plug-ins declare: `vfio-user-xe card --default`."""

from __future__ import annotations

import textwrap

from vfio_user_xe.emulator.model.card import DEFAULT_INTERCONNECTS, CardError
from vfio_user_xe.emulator.model.options import Option
from vfio_user_xe.emulator.model.plugin_loading import (
    DEVICE_MODEL,
    INTERCONNECT,
    PluginError,
    default_model,
    find_plugins,
    load_plugin,
)

_WIDTH = 100


def annotated_card(model: str | None = None) -> str:
    """The TOML text of a card of `model` (None: the default model) with every option at its default and in words.

    Raises:
        CardError: there is no such model.
    """
    try:
        plugin = default_model() if model is None else load_plugin(DEVICE_MODEL, model)
    except PluginError as error:
        raise CardError(str(error)) from None
    model = plugin.name
    names = ", ".join(f'"{name}"' for name in DEFAULT_INTERCONNECTS)
    lines = [
        f"# A card of the device model {model}. {plugin.doc}",
        "# Everything has its default value here: keep the lines that you change.",
        "",
        f'model = "{model}"',
        "# Name of the card, in logs and errors.",
        f'name = "{model}"',
        "",
        "# By which ways accesses of the functions reach memory, in the order in which they are asked.",
        '# Each is "name", "name:key=value,..." or { name = "...", key = value }.',
        f"interconnects = [{names}]",
    ]
    for other in find_plugins(INTERCONNECT):
        if not other.error:
            lines += ["", *_wrapped(f"{other.name}: {other.doc}", "# ", "#   ")]
            for option in other.options:
                lines += _wrapped(f"{option.name} = {option.show(option.default)}  {_words(option)}", "#   ", "#     ")
    lines += ["", "[device]"]
    for option in plugin.options:
        lines += ["", *_wrapped(_words(option), "# ", "# "), f"{option.name} = {option.show(option.default)}"]
    return "\n".join(lines) + "\n"


def _words(option: Option) -> str:
    """What it is, and what is allowed."""
    text = option.help or option.name
    return f"{text[0].upper()}{text[1:]}. Allowed: {option.allowed()}."


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=later)
