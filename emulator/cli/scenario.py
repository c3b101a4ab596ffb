"""`vfio-user-xe scenario list`: drivers put through scenarios in guests, with verdicts."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.packaged_kernels import named_kernel
from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.options import unknown
from vfio_user_xe.emulator.model.plugin_loading import PluginError, default_model
from vfio_user_xe.emulator.results import Report
from vfio_user_xe.emulator.results import json_file as results_json
from vfio_user_xe.emulator.results.html import html
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.scenarios.exploration.explorer import Played, sequence_scenario
from vfio_user_xe.emulator.scenarios.exploration.sequence import SUFFIX, Kept
from vfio_user_xe.emulator.scenarios.exploration.world import checked
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.runner import Runner, select
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Suite

GROUP = "vfio_user_xe.scenarios"
_SCENARIO = "scenario"
"""The key of `ModelInfo.scenarios`."""

app = typer.Typer(help="Put a kernel's drivers through scenarios in guests, and judge.", no_args_is_help=True)

SuiteName = Annotated[
    str | None,
    typer.Option("--suite", metavar="NAME", help="Suite of scenarios.", show_default="the device model's"),
]


def installed_suites() -> list[str]:
    """The names of all suites that installed packages offer."""
    return sorted({entry.name for entry in importlib.metadata.entry_points(group=GROUP)})


def load_suite(name: str | None) -> Suite[Machine]:
    """The suite that some installed package offers as `name`; its machine is known to it alone.

    None is the one that the default device model names for the command `scenario`.

    Raises:
        LookupError: no package offers it, what is offered is no suite or cannot be loaded, or none is named.
    """
    if name is None:
        name = usual_suite(_SCENARIO)
    found = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    if name not in found:
        raise LookupError(unknown(name, "suite of scenarios", sorted(found)))
    try:
        suite = found[name].load()
    except MISTAKES as error:  # whatever a stranger's module does at import
        what = f"{type(error).__name__}: {error}"
        raise LookupError(f'the suite "{name}" ({found[name].value}) cannot be loaded: {what}') from error
    if not isinstance(suite, Suite):
        raise LookupError(f'the suite "{name}" ({found[name].value}) is no vfio_user_xe.emulator.scenarios.Suite')  # noqa: TRY004
    return suite


def usual_suite(command: str) -> str:
    """The suite that a command takes if none is named.

    Raises:
        LookupError: the default device model names none, or there is no default device model.
    """
    try:
        plugin = default_model()
    except PluginError as error:
        raise LookupError(str(error)) from error
    if command not in plugin.info.scenarios:
        allowed = ", ".join(installed_suites())
        raise LookupError(
            f"the model {plugin.name} has no suite for `{command}`: name one with --suite (allowed: {allowed})"
        )
    return plugin.info.scenarios[command]


@app.command("list")
def list_scenarios(
    suite_name: SuiteName = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    defects: Annotated[bool, typer.Option("--defects", help="The known defects instead.")] = False,
) -> None:
    """The scenarios of a suite: number, name, what is done, what a correct kernel does."""
    suite = chosen_scenarios(suite_name, [])[0]
    if defects:
        print(json.dumps(dict(suite.defects)) if as_json else "\n".join(f"{n}: {t}" for n, t in suite.defects.items()))
        return
    if as_json:
        keys = ("number", "name", "title", "expected", "control", "groups")
        print(json.dumps([{key: getattr(s, key) for key in keys} | {"setup": s.setup.name} for s in suite.scenarios]))
        return
    for scenario in suite.scenarios:
        groups = f" [{', '.join(scenario.groups)}]" if scenario.groups else ""
        print(f"{scenario.number:4} {scenario.name:46} {scenario.title}; expected: {scenario.expected}{groups}")


def runner_of(
    suite: Suite[Machine],
    kernel: str | None,
    modules: Path | None,
    append: Sequence[str],
    consoles: Path | None,
    kernel_name: str = "",
) -> Runner[Machine]:
    """What runs scenarios of a suite on the kernel that was asked for; `kernel_name` is what results call it.

    Raises:
        GuestError: there is no such kernel, or no environment.
    """
    environment = locate()
    return Runner(
        suite,
        suite.files(environment),
        kernel=named_kernel(kernel, modules, environment) if kernel is not None else Kernel.packaged(environment),
        console_folder=consoles,
        append=" ".join(append),
        kernel_name=kernel_name,
    )


def write(report: Report, junit_file: Path | None, page: Path | None, data: Path | None) -> None:
    """The files that were asked for."""
    if junit_file is not None:
        junit_file.write_text(junit(report), encoding="utf-8")
    if page is not None:
        page.write_text(html(report), encoding="utf-8")
    if data is not None:
        results_json.write(report, data)


def chosen_scenarios(suite_name: str | None, names: list[str]) -> tuple[Suite[Machine], list[Scenario[Machine]]]:
    """A suite, and what names, numbers, groups and kept files mean in it; a wrong argument when they mean nothing."""
    try:
        suite = load_suite(suite_name)
        files = [name for name in names if name.endswith(SUFFIX)]
        named = [name for name in names if name not in files]
        replayed = [_replayed(suite, Path(file)) for file in files]
        return suite, [*(select(suite, named) if named or not files else []), *replayed]
    except LookupError as error:
        fail(error.args[0], EXIT_USAGE)


def _replayed(suite: Suite[Machine], file: Path) -> Scenario[Machine]:
    """The scenario that a kept sequence is.

    Raises:
        LookupError: there is no such file, or the model does not allow what is in it.
    """
    if suite.exploration is None:
        raise LookupError(f'the suite "{suite.name}" has no model by which {file} could be played')
    try:
        read = Kept.parse(file.read_text(encoding="utf-8"))
        checked(suite.exploration.world(), read.steps)
    except (OSError, ValueError) as error:
        raise LookupError(f"{file}: {error}") from error
    title = read.fields.get("failure", f"{len(read.steps)} steps")
    return sequence_scenario(suite.exploration, Played(list(read.steps)), file.name.removesuffix(SUFFIX), title)
