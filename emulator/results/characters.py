"""Text from outside, such as a guest's console, made fit for terminals, XML and HTML."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"
"""Stands for a character that must not be passed on."""

# ECMA-48: CSI sequences (colours, cursor movement), OSC strings (titles, links), and two-character escapes.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
# XML 1.0, production 2 (Char), without the C1 controls, which XML merely discourages and terminals obey.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """`text` without terminal escapes; other control characters, lone surrogates and non-characters become U+FFFD.

    What is returned can be encoded as UTF-8 and is allowed in XML 1.0. Line ends are line feeds.
    """
    return _FORBIDDEN.sub(REPLACEMENT, _ESCAPES.sub("", text)).replace("\r\n", "\n").replace("\r", "\n")
