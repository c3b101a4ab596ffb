"""Scenarios 40 to 46: the machine is suspended, booted anew, or another kernel is started, with VFs enabled and in use."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.device_models.xe.scenarios.sriov import setups
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.guest.errors import CommandFailed
from vfio_user_xe.emulator.scenarios.run import Run

MIB = 1 << 20
_ASLEEP = 60.0
_AWAKE = 60.0
_LINES = 1_000_000


def _resumes(machine: SriovMachine) -> int:
    """How often the console says that the kernel has resumed."""
    return machine.vm.console_tail(_LINES).count("PM: suspend exit")


def _resets(machine: SriovMachine) -> int:
    """How often the machine was reset, by its firmware, its kernel or a triple fault."""
    return sum(event.get("event") == "RESET" for event in machine.vm.qmp_events)


def _suspended_to_ram(run: Run, machine: SriovMachine) -> None:
    if "mem" not in machine.sh("cat /sys/power/state").split():
        run.not_applicable("this kernel cannot suspend to RAM")
    resumes, resets = _resumes(machine), _resets(machine)
    with run.step("suspend to RAM"):
        machine.run("(sleep 1; echo deep > /sys/power/mem_sleep; echo mem > /sys/power/state) > /dev/null 2>&1 3>&- &")
        asleep = machine.wait(lambda: machine.vm.qmp("query-status")["status"] == "suspended", _ASLEEP)
    if not asleep:
        run.give_up("the guest does not suspend")
        run.check(asleep, f"the guest is not suspended after {_ASLEEP:g} s")
    with run.step("wake up"):
        machine.vm.qmp("system_wakeup")
        awake = machine.wait(lambda: _resumes(machine) > resumes or _resets(machine) > resets, _AWAKE)
    if _resets(machine) > resets:
        run.give_up("the guest was reset")
        run.check(False, "the guest is reset while it wakes up, before it says that it has resumed")
    if not awake:
        run.give_up("the guest does not wake up")
    run.check(awake, f"the guest has not resumed {_AWAKE:g} s after it was woken up")


@scenario("40", "suspend to RAM with two VFs, xe on both, 3 times", "wakes up; VFs are there and work", setups.POWER)
def suspended_with_vfs(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    for _ in range(3):
        _suspended_to_ram(run, machine)
        run.check(machine.numvfs() == 2, "VFs are gone after the suspend")
        s.work(run, machine, machine.card.pf, *vfs)


@scenario(
    "40b", "suspend to RAM with idle buffers in VRAM of PF and VF", "wakes up; what was in them is there", setups.POWER
)
def suspended_with_buffers(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(1)
    with s.program(run, machine) as made:
        for name, address in (("p", machine.card.pf), ("v", vfs[0])):
            made.do(
                f"gpu g{name} {address}",
                f"buffer g{name} {name} 0x90000000 {4 * MIB:#x} vram",
                f"paint {name} 0 0 {4 * MIB:#x} 3",
            )
        _suspended_to_ram(run, machine)
        made.do(*(f"verify {name} 0 0 {4 * MIB:#x} 3" for name in "pv"), timeout=90)
    s.work(run, machine, machine.card.pf, *vfs)


@scenario(
    "41",
    "suspend to RAM with VFs on vfio-pci that nobody has open",
    "wakes up; VFs can be opened and used",
    setups.POWER,
)
def suspended_with_vfs_on_vfio(run: Run, machine: SriovMachine) -> None:
    machine.run("echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
    try:
        vfs = machine.enable(2, "vfio-pci")
    except CommandFailed:
        run.not_applicable(
            "without an IOMMU this kernel's vfio-pci takes no VF, and QEMU's IOMMU does not survive suspending"
        )
    _suspended_to_ram(run, machine)
    run.check(machine.numvfs() == 2, "VFs are gone after the suspend")
    for address in vfs:
        machine.run(f"echo > /sys/bus/pci/devices/{address}/driver_override")
        machine.unbind(address)
        machine.bind(address)
    s.work(run, machine, machine.card.pf, *vfs)


@scenario(
    "42", "suspend to idle with two VFs, xe on both; the power button wakes it", "wakes up; VFs work", setups.POWER
)
def suspended_to_idle(run: Run, machine: SriovMachine) -> None:
    if "freeze" not in machine.sh("cat /sys/power/state").split():
        run.not_applicable("this kernel cannot suspend to idle")
    if machine.run("test -e /sys/module/button").returncode:
        run.not_applicable("no driver has the power button: nothing would wake the guest")
    vfs = machine.enable(2)
    for _ in range(2):
        resumes = _resumes(machine)
        with run.step("suspend to idle"):
            machine.run("(sleep 1; echo freeze > /sys/power/state) > /dev/null 2>&1 3>&- &")
            # QEMU knows nothing of this sleep: the guest is asleep when the PF is.
            machine.wait(lambda: False, 8)
        with run.step("power button"):
            awake = False
            for _ in range(10):
                machine.vm.qmp("system_powerdown")
                if awake := machine.wait(lambda seen=resumes: _resumes(machine) > seen, 6):  # type: ignore[misc]
                    break
        if not awake:
            run.give_up("the guest does not wake up")
        run.check(awake, "the guest has not resumed after its power button was pressed")
        run.check(machine.numvfs() == 2, "VFs are gone after the suspend")
        s.work(run, machine, machine.card.pf, *vfs)


@scenario("43", "devices suspended (pm_test) while jobs run on PF and VFs", "jobs go on or end; all work", setups.POWER)
def devices_suspended_under_jobs(run: Run, machine: SriovMachine) -> None:
    if machine.run("test -e /sys/power/pm_test").returncode:
        run.not_applicable("this kernel has no /sys/power/pm_test")
    vfs = machine.enable(2)
    with s.busy(run, machine, machine.card.pf, *vfs) as user:
        machine.sh("echo devices > /sys/power/pm_test")
        suspending = Background(machine, "echo freeze > /sys/power/state")
        ended = suspending.ended(90)
        machine.run("echo none > /sys/power/pm_test")
        if not ended:
            s.stuck(run, machine, "suspending devices does not end")
        run.evidence("suspending ended with code", suspending.code())
        user.kill()
        run.check(user.gone(20), "the process does not end")
    s.work(run, machine, machine.card.pf, *vfs)


def _works_after_boot(run: Run, machine: SriovMachine) -> None:
    run.rebooted()
    enabled = [f.get("sriov", {}).get("enabled_vfs") for f in machine.card.call("status")["functions"] if not f["vf"]]
    run.check(not any(enabled), f"VFs are enabled after the boot: {enabled}")
    machine.card.load_drivers()
    s.work(run, machine, machine.card.pf, *machine.enable(2))


def _in_use(run: Run, machine: SriovMachine) -> None:
    """VF 1 has no driver, PF and VF 2 have endless jobs of a process that nobody ends."""
    vfs = machine.enable(2)
    user = machine.start(lambda step: s.note(run, step))
    for index, address in enumerate((machine.card.pf, vfs[1])):
        user.do(f"gpu g{index} {address}", f"spawn work{index} busy g{index}")
    machine.unbind(vfs[0])
    run.read_kernel_log()


@scenario(
    "44",
    "reboot with VFs enabled and jobs running",
    "the card is as at power-up; all works",
    setups.POWER,
    restore=False,
)
def rebooted_in_use(run: Run, machine: SriovMachine) -> None:
    _in_use(run, machine)
    with run.step("reboot -f"):
        machine.vm.reboot("reboot -f")
    _works_after_boot(run, machine)


@scenario(
    "45", "another kernel started by kexec with VFs enabled and jobs running", "as 44", setups.POWER, restore=False
)
def kexec_in_use(run: Run, machine: SriovMachine) -> None:
    _in_use(run, machine)
    machine.sh(
        "cd / && find . -xdev ! -path ./boot/kernel | cpio -o -H newc > /dev/shm/initrd 2>/dev/null;"
        " cat /proc/cmdline > /tmp/line; test -s /dev/shm/initrd",
        timeout=120,
    )
    with run.step("kexec"):
        machine.vm.reboot("xe-dmabuf 'kexec /boot/kernel /dev/shm/initrd /tmp/line'")
    _works_after_boot(run, machine)


@scenario("46", "the reset button with VFs enabled and jobs running", "as 44", setups.POWER, restore=False)
def reset_button_in_use(run: Run, machine: SriovMachine) -> None:
    _in_use(run, machine)
    with run.step("system_reset"):
        machine.vm.reset()
    _works_after_boot(run, machine)
