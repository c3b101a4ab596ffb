"""Scenarios 20 to 28: how the card is shared out: many VFs, too little room, modes that exclude each other, refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vfio_user_xe.device_models.xe.scenarios.sriov import defects, setups
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import CONFIGFS, SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.run import Run

MIB = 1 << 20
_REFUSALS = 6
_VF_CONFIG_REQUEST = 0x5503
"""PF2GUC_UPDATE_VF_CFG (abi/guc_actions_sriov_abi.h)."""


@contextlib.contextmanager
def _configured(run: Run, machine: SriovMachine, address: str, attribute: str, value: str) -> Iterator[None]:
    """A device without a driver that has this setting in configfs, until the block ends."""
    folder = f"{CONFIGFS}/{address}"
    if machine.run(f"mkdir {folder}").returncode or machine.run(f"test -e {folder}/{attribute}").returncode:
        machine.run(f"rmdir {folder}")
        run.not_applicable(f"{folder} has no {attribute}")
    try:
        machine.sh(f"echo {value} > {folder}/{attribute}")
        yield
    finally:
        machine.run(f"rmdir {folder}")


@scenario(
    "20",
    "configfs: the PF for administration only, two VFs",
    "VFs get more of the card than else; the PF has no queues; VFs work; as before once it is taken back",
)
def admin_only_pf(run: Run, machine: SriovMachine) -> None:
    machine.enable(2)
    usual = machine.provisioned()
    machine.card.disable_vfs()
    pf = machine.card.pf
    machine.unbind(pf)
    try:
        with _configured(run, machine, pf, "sriov/admin_only_pf", "1"):
            machine.bind(pf)
            vfs = machine.enable(2)
            shares = run.evidence("bytes of VRAM", {"usual": usual, "administration only": machine.provisioned()})
            run.check(shares["administration only"]["vf1"] >= usual["vf1"], "VFs get less than else")
            with s.program(run, machine) as made:
                opened = made.attempt(f"gpu g {pf}")[0]
                run.check(opened.errno != "0", "a queue can be made on the PF")
            s.work(run, machine, *vfs)
            machine.card.disable_vfs()
            machine.unbind(pf)
    finally:
        machine.as_before(run)
    s.work(run, machine, pf, *machine.enable(2))


@scenario("21", "configfs: a VF with the primary GT only", "probes and works with one GT, its sibling with two")
def vf_with_one_gt(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    machine.unbind(vfs[0])
    with _configured(run, machine, vfs[0], "gt_types_allowed", "primary"):
        machine.bind(vfs[0])
        gts = run.evidence("GTs with engines", s.work(run, machine, *vfs))
        run.check(gts[vfs[0]] == 1 and gts[vfs[1]] == 2, f"GTs with engines: {gts}")
        machine.unbind(vfs[0])
    machine.bind(vfs[0])
    run.check(s.work(run, machine, vfs[0])[vfs[0]] == 2, "the media GT does not come back")


def _ccs_mode(run: Run, machine: SriovMachine) -> str:
    found = machine.sh(f"find {machine.card.sysfs}/ -name ccs_mode | head -1")
    if not found:
        run.not_applicable("the PF has no ccs_mode: there is one compute engine, or the driver has no such mode")
    return found


@scenario("22", "ccs_mode of VFs", "there is none: only a PF can set it")
def ccs_mode_of_vfs(run: Run, machine: SriovMachine) -> None:
    _ccs_mode(run, machine)
    vfs = machine.enable(2)
    found = machine.sh(f"find {' '.join(f'/sys/bus/pci/devices/{address}/' for address in vfs)} -name ccs_mode")
    if found:
        run.known(defects.CCS_MODE, found.splitlines()[0])


@scenario(
    "22b",
    "ccs_mode with VFs enabled, VFs with ccs_mode set, and with a client",
    "each refuses the other; nothing is left",
)
def ccs_mode_excludes_vfs(run: Run, machine: SriovMachine) -> None:
    file, numvfs = _ccs_mode(run, machine), f"{machine.card.sysfs}/sriov_numvfs"
    try:
        for value in (3, 5, 0):
            run.check(s.refused(machine, value, file), f"ccs_mode {value} is taken, of four engines")
        for _ in range(5):
            machine.sh(f"echo 4 > {file}")
            if not s.refused(machine, 1, numvfs):
                machine.card.disable_vfs()
                run.not_applicable("this driver enables VFs in every ccs_mode")
            machine.sh(f"echo 1 > {file}")
        run.check(machine.numvfs() == 0, "a VF is enabled")
        vfs = machine.enable(1)
        run.check(s.refused(machine, 4, file), "ccs_mode is taken while a VF is enabled")
        s.work(run, machine, machine.card.pf, *vfs)
        machine.card.disable_vfs()
        machine.sh(f"echo 4 > {file}")
    finally:
        machine.run(f"echo 0 > {numvfs}; echo 1 > {file}", timeout=60)
    s.work(run, machine, machine.card.pf, *machine.enable(2))


@scenario(
    "23", "the driver's guard against VFs held and given up", "no VFs while it is held, no guard while there are VFs"
)
def lockdown_guard(run: Run, machine: SriovMachine) -> None:
    file, numvfs = f"{machine.card.debugfs}/sriov/lockdown_vfs_enabling", f"{machine.card.sysfs}/sriov_numvfs"
    if machine.run(f"test -e {file}").returncode:
        run.not_applicable(f"there is no {file}")
    for _ in range(3):
        held = machine.run(f"exec 9< {file}; echo 1 > {numvfs}").returncode
        run.check(held, "VFs are enabled while the guard is held")
    run.check(machine.numvfs() == 0, "a VF is enabled")
    vfs = machine.enable(1)
    run.check(machine.run(f"exec 9< {file}").returncode, "the guard is taken while a VF is enabled")
    s.work(run, machine, *vfs)


@scenario(
    "24",
    "the GuC refuses the first, second ... request that provisions two VFs",
    "numvfs fails or the VFs work; nothing stays provisioned; then VFs come as ever",
)
def provisioning_refused(run: Run, machine: SriovMachine) -> None:
    run.excuse(
        Kind.DRM, "the GuC refuses to provision VFs, on purpose", message="H2G request 0x5503 failed", count=_REFUSALS
    )
    outcomes = []
    for after in range(0, 2 * _REFUSALS, 2):
        machine.card.call(
            "inject",
            fault="guc.fail_request",
            after=after,
            times=1,
            arguments={"action": _VF_CONFIG_REQUEST},
        )
        code = machine.run(f"echo 2 > {machine.card.sysfs}/sriov_numvfs", timeout=180).returncode
        machine.card.call("heal")
        enabled = machine.numvfs()
        outcomes.append(f"after {after}: {'refused' if code else f'{enabled} VFs'}")
        run.check(not code or enabled == 0, f"numvfs was refused, and {enabled} VFs are enabled")
        if enabled:
            machine.card.disable_vfs()
        left = machine.provisioned()
        run.check(not left, f"after a refusal LMTT gives VFs memory: {left}")
    run.evidence("refused requests", outcomes)
    run.check(any("refused" in outcome for outcome in outcomes), "no refusal reached the user")
    s.work(run, machine, machine.card.pf, *machine.enable(2))


@scenario("25", "24 VFs enabled and disabled 3 times", "always all, with xe on each; the last works", setups.MANY)
def many_vfs(run: Run, machine: SriovMachine) -> None:
    for _ in range(3):
        vfs = machine.enable(24)
        unbound = [address for address in vfs if machine.driver(address) != "xe"]
        run.check(len(vfs) == 24 and not unbound, f"{len(vfs)} VFs, without xe: {unbound}")
        machine.card.disable_vfs()
        run.check(not machine.vfs(), "VFs are left")
    vfs = machine.enable(24)
    s.work(run, machine, machine.card.pf, vfs[0], vfs[-1])


@scenario("26", "two VFs of a card with 1 GiB of VRAM", "each gets some, and xe probes them", setups.SMALL_VRAM)
def little_vram(run: Run, machine: SriovMachine) -> None:
    # Without CONFIG_SYMBOLIC_ERRNAME the kernel prints numbers.
    for pattern in (r"GuC init failed with -(ENODATA|61)\b", r"Failed to early initialize uC \(-(ENODATA|61)\)"):
        run.excuse(Kind.DRM, "a VF without VRAM cannot be probed, which is the defect", pattern=pattern, count=4)
    shell = machine.run(f"echo 2 > {machine.card.sysfs}/sriov_numvfs", timeout=180)
    shares = run.evidence("bytes of VRAM", machine.provisioned())
    if shell.returncode == 0 and not shares:
        run.known(defects.NO_SHARE, "VFs are enabled with 0 bytes of VRAM each")
    run.check(len(shares) == 2, f"VRAM of VFs: {shares}; numvfs: {shell.stderr.strip() or 'taken'}")
    s.work(run, machine, machine.card.pf, *machine.vfs())


@scenario(
    "27", "24 VFs of 8 GiB behind a root port with 8 GiB", "refused, nothing is left; the PF works", setups.NO_ROOM
)
def no_room_for_vf_bars(run: Run, machine: SriovMachine) -> None:
    for count in (24, 8, 1):
        code = machine.run(f"echo {count} > {machine.card.sysfs}/sriov_numvfs", timeout=180).returncode
        run.check(code and machine.numvfs() == 0, f"{count} VFs are enabled where there is no room for their BARs")
    run.read_kernel_log()
    said = [line.text for line in run.kernel_log if "SR-IOV" in line.text and "MMIO" in line.text]
    run.evidence("the kernel says", said[:1])
    run.check(said, "the kernel does not say that there is no room")
    run.check(not machine.provisioned(), "VFs that could not be enabled stay provisioned")
    s.work(run, machine, machine.card.pf)


@scenario(
    "28",
    "PF and VFs whose BARs show a part of their VRAM: buffers that must be visible, more than there is room for",
    "each can be written and read: idle ones make room, or ENOMEM; nothing is lost",
    setups.SMALL_BAR,
)
def small_bars(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    for address, size in ((machine.card.pf, 24 * MIB), (vfs[0], 8 * MIB)):
        with s.program(run, machine) as made:
            made.step(f"gpu g {address}")
            count = 0
            while count < 40:
                where = 0x1_0000_0000 + count * 2 * size
                step = made.attempt(f"buffer g b{count} {where:#x} {size:#x} vram")[0]
                if step.errno != "0":
                    break
                made.step(f"paint b{count} 0 0 {MIB:#x} {count + 1}")
                count += 1
            run.evidence(f"visible buffers of {size // MIB} MiB on {address}", f"{count}, then {step.errno}")
            # A buffer that no job uses is moved to system memory when another must be visible (xe_evict_flags).
            run.check(step.errno in ("0", "ENOMEM"), f"buffer {count} of {size:#x} bytes: {step.errno}")
            run.check(count >= 2, f"{count} buffers of {size:#x} bytes could be made")
            for index in range(count):
                made.step(f"verify b{index} 0 0 {MIB:#x} {index + 1}")
    s.work(run, machine, machine.card.pf, *vfs)
