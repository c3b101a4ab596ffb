"""No module of the project imports itself by way of others, not even for types."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp

PACKAGES = ("vfio_user_xe.emulator", "vfio_user_xe.device_models", "vfio_user_xe.plugins")


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the one before it, the last of them the first; none: there is no circle."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 250
    assert circle(imports) == []


def test_a_circle_of_types_is_found() -> None:
    assert set(circle({"engine": {"context"}, "context": {"lrc"}, "lrc": {"engine"}})) == {"engine", "context", "lrc"}
