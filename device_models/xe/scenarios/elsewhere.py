"""Scenarios 30, 31 and 33 to 35, which need a kernel or machines that have more."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios import defects, kunit_module
from vfio_user_xe.device_models.xe.scenarios.ktap import ktap_tests
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.revocation import show_blocked
from vfio_user_xe.device_models.xe.scenarios.steps import SOURCE, TARGET, import_and_use, may_hang, opened, scenario
from vfio_user_xe.device_models.xe.scenarios.vm import frames
from vfio_user_xe.device_models.xe.scenarios.vm import resets as vm_resets
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host
from vfio_user_xe.device_models.xe.scenarios.vm.setups import ONE
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Setup

HOST: Setup[XeMachine] = Setup(ONE.name, ONE.serve, ONE.guest, Host.of, beside=ONE.beside)
"""The machine of the suite `vm`."""

_SUITES = "dma.?buf.*(kunit|test)|(kunit|test).*dma.?buf"
"""Names of modules that hold KUnit suites for dma-bufs (setups.py brings them into the guest)."""


@scenario("30", "the VF's driver is xe-vfio-pci", "EOPNOTSUPP until that driver offers it")
def migration_driver(run: Run, machine: XeMachine) -> None:
    if machine.run("modprobe xe-vfio-pci").returncode:
        run.not_applicable("this kernel has no module xe-vfio-pci")
    machine.card.bind(1, "xe-vfio-pci")
    try:
        with opened(run, machine) as made:
            result = made.step("try export v 2 0+0x1000 d")
            run.check(result.errno in ("0", "EOPNOTSUPP"), f"export: {result.errno}")
    finally:
        machine.card.bind(1, "vfio-pci")


@scenario("31", "iommufd imports the same buffer", "both live, a revocation hits both")
def iommufd(run: Run, machine: XeMachine) -> None:
    if machine.run("test -c /dev/iommu").returncode:
        run.not_applicable("this kernel has no iommufd (/dev/iommu)")
    may_hang(run)
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        made.step("iommufd u")
        mapped = made.step(f"try ioas-map u di 0x100000000 {2 * MIB:#x}")
        if mapped.errno in ("EOPNOTSUPP", "ENOTTY"):
            run.not_applicable(f"this kernel's iommufd maps no dma-bufs (IOMMU_IOAS_MAP_FILE: {mapped.errno})")
        run.check(mapped.errno == "0", f"IOMMU_IOAS_MAP_FILE: {mapped.errno}")
        made.do("export v 2 0+0x1000,0x4000+0x1000 two")
        several = made.step("try ioas-map u two 0x200000000 0x2000")
        run.check(several.errno == "EOPNOTSUPP", f"two ranges in iommufd: {several.errno}, which maps one only")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}", f"verify target 0 0 {2 * MIB:#x} 7")
        made.step("spawn job reset v")
        joined = made.step("try join job 3000")
        if joined.running:
            show_blocked(run, machine)
            made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
            run.check(made.step("try join job 5000").errno == "0", "iommufd keeps the reset waiting")
            run.known(defects.REVOCATION_WAITS, "with iommufd as a second importer: blocked until xe unmapped")
        run.check(joined.errno == "0", f"VFIO_DEVICE_RESET: {joined.errno}")


@scenario("33", "KUnit tests of the core's matching", "all pass")
def kunit(run: Run, machine: XeMachine) -> None:
    if not kunit_module.load(machine):
        run.not_applicable("this kernel is built without KUnit, or without its results in debugfs")
    brought = machine.sh(
        f"find /lib/modules -name '*.ko*' | sed 's/.*\\///; s/\\.ko.*//' | grep -iE '{_SUITES}' || true"
    ).split()
    # Whoever loads a suite sleeps until it is over, and a test of it may until another's threads have had their turns.
    machine.watch_for_hung_tasks(int(kunit_module.LOADING))
    try:
        for module in brought:
            loaded = machine.run(f"modprobe {module}", timeout=kunit_module.LOADING)
            run.check(not loaded.returncode, f"the suite's module {module} cannot be loaded: {loaded.stderr.strip()}")
    finally:
        machine.watch_for_hung_tasks()
    run.fact("modules of suites", brought)
    results = machine.run(f"cat {kunit_module.RESULTS}/*dma*/results 2>/dev/null").stdout
    if not results:
        run.not_applicable("this kernel has no KUnit suite for dma-bufs, built in or as a module")
    found = ktap_tests(run.evidence("KTAP", results))
    run.check(found, "the suites have no result")
    kunit_module.must_pass(run, found)


def _host(machine: XeMachine) -> Host:
    if not isinstance(machine, Host):
        raise TypeError(f"this scenario's machine is a host with virtual machines, not {type(machine).__name__}")
    return machine


@scenario("34", "a virtual machine scans out of a VF that is passed on to it", "frames arrive without a copy", HOST)
def virtual_machine(run: Run, machine: XeMachine) -> None:
    frames.frames(run, _host(machine))


@scenario("35", "that virtual machine reboots", "its buffers are revoked, nothing hangs", HOST)
def virtual_machine_reboots(run: Run, machine: XeMachine) -> None:
    vm_resets.reset_in_a_frame(run, _host(machine))
