"""Arguments for virtme-ng's `vng`, so that it boots a kernel tree with a served card.

Facts (virtme-ng 1.42): it runs QEMU on the default machine under KVM and on q35 without, or as a microvm, which has no
PCI; the card needs q35 and shared guest memory. `--qemu-opts` is split by a shell and comes last on QEMU's command
line, where a later -machine or -cpu adds to, or replaces, an earlier one. With virtiofs its guest memory belongs to a
NUMA node, which excludes a memory backend of the machine: so the root file system goes by 9p.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.machine import KVM, TCG, Machine
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription, device_arguments

WRAPPER = "qemu"


def vng_arguments(
    card: CardDescription, qemu: Path, *, memory: str, kvm: bool, functions: list[str] | None = None
) -> list[str]:
    """The words to add to `vng --run KERNEL`. `qemu` is a program; `memory` is written as QEMU and vng both take it."""
    machine = Machine(memory, arguments=device_arguments(card, functions=functions))
    # vng gives -m and -smp itself, and under KVM the host's processor.
    options = [*machine.board(KVM if kvm else TCG), *([] if kvm else machine.processor(TCG)), *machine.devices()]
    return [
        # It takes KVM to work where /dev/kvm can be opened; `kvm` was tried.
        *([] if kvm else ["--disable-kvm"]),
        "--disable-microvm",
        "--force-9p",
        "--memory",
        memory,
        "--qemu",
        str(qemu),
        f"--qemu-opts={shlex.join(options)}",
    ]


def qemu_program(environment: Environment, folder: Path) -> Path:
    """A program that is the environment's QEMU; where that takes more than one word, a script in `folder`.

    Raises:
        OSError: the file cannot be written.
    """
    qemu = environment.qemu
    if len(qemu.command) == 1 and not qemu.variables:
        return Path(qemu.command[0])
    variables = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in qemu.variables.items())
    script = folder / WRAPPER
    script.write_text(f'#!/bin/sh\n{variables}exec {shlex.join(qemu.command)} "$@"\n')
    script.chmod(0o755)
    return script
