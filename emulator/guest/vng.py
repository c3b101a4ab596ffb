"""Arguments for virtme-ng's `vng`, so that it boots a kernel tree with a served card.

Facts (virtme-ng 1.42): it runs QEMU on the default machine under KVM and on q35 without, or as a microvm, which has no
PCI; the card needs q35 and shared guest memory. `--qemu-opts` is split by a shell and comes last on QEMU's command
line, where a later -machine or -cpu adds to, or replaces, an earlier one. With virtiofs its guest memory belongs to a
NUMA node, which excludes a memory backend of the machine: so the root file system goes by 9p.

What vng boots into is the host's files. Another root file system (a userland, or one's own) is entered from there by a
script, which lies in the card's folder and so is in the guest too.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.machine import KVM, TCG, Machine
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription, device_arguments
from vfio_user_xe.emulator.guest.root_filesystem import FOLDER, RootFileSystem

WRAPPER = "qemu"
ENTER = "in-root"
_ENTER = """#!/bin/sh
# Runs a command in a root file system of its own, in a guest of virtme-ng: changes stay in the guest's memory.
# By vfio-user-xe vng-args; takes root, the module overlay, and for an image virtio_blk and the image's file system.
set -e
{description}folder={folder}
place=/run/vfio-user-xe-root
if [ ! -e $place/ready ]; then
    for module in $modules; do
        modprobe -q $module || true
    done
    mkdir -p $place
    mount -t tmpfs -o mode=755 tmpfs $place
    mkdir $place/image $place/changes $place/work $place/merged
    if [ -n "$folder" ]; then
        mount --bind "$folder" $place/image
    else
        source=
        for disk in /sys/block/vd*; do
            [ "$(cat $disk/serial 2>/dev/null)" != $tag ] || source=/dev/${{disk##*/}}
        done
        [ -n "$source" ] || {{ echo "{name}: no disk with the serial number $tag is here" >&2; exit 1; }}
        mount -t $type -o $options $source $place/image
    fi
    mount -t overlay -o lowerdir=$place/image,upperdir=$place/changes,workdir=$place/work overlay $place/merged
    for shared in proc sys dev tmp; do
        mkdir -p $place/merged/$shared
        mount --rbind /$shared $place/merged/$shared
    done
    touch $place/ready
fi
[ $# -gt 0 ] || set -- sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec chroot $place/merged "$@"
"""


def vng_arguments(
    card: CardDescription,
    qemu: Path,
    *,
    memory: int,
    kvm: bool,
    functions: list[str] | None = None,
    root: RootFileSystem | None = None,
) -> list[str]:
    """The words to add to `vng --run KERNEL`. `qemu` is a program; `memory` is in MiB.

    `root` is what the script of `enter_program` enters: an image becomes a disk, a folder is among the host's files already.
    """
    disk = root.arguments() if root is not None and root.type != FOLDER else []
    machine = Machine(memory, arguments=(*device_arguments(card, functions=functions), *disk))
    # vng gives -m and -smp itself, and under KVM the host's processor.
    options = [*machine.board(KVM if kvm else TCG), *([] if kvm else machine.processor(TCG)), *machine.devices()]
    return [
        # It takes KVM to work where /dev/kvm can be opened; `kvm` was tried.
        *([] if kvm else ["--disable-kvm"]),
        "--disable-microvm",
        "--force-9p",
        "--memory",
        machine.memory_size,
        "--qemu",
        str(qemu),
        f"--qemu-opts={shlex.join(options)}",
    ]


def enter_program(root: RootFileSystem, folder: Path) -> Path:
    """A program, in `folder`, that runs its arguments as a command in `root` in vng's guest; without any a shell.

    Raises:
        OSError: the file cannot be written.
    """
    script = folder / ENTER
    path = shlex.quote(str(root.path)) if root.type == FOLDER else ""
    script.write_text(_ENTER.format(description=root.description, folder=path, name=ENTER))
    script.chmod(0o755)
    return script


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
