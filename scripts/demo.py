"""The demo: what a guest's kernel sees of the card, and which path its bytes take. Each step is checked."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from demo_output import DemoFailed, console, ledger_table, require, show, step
from demo_userland import run_userland
from rich.table import Table

from vfio_user_xe.device_models.xe.frames.play import PlayFailed
from vfio_user_xe.device_models.xe.scenarios.card import CPU, MODULES, XeCard
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, ProgramError, compiled
from vfio_user_xe.device_models.xe.scenarios.steps import UNITS, kernel_command
from vfio_user_xe.emulator.cli.control import verdict_lines
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.guest import GuestSpec
from vfio_user_xe.emulator.guest.machine import Iommu, Machine
from vfio_user_xe.emulator.guest.qemu_arguments import device_arguments
from vfio_user_xe.emulator.guest.served import ServedCard, ServedCardError, served_card
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient

PF = "/sys/bus/pci/devices/0000:01:00.0"
DEBUGFS = "/sys/kernel/debug/dri/0000:01:00.0"
MESSAGE = b"Written by the guest into VF 1's VRAM, read by the PF."
OFFSET = 0x1000

# The programs are those of the guest tests.
sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.guest.xe_programs import NoCompiler, compile_all, files_for  # noqa: E402


def guest_with(card: ServedCard, files: dict[str, Path]) -> GuestSpec:
    """A guest with the card's PF and VFs, the drivers that the demo loads, and programs for the GPU.

    VFIO wants an IOMMU, and Linux lets peer-to-peer traffic through the host bridge of AMD processors only.
    """
    return GuestSpec(
        machine=Machine(memory=1024, cpu=CPU, iommu=Iommu(), arguments=device_arguments(card.description)),
        modules=("pci-pf-stub", *MODULES),
        append="iommu=pt",
        firmware=("xe/bmg_guc_70.bin",),
        files=files,
    )


def enable_vfs(guest: BlockingGuest) -> None:
    """Two VFs on the PF, by the kernel's stub driver."""
    guest.script(
        f"echo pci-pf-stub > {PF}/driver_override\nmodprobe pci-pf-stub\n"
        f"echo 0000:01:00.0 > /sys/bus/pci/drivers/pci-pf-stub/bind 2>/dev/null || test -e {PF}/driver\n"
        f"echo 2 > {PF}/sriov_numvfs"
    )
    seen = guest.run("lspci -nn -d 8086: | grep '^01'; readlink -f " + f"{PF}/virtfn0 {PF}/virtfn1").stdout
    show(seen)
    require(seen.count("e212") == 3, "the guest does not see a PF and two VFs")


def write_into_vf(guest: BlockingGuest) -> None:
    """Store the message in VF 1's BAR2, word by word, as any program with the BAR could."""
    words = [int.from_bytes(MESSAGE[at : at + 4].ljust(4, b"\0"), "little") for at in range(0, len(MESSAGE), 4)]
    lines = [f"base=$(sed -n 3p {PF}/virtfn0/resource | cut -d' ' -f1)"]
    lines += [f"busybox devmem $((base + {OFFSET + 4 * i:#x})) 32 {word:#x}" for i, word in enumerate(words)]
    guest.script("\n".join(lines))
    show(guest.run(f"sed -n 3p {PF}/virtfn0/resource").stdout.strip() + "   <- VF 1's BAR2 in the guest")
    show(f"wrote {len(MESSAGE)} bytes at BAR2 + {OFFSET:#x}: {MESSAGE.decode()!r}")


def read_as_pf(control: ControlClient) -> None:
    """Find VF 1's memory by device physical address and read it as the PF."""
    control.call("ledger", clear=True)
    blocks = control.call("vram_map")["vfs"]["vf1"]
    address = next(block["dpa"] for block in blocks if block["gdpa"] == 0) + OFFSET
    data = bytes.fromhex(control.call("read", function="pf", space="device", address=address, length=len(MESSAGE)))
    show(f"VF 1's GDPA {OFFSET:#x} is DPA {address:#x}; the PF reads there: {data.decode(errors='replace')!r}")
    require(data == MESSAGE, "the PF read something else")
    try:
        control.call("read", function="vf2", space="device", address=1 << 40, length=4)
    except CommandError as refusal:
        show(f"VF 2 asking for memory that is not its own: {refusal}")
    else:
        raise DemoFailed("VF 2 reached memory that is not its own")


def print_ledger(control: ControlClient) -> None:
    """The ledger is the proof: one access, PF to VF 1's memory, over the IOV interconnect."""
    entries: list[dict[str, Any]] = control.call("ledger")
    columns = ["initiator", "owner", "interconnect", "kind", "reads", "bytes_read", "writes", "bytes_written"]
    table = Table(*columns)
    for entry in entries:
        table.add_row(*(str(entry[column]) for column in columns))
    console.print(table)
    require(
        any(e["initiator"] == "pf" and e["owner"] == "vf1" and e["interconnect"] == "iov" for e in entries),
        "the ledger has no access of the PF to VF 1's memory over iov",
    )


def load_xe(guest: BlockingGuest) -> None:
    """The stock driver on the PF, and the device as the driver sees it."""
    guest.script(
        f"echo 0 > {PF}/sriov_numvfs\necho 0000:01:00.0 > /sys/bus/pci/drivers/pci-pf-stub/unbind\n"
        f"echo > {PF}/driver_override\ndmesg -c >/dev/null\nmodprobe xe",
        timeout=120,
    )
    log = guest.dmesg()
    show("\n".join(line for line in log.splitlines() if any(word in line for word in _TELLING)))
    require("Initialized xe" in log, f"xe did not probe:\n{log}")
    require("*ERROR*" not in log, f"xe reported errors:\n{log}")
    facts = guest.script(
        f"grep -E 'engines' {DEBUGFS}/info\n"
        f"grep -E 'found release|status: ' {DEBUGFS}/gt0/uc/guc_info\n"
        f"cd {PF}/tile0/gt0/freq0; for f in min max rp0 rpe; do echo $f $(cat ${{f}}_freq) MHz; done\nls /dev/dri"
    ).stdout
    show(facts)
    require("renderD128" in facts, "there is no render node")


_TELLING = ("Running in", "Actual physical size", "Using GuC firmware", "Initialized xe")


def copy_on(guest: BlockingGuest, *addresses: str) -> None:
    """The copy engine moves and verifies data, on all these functions at the same time."""
    checks = "mem_copy_of_pages a_chain_of_copies_gives_the_picture_back"
    runs = [f"xe-blits --device {address} {checks} > /tmp/{address} 2>&1 &" for address in addresses]
    guest.run("\n".join([*runs, "wait"]), timeout=180)
    for address in addresses:
        report = guest.run(f"cat /tmp/{address}").stdout
        show("\n".join(f"{address}  {line}" for line in report.splitlines() if line[:2] == "ok"))
        require(report.count("\nok ") + report.startswith("ok ") == 2, f"the copies on {address} failed:\n{report}")
        require("not ok" not in report, f"the copies on {address} failed:\n{report}")


def enable_xe_vfs(guest: BlockingGuest) -> None:
    """Two VFs, provisioned by xe on the PF and driven by xe."""
    guest.run("dmesg -c")
    guest.script(f"echo 2 > {PF}/sriov_numvfs", timeout=120)
    log = guest.dmesg()
    show("\n".join(line for line in log.splitlines() if "provisioned" in line or "Initialized" in line))
    require(log.count("Initialized xe") == 2, f"xe did not probe on both VFs:\n{log}")


def print_shares(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Which function had the engines for how long, between two looks."""
    table = Table("engine", *_FUNCTIONS)
    totals = dict.fromkeys(_FUNCTIONS, 0)
    for old, new in zip(before, after, strict=True):
        spent = {
            name: new["busy_ns"].get(str(vfid), 0) - old["busy_ns"].get(str(vfid), 0)
            for vfid, name in enumerate(_FUNCTIONS)
        }
        for name, time_ns in spent.items():
            totals[name] += time_ns
        if any(spent.values()):
            table.add_row(new["name"], *(f"{spent[name] / 1e6:.1f} ms" for name in _FUNCTIONS))
    console.print(table)
    require(all(totals.values()), f"a function did not get any engine: {totals}")


_FUNCTIONS = ("pf", "vf1", "vf2")


def import_a_vf_s_buffer(guest: BlockingGuest, card: XeCard) -> None:
    """The project's own subject: VRAM of a VF as a dma-buf, in the hands of the PF's driver and engine."""
    with step("VF 1 goes to user space: vfio-pci instead of xe"):
        card.disable_vfs()
        guest.script("modprobe vfio-iommu-type1; modprobe vfio-pci")
        card.enable_vfs(1)
        program = Program(guest, "demo")
        program.start()
        card.open_vf(program, "vf", 1)
        show(f"{card.vf(1)}: {driver_of(guest, card.vf(1))}; LMTT: {lmtt_of(card)}")
    with step("Its VRAM is filled, exported as a dma-buf (VFIO), imported by xe on the PF (PRIME), bound (VM_BIND)"):
        for done in program.do(
            f"fill vf {BUFFER_OFFSET:#x} {BUFFER_SIZE:#x} 0xc0ffee",
            f"export vf 2 {BUFFER_OFFSET:#x}+{BUFFER_SIZE:#x} dmabuf",
            f"gpu pf {card.pf}",
            "import pf dmabuf imported",
            f"bind imported {BUFFER_VA:#x}",
            f"buffer pf result {RESULT_VA:#x} {BUFFER_SIZE:#x}",
        ):
            show(str(done))
    with step("The PF's copy engine reads it; the guest compares"):
        card.call("ledger", clear=True)
        for done in program.do(
            f"copy pf {RESULT_VA:#x} {BUFFER_VA:#x} {BUFFER_SIZE:#x}",
            f"verify result 0 {BUFFER_OFFSET:#x} {BUFFER_SIZE:#x} 0xc0ffee",
        ):
            show(str(done))
    with step("The path it took, by the page tables and by the ledger"):
        show_path(card)
    program.end()
    with step("VF 1 goes back to xe"):
        card.settle(1)
        card.bind(1, "xe")
        show(f"{card.vf(1)}: {driver_of(guest, card.vf(1))}")
    compute_on_a_vf(guest, card)


def compute_on_a_vf(guest: BlockingGuest, card: XeCard) -> None:
    """A kernel of a VF writes its VRAM; the PF imports that from the VF's driver, and a kernel of the PF reads it."""
    program = Program(guest, "kernels")
    program.start()
    card.call("ledger", clear=True)
    with step("VF 1's execution units run a kernel over its VRAM"):
        show(PATTERN_LINE)
        for done in program.do(
            f"gpu vf {card.vf(1)}",
            f"buffer vf memory {BUFFER_VA:#x} {BUFFER_SIZE:#x} vram",
            kernel_command("pattern", BUFFER_VA, 0, BUFFER_SIZE, SEED, gpu="vf"),
        ):
            show(str(done))
    with step(
        "The PF imports that memory from VF 1's driver (PRIME); its own execution units read it; the guest compares"
    ):
        for done in program.do(
            "reexport memory dmabuf",
            f"gpu pf {card.pf}",
            "import pf dmabuf imported",
            f"bind imported {BUFFER_VA:#x}",
            f"buffer pf result {RESULT_VA:#x} {BUFFER_SIZE:#x}",
            kernel_command("copy", RESULT_VA, BUFFER_VA, BUFFER_SIZE, gpu="pf"),
            f"verify result 0 0 {BUFFER_SIZE:#x} {SEED}",
        ):
            show(str(done))
    with step("What the execution units reached, by the ledger"):
        entries = [entry for entry in card.call("ledger") if entry["kind"] in UNITS]
        ledger_table(entries)
        written = sum(e["bytes_written"] for e in entries if (e["initiator"], e["owner"]) == ("vf1", "vf1"))
        require(written >= BUFFER_SIZE, "VF 1's kernel did not write its VRAM")
        read = [e for e in entries if (e["initiator"], e["owner"]) == ("pf", "vf1") and e["bytes_read"] >= BUFFER_SIZE]
        require(len(read) == 1, "the PF's kernel did not read VF 1's VRAM")
        show(f"{read[0]['interconnect']}: {_LINKS[read[0]['interconnect']]}")
    program.end()


def driver_of(guest: BlockingGuest, function: str) -> str:
    """The driver that a PCI function is bound to."""
    return guest.script(f"basename $(readlink /sys/bus/pci/devices/{function}/driver)").stdout.strip()


def lmtt_of(card: XeCard) -> str:
    """VF 1's VRAM in words."""
    return ", ".join(f"GDPA {r['gdpa']:#x} is DPA {r['dpa']:#x} ({r['size'] >> 20} MiB)" for r in card.lmtt(1))


def show_path(card: XeCard) -> None:
    """The picture, with what was found filled in; the ledger below it is the proof."""
    (entry, *_), dpa = card.translations(BUFFER_VA, BUFFER_VA + BUFFER_SIZE), card.dpa(1, BUFFER_OFFSET)
    entries: list[dict[str, Any]] = card.call("ledger")
    reached = [
        e
        for e in entries
        if e["initiator"] == "pf" and e["owner"] in ("vf1", "unshared") and e["bytes_read"] >= BUFFER_SIZE
    ]
    require(len(reached) == 1, f"the ledger does not show the PF in VF 1's memory once: {entries}")
    link = reached[0]["interconnect"]
    console.print(
        DMABUF_PICTURE.format(
            offset=f"{BUFFER_OFFSET:#x}", dpa=f"{dpa:#x}", entry=f"{entry['entry']:#018x}", kind=entry["kind"],
            target=f"{entry['address']:#x}", pages=entry["pages"], link=link,
            meaning=_LINKS.get(link, link),
        ),
        markup=False,
    )  # fmt: skip
    ledger_table([entry for entry in entries if entry["kind"] in ("system", "vram")])
    show("\n".join(verdict_lines(card.call("verdicts"))))


SEED = 4711
PATTERN_LINE = "kernel: out[i] = i * 2654435761 ^ seed, 16 items a thread (device_models/xe/scenarios/kernels.py)"
BUFFER_OFFSET, BUFFER_SIZE = 0x20_0000, 0x40_0000
BUFFER_VA, RESULT_VA = 0x1000_0000, 0x2000_0000

_LINKS = {
    "iov": "the card's own link: this kernel knows VRAM of VFs by device address. No copy, no DMA mapping",
    "p2p": "PCI peer-to-peer to VF 1's BAR: what a kernel does that has no mappings by device address",
    "host_dma": "DMA through QEMU to VF 1's BAR, behind a translating IOMMU",
}

DMABUF_PICTURE = """
  VF 1, by VFIO:  fill ──► BAR2 + {offset} ═══ VF 1's VRAM, DPA {dpa}
                              │ VFIO_DEVICE_FEATURE_DMA_BUF            ▲
                              ▼                                        │ LMTT
                           dma-buf ── PRIME, VM_BIND ──► xe, PF        │
                                                          │            │
  PF, PPGTT:      PTE {entry} ({pages}, {kind} memory at {target})
                                                          │            │
  PF, BCS0:       MEM_COPY ── {link} ─────────────────────────┴────────────┘

  {link}: {meaning}
"""


PICTURE = """
  guest:   write to VF 1's BAR2 ──► VF 1's VRAM (mapped: no message was sent)
                                        │  GDPA 0x1000, owned by vf1
  card:    PF ── iov interconnect ──────┘  found by DPA, no copy
"""


def demonstrate(card: ServedCard, guest: BlockingGuest) -> None:
    """What is shown of a running card in a running guest."""
    with step("The guest's kernel enables two VFs on our PF"):
        enable_vfs(guest)
    with step("The guest writes into a VF's VRAM"):
        write_into_vf(guest)
    with ControlClient(card.control) as control:
        with step("The PF reads the same bytes over the card's interconnect"):
            read_as_pf(control)
        with step("The ledger proves the path"):
            print_ledger(control)
        console.print(PICTURE, markup=False)
        with step("The stock xe driver takes the PF over"):
            load_xe(guest)
        with step("Its copy engine moves data between VRAM and guest memory, and the guest verifies it"):
            copy_on(guest, "0000:01:00.0")
        with step("xe provisions and enables two VFs, and xe drives them"):
            enable_xe_vfs(guest)
        with step("PF and both VFs use the copy engine at the same time"):
            before = control.call("engines")
            copy_on(guest, "0000:01:00.0", "0000:01:00.1", "0000:01:00.2")
        with step("Who had which engine for how long"):
            print_shares(before, control.call("engines"))
        import_a_vf_s_buffer(guest, XeCard(guest, control))


def run() -> None:
    """The whole demo. Raises what went wrong."""
    with ExitStack() as stack:
        with step("Serve a card: a PF and two VFs, a socket each"):
            card = stack.enter_context(served_card(["--vfs", "2"]))
            show("\n".join(f"{f.name}: {f.socket}" for f in card.description.functions))
        with step("Compile the guest's programs, boot an unmodified kernel in an unmodified QEMU"):
            environment = locate()
            files = {**dict(files_for(compile_all(environment))), **compiled(environment)}
            guest = stack.enter_context(BlockingGuest(guest_with(card, files)))
            show(f"Linux {guest.run('uname -r').stdout.strip()} under {guest.accelerator.name}")
        demonstrate(card, guest)


def main() -> int:
    """Exit code: 0 if everything was seen to happen, else 1."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--userland",
        action="store_true",
        help="instead: OpenCL on a VF, frames of two virtual machines, with Debian's Mesa and NEO, which are fetched if need be (220 MB)",
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        default=Path("demo-pictures"),
        metavar="FOLDER",
        help="where --userland leaves PNGs (%(default)s)",
    )
    arguments = parser.parse_args()
    try:
        run_userland(arguments.pictures) if arguments.userland else run()
    except (
        DemoFailed,
        NoCompiler,
        GuestError,
        ServedCardError,
        CommandError,
        ProgramError,
        PlayFailed,
        OSError,
    ) as exc:
        console.print("[bold red]FAILED[/]")
        show(str(exc))
        return 1
    console.print("[bold green]All of it happened.[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
