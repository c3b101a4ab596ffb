"""The live KUnit suites of xe: tests of the driver's own, which it carries out on the card.

Each suite is a scenario: the module is loaded with a filter that lets this suite run, and unloaded again.
"""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.scenarios import kunit_module
from vfio_user_xe.device_models.xe.scenarios.card import CPU, PF, XeCard
from vfio_user_xe.device_models.xe.scenarios.ktap import ktap_tests
from vfio_user_xe.device_models.xe.scenarios.lateness import LOST, lately
from vfio_user_xe.device_models.xe.scenarios.times import recorded
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.machine import Card, Machine, Shell
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Setup, Suite

_LIVE, _PURE = "xe_live_test", "xe_test"
SUITES = {
    "xe_bo": "eviction, and what is saved of compressed memory",
    "xe_bo_shrink": "the shrinker, under pressure",
    "xe_dma_buf": "sharing of buffers between two devices, in all placements",
    "xe_migrate": "copies and clearing by the migration queue",
    "xe_mocs": "MOCS registers, also after a reset of the GT",
    "xe_guc_g2g": "messages between GuCs",
}
"""The suites of xe_live_test (drivers/gpu/drm/xe/tests/xe_live_test_mod.c), and what each tests."""


class KUnitMachine(Machine):
    """xe on a PF, and KUnit, where the kernel has it."""

    def __init__(self, shell: Shell, card: Card, others: tuple[Card, ...] = ()) -> None:
        """Load KUnit and the driver.

        Raises:
            GuestError: the driver cannot be loaded.
        """
        super().__init__(shell, card, others)
        self.kunit = kunit_module.load(self)
        self.card = XeCard(shell, card, PF)
        self.sh("modprobe xe", timeout=300)


def _suite(run: Run, machine: KUnitMachine, module: str, glob: str) -> None:
    """Run the suites of a module that `glob` lets through; all of their tests must pass, or say why they are skipped."""
    if not machine.kunit:
        run.not_applicable(
            "this kernel is built without KUnit, or without its results in debugfs (CONFIG_KUNIT, CONFIG_KUNIT_DEBUGFS)"
        )
    # The guest's modprobe is a small one: it has no dry run.
    if machine.run(f"find /lib/modules -name '{module.replace('_', '[-_]')}.ko*' | grep -q .").returncode:
        run.not_applicable(f"this kernel has no module {module} (CONFIG_DRM_XE_KUNIT_TEST)")
    script = (
        # Without a line's end: it would belong to the filter, which then lets nothing through.
        f"printf %s '{glob}' > /sys/module/kunit/parameters/filter_glob && modprobe {module}; code=$?\n"
        f"cat {kunit_module.RESULTS}/*/results 2>/dev/null; rmmod {module} 2>/dev/null; exit $code"
    )
    with run.step(f"modprobe {module}, suites {glob}"):
        done = machine.run(script, timeout=kunit_module.LOADING)
    said = str(run.evidence("KTAP", done.stdout))
    run.check(not done.returncode, f"{module} cannot be loaded: {done.stderr.strip()}")
    found = ktap_tests(said)
    if not found:
        run.not_applicable(f"{module} of this kernel has no suite {glob}")
    for test in found:
        word = "skipped" if test.skipped else "passed" if test.passed else "failed"
        run.note(
            f"{test.name}: {word}{f' ({test.why})' if test.why else ''}", good=None if test.skipped else test.passed
        )
    kunit_module.must_pass(run, found)
    if all(test.skipped for test in found):
        run.not_applicable(f"all tests of the suite were skipped: {found[0].why}")


def _one(name: str) -> Callable[[Run, KUnitMachine], None]:
    return lambda run, machine: _suite(run, machine, _LIVE, name)


def _pure(run: Run, machine: KUnitMachine) -> None:
    run.excuse(Kind.WARNING, "tests of xe_rtp.c give it rules that match nothing", place="rule_match_and", count=20)
    run.excuse(Kind.DRM, "and entries that contradict each other", message="discarding save-restore reg", count=50)
    _suite(run, machine, _PURE, "*")


_SETUP = Setup(
    "PF, KUnit",
    ("--set", "vram=2GiB"),
    {"modules": ("xe", "kunit?", f"{_LIVE}?", f"{_PURE}?"), "memory": 2048, "cpu": CPU},
    KUnitMachine.of,
)
KUNIT = Suite(
    "kunit",
    (
        *(
            Scenario(
                f"k{number}", name.replace("_", "-"), f"live suite {name}: {what}", "all tests pass", _SETUP, _one(name)
            )
            for number, (name, what) in enumerate(SUITES.items(), 1)
        ),
        Scenario("k7", "xe-test", "the driver's suites that need no device", "all tests pass", _SETUP, _pure),
    ),
    {},
    late=lately,
    fatal=rf"device wedged|{LOST}",
    times=recorded("kunit"),
)
"""xe's own KUnit suites, on the card."""
