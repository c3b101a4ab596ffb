"""Scenarios 1 to 16, 28, 29 and 32: what reaches what, by which path, and what is refused."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios import defects, setups
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, SCATTERED, XeMachine
from vfio_user_xe.device_models.xe.scenarios.steps import (
    SOURCE,
    TARGET,
    check_bound,
    check_path,
    imported,
    opened,
    scenario,
)
from vfio_user_xe.emulator.scenarios.run import Run


def _read_back(made: Program, offset: int, length: int, seed: int = 7) -> None:
    made.do(f"copy g {TARGET:#x} {SOURCE:#x} {length:#x}", f"verify target 0 {offset:#x} {length:#x} {seed}")


@scenario("1", "basic import", "data equal; by device address where the kernel can, else as a PCI device")
def basic_import(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.step(f"fill v 0 {2 * MIB:#x} 7")
        check_bound(run, machine, made, f"0+{2 * MIB:#x}")
        _read_back(made, 0, 2 * MIB)
        check_path(run, machine)


@scenario("1b", "basic import behind a translating IOMMU", "as 1", setups.TRANSLATING)
def basic_import_translating(run: Run, machine: XeMachine) -> None:
    basic_import(run, machine)


@scenario("1k", "basic import, read by a kernel on execution units", "as 1")
def import_read_by_a_kernel(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.step(f"fill v 0 {2 * MIB:#x} 7")
        check_bound(run, machine, made, f"0+{2 * MIB:#x}")
        made.do(s.kernel_command("copy", TARGET, SOURCE, 2 * MIB), f"verify target 0 0 {2 * MIB:#x} 7")
        check_path(run, machine)
        s.check_units_read(run, machine, 2 * MIB)


@scenario("1s", "64 MiB, and how long a copy of it takes", "data equal; times for people to compare")
def large_import(run: Run, machine: XeMachine) -> None:
    size, target, plain = 64 * MIB, TARGET + 1024 * MIB, TARGET + 2048 * MIB
    with opened(run, machine) as made:
        made.do(
            f"fill v 0 {size:#x} 7",
            f"buffer g large {target:#x} {size:#x}",
            f"buffer g plain {plain:#x} {size:#x} vram",
            f"paint plain 0 0 {size:#x} 7",
        )
        check_bound(run, machine, made, f"0+{size:#x}")
        for name, source in (("the PF's own VRAM", plain), ("the import", SOURCE)):
            copied = made.step(f"copy g {target:#x} {source:#x} {size:#x} 5", timeout=120)
            run.fact(f"microseconds from {name}", copied.number("copy_us"))
            made.step(f"verify large 0 0 {size:#x} 7")
        check_path(run, machine, length=size)


@scenario("2", "the PF writes, the VF's user reads", "the pattern is visible")
def pf_writes_vf_reads(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        check_bound(run, machine, made, f"0+{2 * MIB:#x}")
        made.do(
            f"paint target 0 0 {2 * MIB:#x} 9",
            f"copy g {SOURCE:#x} {TARGET:#x} {2 * MIB:#x}",
            f"check v 0 {2 * MIB:#x} 9",
        )
        check_path(run, machine)


@scenario("3", "a page, a frame, offsets", "data equal")
def pages_and_odd_sizes(run: Run, machine: XeMachine) -> None:
    for offset, length in ((0x5000, 0x1000), (0x1FF000, 2025 * 4096), (0x123000, 0x1000)):
        with opened(run, machine) as made:
            made.step(f"fill v {offset:#x} {length:#x} 7")
            check_bound(run, machine, made, f"{offset:#x}+{length:#x}")
            _read_back(made, offset, length)
            check_path(run, machine, length=length)


def _ranges(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.step("fill v 0 0x40000 3")
        check_bound(run, machine, made, "0x9000+0x5000,0+0x1000,0x4000+0x3000")
        made.step(f"copy g {TARGET:#x} {SOURCE:#x} 0x9000")
        checks = (
            "verify target 0 0x9000 0x5000 3",
            "verify target 0x5000 0 0x1000 3",
            "verify target 0x6000 0x4000 0x3000 3",
        )
        wrong = [step for step in made.attempt(*checks) if not step.ok]
        if wrong and machine.zero_copy:
            run.known("D3", str(wrong[0]))
        run.check(not wrong, f"wrong data: {wrong[0] if wrong else ''}")
        check_path(run, machine, length=0x9000)


@scenario("4", "several ranges, shuffled", "data in the order of the ranges")
def several_ranges(run: Run, machine: XeMachine) -> None:
    _ranges(run, machine)


@scenario("4b", "several ranges behind a translating IOMMU", "as 4", setups.TRANSLATING)
def several_ranges_translating(run: Run, machine: XeMachine) -> None:
    _ranges(run, machine)


@scenario("8", "what cannot be exported", "EINVAL or ENODEV, and no descriptor")
def bad_exports(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.do(
            "expect EINVAL export v 2 1+0x1000 x",
            "expect EINVAL export v 2 0+0 x",
            "expect EINVAL export v 2 0+100 x",
            "expect EINVAL export v 2 0xffff000+0x2000 x",
            "expect EINVAL export v 2 - x",
            "expect EINVAL export v 2 0+0x1000 x 1",
            "expect ENODEV export v 1 0+0x1000 x",
            "expect ENODEV export v 7 0+0x1000 x",
        )


@scenario("9", "BAR0 of the VF", "no match by device address: as a PCI device")
def registers_bar(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.do("export v 0 0x190000+0x1000 d", "import g d i")
        bound = made.step(f"try bind i {SOURCE:#x}")
        run.check(bound.errno == "0", f"VM_BIND: {bound.errno}")
        made.step(f"copy g {TARGET:#x} {SOURCE:#x} 0x100")
        taken = run.fact("paths", machine.card.paths("pf", "vf1"))
        run.check(taken["legacy"] and not taken["zero-copy"], f"paths: {taken}")


@scenario("10", "an importer without peer-to-peer (vgem)", "refused at attach, no oops")
def importer_without_p2p(run: Run, machine: XeMachine) -> None:
    loaded = machine.run("modprobe vgem && readlink -f /dev/dri/by-path/platform-vgem-render || true")
    node = machine.sh(
        "for c in /sys/class/drm/renderD*; do case $(readlink -f $c/device) in *vgem*) basename $c;; esac; done"
    )
    if not node:
        run.not_applicable(f"this kernel has no vgem ({loaded.stderr.strip()})")
    with opened(run, machine) as made:
        made.do("export v 2 0+0x1000 d", f"device other /dev/dri/{node}")
        result = made.step("try import other d i")
        run.check(result.errno in ("EOPNOTSUPP", "EINVAL"), f"import into vgem: {result.errno}")


@scenario("12", "a VF imports from its sibling", "no device addresses: as a PCI device, or refused")
def sibling_imports(run: Run, machine: XeMachine) -> None:
    machine.card.bind(2, "xe")
    try:
        with s.program(run, machine) as made:
            machine.card.open_vf(made, "v", 1)
            made.do(f"gpu g {machine.card.vf(2)}", f"buffer g target {TARGET:#x} {MIB:#x}", f"fill v 0 {MIB:#x} 7")
            machine.card.call("ledger", clear=True)
            bound = imported(made, f"0+{MIB:#x}")
            if bound.errno == "0":
                _read_back(made, 0, MIB)
            taken = run.fact("paths", machine.card.paths("vf2", "vf1"))
            run.check(not taken["zero-copy"], "VF 2 reached VF 1's memory by device address")
            run.check(bound.errno in ("0", "EINVAL"), f"VM_BIND: {bound.errno}")
    finally:
        s.settle(machine, 1)
        machine.card.bind(2, "vfio-pci")


@scenario("13", "two VFs at once", "no cross talk")
def two_vfs(run: Run, machine: XeMachine) -> None:
    with opened(run, machine, also=2) as made:
        for vf, seed, va in (("v", 1, SOURCE), ("v2", 2, SOURCE + 2 * MIB)):
            made.step(f"fill {vf} 0 {2 * MIB:#x} {seed}")
            check_bound(run, machine, made, f"0+{2 * MIB:#x}", name=f"i{vf}", vf=vf, va=va)
        for _ in range(3):
            made.do(
                f"copy g {TARGET:#x} {SOURCE:#x} {4 * MIB:#x}",
                f"verify target 0 0 {2 * MIB:#x} 1",
                f"verify target {2 * MIB:#x} 0 {2 * MIB:#x} 2",
            )
        check_path(run, machine)
        check_path(run, machine, owner="vf2", start=SOURCE + 2 * MIB)


@scenario("28", "two processes import one buffer, and go in both orders", "no reference is left: VRAM use as before")
def two_importers(run: Run, machine: XeMachine) -> None:
    before = machine.card.vram_used()
    for first in (0, 1):
        with opened(run, machine) as owner:
            others = [s.started(run, machine) for _ in range(2)]
            for other in others:
                s.import_from(run, machine, owner, other)
                # What was imported can be exported: that is the same buffer, not another.
                other.do("reexport i again", "import g again j", f"bind j {SOURCE + 16 * MIB:#x}")
                other.do(f"copy g {TARGET:#x} {SOURCE + 16 * MIB:#x} {MIB:#x}", f"verify target 0 0 {MIB:#x} 7")
            for other in (others[first], others[1 - first]):
                run.check(other.end(), f"importer {other.pid} does not end")
    s.check_vram(run, machine, before)


@scenario(
    "28b",
    "a buffer whose handle was closed while it is bound, imported and bound again",
    "jobs run: both bindings are of one buffer",
)
def two_imports_in_one_vm(run: Run, machine: XeMachine) -> None:
    again = SOURCE + 16 * MIB
    with opened(run, machine) as made:
        made.do(f"fill v 0 {MIB:#x} 7", f"export v 2 0+{MIB:#x} d", "import g d i", f"bind i {SOURCE:#x}")
        made.do("gem-close i", "import g d j", f"bind j {again:#x}")
        both = made.step(f"try copy g {TARGET:#x} {again:#x} {MIB:#x}")
        made.step(f"unbind g {SOURCE:#x} {MIB:#x}")
        with run.step("control: with one of them unbound"):
            made.do(f"copy g {TARGET:#x} {again:#x} {MIB:#x}", f"verify target 0 0 {MIB:#x} 7")
        if both.errno == "EALREADY":
            run.known(defects.EXEC_DUPLICATE, "DRM_IOCTL_XE_EXEC: EALREADY, until one of the bindings is removed")
        run.check(both.errno == "0", f"a job with both bound: {both.errno}")


@scenario("29", "alignments, parts, PAT indices", "data equal; pages as large as alignment allows")
def alignments(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.do(
            f"fill v 0 {4 * MIB:#x} 5", f"export v 2 0+{4 * MIB:#x} d", "import g d i",
            f"bind i {SOURCE:#x}",
            f"bind i {SOURCE + 16 * MIB + 0x10000:#x}",
            f"bind i {SOURCE + 32 * MIB:#x} 0x203000 0x5000 2",
            f"bind i {SOURCE + 48 * MIB:#x} 0 {4 * MIB:#x} 5",
        )  # fmt: skip
        for va, offset, length in (
            (SOURCE, 0, 4 * MIB),
            (SOURCE + 16 * MIB + 0x10000, 0, 4 * MIB),
            (SOURCE + 32 * MIB, 0x203000, 0x5000),
            (SOURCE + 48 * MIB, 0, 4 * MIB),
        ):
            made.do(f"copy g {TARGET:#x} {va:#x} {length:#x}", f"verify target 0 {offset:#x} {length:#x} 5")
        # PAT index 3 is not coherent with the CPU: xe refuses it for memory that is not its own (xe_vm_bind_ioctl_validate_bo).
        refused = made.step(f"try bind i {SOURCE + 64 * MIB:#x} 0 {4 * MIB:#x} 3")
        run.check(refused.errno == "EINVAL", f"a PAT index without coherency: {refused.errno}")
        pages = run.fact("page tables", machine.card.translations(SOURCE, SOURCE + 64 * MIB))
        run.check(any(page["pages"] == "2M" for page in pages), "no 2 MiB page where alignment allows it")


@scenario(
    "32", "a host bridge that Linux does not list", "EINVAL at VM_BIND, by device address it works", setups.NOT_LISTED
)
def host_bridge_not_listed(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.step(f"fill v 0 {MIB:#x} 7")
        bound = imported(made, f"0+{MIB:#x}")
        if machine.zero_copy:
            run.check(bound.errno == "0", f"VM_BIND: {bound.errno}")
            _read_back(made, 0, MIB)
        else:
            run.check(bound.errno == "EINVAL", f"VM_BIND: {bound.errno}, and no peer-to-peer path should be allowed")
            run.check(any("whitelist" in line for line in bound.kernel), f"the kernel does not say why: {bound.kernel}")


@scenario("32b", "the same, with ACS redirect switched off at the port", "bus addresses: data equal", setups.NOT_LISTED)
def acs_redirect_off(run: Run, machine: XeMachine) -> None:
    # The kernel keeps the answer for each pair of functions: VF 2 was never asked for.
    machine.sh("setpci -s 00:01.0 ECAP_ACS+6.w=0")
    with opened(run, machine, vf=2) as made:
        made.step(f"fill v 0 {MIB:#x} 7")
        check_bound(run, machine, made, f"0+{MIB:#x}")
        _read_back(made, 0, MIB)
        check_path(run, machine, owner="vf2", length=MIB)


@scenario("32c", "PF and VFs on the root bus, beside other devices", "as 1", setups.ROOT_BUS)
def on_the_root_bus(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.step(f"fill v 0 {2 * MIB:#x} 7")
        check_bound(run, machine, made, f"0+{2 * MIB:#x}")
        _read_back(made, 0, 2 * MIB)
        taken = machine.card.paths("pf", "vf1")
        if machine.zero_copy and not taken["zero-copy"]:
            run.known("D8", f"with other devices on the PF's bus the import is mapped as a PCI device: {taken}")
        check_path(run, machine)


@scenario("6", "the last page of the BAR", "data equal")
def last_page(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.step("fill v 0xffff000 0x1000 7")
        check_bound(run, machine, made, "0xffff000+0x1000")
        _read_back(made, 0xFFFF000, 0x1000)
        taken = machine.card.paths("pf", "vf1")
        if machine.zero_copy and not taken["zero-copy"]:
            run.known("D4", "the last page of the BAR is reached as a PCI device, not by device address")
        check_path(run, machine, length=0x1000)


@scenario("5", "a range over blocks that are scattered", "data equal")
def scattered_quota(run: Run, machine: XeMachine) -> None:
    machine.reprovision(SCATTERED)
    try:
        blocks = run.fact("LMTT", machine.card.lmtt(1))
        run.check(len(blocks) > 1, f"the quota is in one piece: {blocks}")
        border = blocks[1]["gdpa"] - 2 * MIB
        with opened(run, machine) as made:
            made.step(f"fill v {border:#x} {4 * MIB:#x} 7")
            check_bound(run, machine, made, f"{border:#x}+{4 * MIB:#x}")
            made.step(f"copy g {TARGET:#x} {SOURCE:#x} {4 * MIB:#x}")
            read = made.step(f"try verify target 0 {border:#x} {4 * MIB:#x} 7")
            if read.errno != "0" and machine.zero_copy:
                run.known("D2", str(read))
            run.check(read.errno == "0", str(read))
    finally:
        if not run.given_up:
            machine.restore_quotas(run)


@scenario("7", "beyond the quota, but inside of the BAR", "refused, or reads all ones; nobody else's memory")
def beyond_the_quota(run: Run, machine: XeMachine) -> None:
    machine.reprovision(128 * MIB)
    try:
        with opened(run, machine) as made:
            bound = imported(made, f"{200 * MIB:#x}+0x2000")
            if bound.errno == "0":
                result = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x2000")
                taken = run.fact("paths", machine.card.paths("pf", "vf1"))
                others = [e for e in machine.card.call("ledger") if e["owner"] == "pf" and e["kind"] == "vram"]
                if taken["zero-copy"] or others:
                    run.known(
                        "D5", f"memory beyond the quota is mapped: {machine.card.translations(SOURCE, SOURCE + 0x2000)}"
                    )
                run.check(result.errno == "0", f"the copy: {result.errno}")
                made.step("holds target 0 0x2000 0xffffffff")
            else:
                run.check(bound.errno in ("EINVAL", "ERANGE"), f"VM_BIND: {bound.errno}")
    finally:
        if not run.given_up:
            machine.restore_quotas(run)


_NO_LIAR = (
    "this kernel's exporter, vfio-pci, names nothing but its own BAR; what the card does with wrong addresses is tested by"
    " drivers that are played (tests/twins)"
)


@scenario("11", "a VF of another PF", "no device addresses: as a PCI device, or refused", setups.TWO_CARDS)
def vf_of_another_pf(run: Run, machine: XeMachine) -> None:
    (other,) = machine.others
    with s.program(run, machine) as made:
        other.open_vf(made, "v", 1)
        made.do(f"gpu g {machine.card.pf}", f"buffer g target {TARGET:#x} {8 * MIB:#x}", f"fill v 0 {MIB:#x} 7")
        for card in (machine.card, other):
            card.call("ledger", clear=True)
        bound = imported(made, f"0+{MIB:#x}")
        run.check(bound.errno in ("0", "EINVAL"), f"VM_BIND: {bound.errno}")
        if bound.errno == "0":
            _read_back(made, 0, MIB)
        pages = run.fact("page tables", machine.card.translations(SOURCE, SOURCE + MIB))
        run.fact("ledger of the exporter's card", other.call("ledger"))
        run.check({page["kind"] for page in pages} <= {"system"}, f"the other card's memory by device address: {pages}")
        run.check(not other.paths("pf", "vf1")["zero-copy"], "the other card's link was used")
    other.settle(1)


@scenario("14", "an exporter that names another VF's memory", "EPERM; no access to it")
def lying_exporter(run: Run, machine: XeMachine) -> None:
    _needs_zero_copy(run, machine)
    run.not_applicable(_NO_LIAR)


@scenario("15", "an exporter that names RAM", "refused")
def exporter_names_ram(run: Run, machine: XeMachine) -> None:
    _needs_zero_copy(run, machine)
    run.not_applicable(_NO_LIAR)


@scenario("16", "falling back", "what cannot be reached by device address is reached as a PCI device")
def fallback(run: Run, machine: XeMachine) -> None:
    _needs_zero_copy(run, machine)
    registers_bar(run, machine)


def _needs_zero_copy(run: Run, machine: XeMachine) -> None:
    if not machine.zero_copy:
        run.not_applicable("this kernel has no mappings by device address (none of their symbols in /proc/kallsyms)")
