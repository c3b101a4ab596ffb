"""Card files that come with device models: each lies as `cards/NAME.toml` in the package of the model's class.

`--card NAME` takes one by its name; a file of the user's own is given by its path.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from vfio_user_xe.emulator.model.card import CardConfig, CardError
from vfio_user_xe.emulator.model.options import similar
from vfio_user_xe.emulator.model.plugin_loading import DEVICE_MODEL, GROUPS

FOLDER = "cards"
_SUFFIX = ".toml"


def packaged_cards() -> dict[str, list[Path]]:
    """Every packaged card file by its name, sorted; several where packages have the same name. Loads no plug-in."""
    found: dict[str, list[Path]] = {}
    entries = importlib.metadata.entry_points(group=GROUPS[DEVICE_MODEL])
    for folder in sorted({folder for entry in entries for folder in _folders(entry.module)}):
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            found.setdefault(path.stem, []).append(path)
    return dict(sorted(found.items()))


def load_card(card: str | Path) -> CardConfig:
    """The card of the file `card`, or the packaged one of that name.

    Raises:
        CardError: there is no such card or file, several packages have one of this name, or the file is wrong.
    """
    word = str(card)
    if Path(word).exists() and not Path(word).is_dir():
        return CardConfig.load(word)
    cards = packaged_cards()
    found = cards.get(word, [])
    if len(found) == 1:
        return CardConfig.load(found[0])
    if found:
        paths = ", ".join(map(str, found))
        raise CardError(f"several packages have a card of this name, give one by its path: {paths}", source=word)
    if Path(word).is_dir():
        raise CardError("is a folder, not a card file", source=word)
    what = "no such file" if "/" in word or word.endswith(_SUFFIX) else "neither a file nor a packaged card"
    near = similar(Path(word).name.removesuffix(_SUFFIX), cards)
    raise CardError(
        f"{what}{near} (packaged cards, by name: {', '.join(cards) or 'none'};"
        f" a card file of your own, by its path: ./my-card{_SUFFIX})",
        source=word,
    )


def _folders(module: str) -> list[Path]:
    """Where the package of a plug-in's module has card files. The module itself is not imported for it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return []  # a broken plug-in is reported when it is used
    if spec is None:
        return []
    places = spec.submodule_search_locations or ([str(Path(spec.origin).parent)] if spec.origin else [])
    return [folder for place in places if (folder := Path(place) / FOLDER).is_dir()]
