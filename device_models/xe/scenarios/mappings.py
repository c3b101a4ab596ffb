"""Scenarios 41: dma-bufs of a VF's memory in the processor's page tables, what their memory is like, and revoking on request.

Posted series give vfio-pci's dma-bufs mmap() and two features, VFIO_DEVICE_FEATURE_DMA_BUF_REVOKE and _MEMATTR. What a kernel has
of them is found by asking: the features' numbers are not the same in all versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.device_models.xe.scenarios.revocation import HANG, Gone, does_not_wait
from vfio_user_xe.device_models.xe.scenarios.steps import opened, scenario
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.scenarios.run import Run

MMAP = "mmap"
FIRST, LAST = 13, 20
"""Numbers that a feature of dma-bufs may have: those before are of released kernels (`include/uapi/linux/vfio.h`)."""
TAKEN = {13: "VFIO_DEVICE_FEATURE_ZPCI_ERROR"}
"""Numbers from 13 on that Linux 7.3 has given away."""
_REVOKES = "vfio_pci_core_feature_dma_buf_revoke"
_ATTRIBUTES = {0: "non-cached", 1: "write-combined"}
_UNKNOWN_ATTRIBUTE = 2
_GONE = "EFAULT"
"""What the program says of a SIGBUS."""
_RANGES = "0x9000+0x5000,0+0x3000"
_SIZE = 0x8000


@dataclass(frozen=True, slots=True)
class Features:
    """Numbers of vfio-pci's features for dma-bufs; None: the kernel has none such."""

    revoke: int | None = None
    memattr: int | None = None

    @classmethod
    def told_by(cls, answers: Mapping[int, Sequence[str]]) -> Self:
        """From what each number answers to 4 and to 8 bytes of data without a valid descriptor.

        A feature that takes only a descriptor looks at it in both cases (EBADF); one that takes an attribute too has too few
        data the first time (EINVAL).
        """
        found = {tuple(errors): number for number, errors in sorted(answers.items(), reverse=True)}
        return cls(found.get(("EBADF", "EBADF")), found.get(("EINVAL", "EBADF")))


def _features(run: Run, made: Program) -> Features:
    answers = {
        number: [made.step(f"try set-feature v {number} {size} -").errno for size in (4, 8)]
        for number in range(FIRST, LAST + 1)
    }
    run.fact("answers of feature numbers", {str(number): errors for number, errors in answers.items()})
    return Features.told_by(answers)


def _mapped(run: Run, made: Program, ranges: str = _RANGES, name: str = "d") -> str:
    """Export `ranges` of VF 1 and map them; the mapping's name."""
    made.step(f"export v 2 {ranges} {name}")
    mapped = made.step(f"try view {name} m{name}")
    if mapped.errno in ("EINVAL", "ENODEV", "EOPNOTSUPP"):
        run.not_applicable(f"this kernel maps no dma-buf of vfio-pci: {mapped.errno}")
    run.check(mapped.errno == "0", f"mmap(): {mapped.errno}")
    return f"m{name}"


def _revoke(run: Run, made: Program) -> int:
    number = _features(run, made).revoke
    if number is None:
        run.not_applicable(f"no feature revokes a dma-buf: none from {FIRST} to {LAST} takes a descriptor alone")
    return number


def _is_gone(run: Run, made: Program, view: str, when: str) -> None:
    touched = made.step(f"try touch {view} 0")
    run.check(touched.errno == _GONE, f"an access {when}: {touched.errno} {touched.values}, and not SIGBUS")


@scenario(
    "41",
    "another process maps a dma-buf of two shuffled ranges",
    "it reads and writes the VF's memory, in the order of the ranges",
    group=MMAP,
)
def mapped_by_another_process(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as owner, s.program(run, machine) as other:
        owner.step("fill v 0 0x10000 3")
        _mapped(run, owner)
        fd = owner.step(f"export v 2 {_RANGES} handed").number("fd")
        other.do(
            f"take {owner.pid} {fd} d {_SIZE:#x}",
            "view d m",
            "verify m 0 0x9000 0x5000 3",
            "verify m 0x5000 0 0x3000 3",
            "paint m 0 0x9000 0x5000 4",
        )
        owner.step("check v 0x9000 0x5000 4")
        # A mapping holds the buffer: neither process has a descriptor of it any more.
        owner.do("close d", "close handed")
        other.do("close d", "verify m 0x5000 0 0x3000 3")


@scenario(
    "41b",
    "a mapping is touched after a reset, and after COMMAND.MEM was off",
    "it is the VF's memory again",
    group=MMAP,
)
def mapping_touched_after_reset(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        view = _mapped(run, made)
        made.do("fill v 0 0x10000 3", f"verify {view} 0 0x9000 0x5000 3", "reset v")
        machine.card.settle(1)
        made.do("fill v 0 0x10000 5", f"touch {view} 0", f"verify {view} 0 0x9000 0x5000 5")
        made.do(f"config v {COMMAND} 2 0", f"config v {COMMAND} 2 6")
        made.do(f"touch {view} 0", f"verify {view} 0x5000 0 0x3000 5")


@scenario(
    "41c",
    "a dma-buf is revoked on request",
    "its mapping ends in SIGBUS, it is refused everywhere and for good; another of the same memory lives on",
    group=MMAP,
)
def revoked_on_request(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        number = _revoke(run, made)
        made.step("fill v 0 0x10000 3")
        view, kept = _mapped(run, made), _mapped(run, made, name="other")
        made.do(f"touch {view} 0", f"set-feature v {number} 4 d")
        _is_gone(run, made, view, "after the buffer was revoked")
        made.do(
            f"expect EBADFD set-feature v {number} 4 d",
            "expect ENODEV view d again",
            "expect ENODEV import g d i",
            f"verify {kept} 0 0x9000 0x5000 3",
            "reset v",
        )
        machine.card.settle(1)
        _is_gone(run, made, view, "after a reset that followed")
        made.step(f"touch {kept} 0")


@scenario(
    "41d",
    "a dma-buf is revoked on request, the importer idle",
    "returns at once; the buffer is dead for good",
    group=HANG,
)
def revoked_on_request_with_an_idle_import(run: Run, machine: XeMachine) -> None:
    numbers: list[int] = []

    def use(run: Run, machine: XeMachine, made: Program) -> None:
        numbers.append(_revoke(run, made))
        s.import_and_use(run, machine, made)

    does_not_wait(
        run, machine, lambda _made: f"set-feature v {numbers[0]} 4 di", gone=Gone.REVOKED, use=use, where=_REVOKES
    )


@scenario("41e", "the device is closed while a mapping is there", "the mapping ends in SIGBUS, for good", group=MMAP)
def device_closed_under_a_mapping(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        view = _mapped(run, made)
        made.do(f"touch {view} 0", "release v")
        _is_gone(run, made, view, "after the device was closed")
        machine.card.open_vf(made, "v", 1)
        _is_gone(run, made, view, "after the device was opened again")


@scenario(
    "41f",
    "attributes of mappings",
    "each that there is gives a mapping of the memory; unknown ones and descriptors of something else are refused",
    group=MMAP,
)
def attributes_of_mappings(run: Run, machine: XeMachine) -> None:
    with opened(run, machine, also=2) as made:
        number = _features(run, made).memattr
        if number is None:
            run.not_applicable(
                f"no feature sets attributes: none from {FIRST} to {LAST} takes a descriptor and a value"
            )
        made.do("fill v 0 0x10000 3", f"export v 2 {_RANGES} d", f"export v2 2 {_RANGES} foreign")
        for attribute, name in _ATTRIBUTES.items():
            with run.step(name):
                made.do(f"set-feature v {number} 8 d {attribute}", "view d m", "verify m 0 0x9000 0x5000 3")
        refused = made.step(f"try set-feature v {number} 8 d {_UNKNOWN_ATTRIBUTE}").errno
        run.check(refused in ("ENOENT", "EINVAL", "EOPNOTSUPP"), f"an attribute that nobody has defined: {refused}")
        made.do(f"expect ENODEV set-feature v {number} 8 foreign 0", f"expect EINVAL set-feature v {number} 8 v 0")


@scenario("41g", "numbers of the features", "of Linux's own, none means two things", group=MMAP)
def numbers_of_features(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        found = _features(run, made)
    if found == Features():
        run.not_applicable(f"no feature from {FIRST} to {LAST} is for dma-bufs")
    numbers = {"revoke": found.revoke, "attributes": found.memattr}
    run.evidence("numbers", numbers)
    run.check(
        not set(numbers.values()) & set(TAKEN),
        f"{numbers}: Linux 7.3 has given these numbers to something else: {TAKEN}",
    )
