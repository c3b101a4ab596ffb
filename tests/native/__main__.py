"""`python -m tests.native [OPTIONS] -- PROGRAM ARGUMENTS`: a program of a userland on the card's engines, without a guest.

It needs root, a C compiler, and what xe answers to queries (`queries.py`). For OpenCL by Mesa and by Intel:

    python -m tests.native --queries FOLDER --work WORK OCL_ICD_VENDORS=/etc/OpenCL/vendors/rusticl.icd RUSTICL_ENABLE=iris -- clinfo -l
    python -m tests.native --queries FOLDER --work WORK OCL_ICD_VENDORS=/etc/OpenCL/vendors/intel.icd \\
        NEOReadDebugKeys=1 EnableDirectSubmission=0 -- clinfo -l

Direct submission has to be off: its batches wait for the next one, and a batch here is executed to its end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.native.engines import listen
from vfio_user_xe.emulator.child_process import end_with_parent
from vfio_user_xe.emulator.guest.userland import locate_userland

_HERE = Path(__file__).parent
_SYSFS = "sys/devices/pci0000:00/0000:01:00.0"
_ID = {
    "vendor": "0x8086",
    "device": "0xe212",
    "subsystem_vendor": "0x8086",
    "subsystem_device": "0x1114",
    "revision": "0x00",
}
"""The device that the queries are of, as in sysfs."""
# The program is run with the preloaded library by one of the root's programs: `chroot` is the host's.
_RUN = "import os, sys; os.environ['LD_PRELOAD'] = '/native/render_node.so'; os.execvp(sys.argv[1], sys.argv[1:])"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.native", description="A program on the engines, without a guest."
    )
    parser.add_argument("--userland", default="suites", help="a fetched userland, the root of the program")
    parser.add_argument("--queries", type=Path, required=True, help="folder that queries.py wrote in a guest")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps what programs write")
    parser.add_argument("words", nargs="+", help="NAME=VALUE of the environment, then the program and its arguments")
    options = parser.parse_args()
    if "VFIO_USER_XE_NATIVE" not in os.environ:
        os.environ["VFIO_USER_XE_NATIVE"] = "1"
        # Mounts are this process's own, and end with it.
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", "tests.native", *sys.argv[1:]])
    root = _mounted(locate_userland(options.userland).image, options.work.absolute())
    _furnish(root, options.queries)
    socket = root / "native/engines"
    socket.unlink(missing_ok=True)
    server = os.fork()
    if not server:
        end_with_parent(signal.SIGKILL)
        listen(socket)
    try:
        while not socket.exists():
            if os.waitpid(server, os.WNOHANG)[0]:
                parser.error(f"{socket}: nothing could listen there; a shorter --work may help")
            time.sleep(0.05)
        return _run(root, options.words)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGTERM)


def _mounted(image: Path, work: Path) -> Path:
    """The userland with a layer that can be written, below `work`."""
    lower, upper, scratch, root = (work / name for name in ("lower", "upper", "scratch", "root"))
    for folder in (lower, upper, scratch, root):
        folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-o", "loop,ro", image, lower], check=True)
    layers = f"lowerdir={lower},upperdir={upper},workdir={scratch}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, root], check=True)
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", "/proc", root / "proc"], check=True)
    return root


def _furnish(root: Path, queries: Path) -> None:
    """What the driver looks at: device nodes, sysfs, and the preloaded library with the answers to queries."""
    native = root / "native"
    shutil.copytree(queries, native / "queries", dirs_exist_ok=True)
    headers, library = root / "usr/include", native / "render_node.so"
    # The root's own headers of the kernel's interface, and the host's C library.
    for name in ("drm", "linux", "asm-generic", "x86_64-linux-gnu/asm"):
        if (headers / name).exists():
            shutil.copytree(headers / name, native / "include" / Path(name).name, dirs_exist_ok=True)
    words: list[str | Path] = [
        "cc",
        "-O1",
        "-shared",
        "-fPIC",
        f"-I{native / 'include'}",
        "-o",
        library,
        _HERE / "render_node.c",
        "-ldl",
    ]
    subprocess.run(words, check=True)
    (root / "dev/dri").mkdir(exist_ok=True)
    for name, major, minor in (("null", 1, 3), ("urandom", 1, 9), ("dri/renderD128", 226, 128)):
        if not (root / "dev" / name).exists():
            os.mknod(root / "dev" / name, 0o020666, os.makedev(major, minor))
    device = root / _SYSFS
    (device / "drm/renderD128").mkdir(parents=True, exist_ok=True)
    (root / "sys/bus/pci").mkdir(parents=True, exist_ok=True)
    for name, text in {**_ID, "uevent": "DRIVER=xe\nPCI_SLOT_NAME=0000:01:00.0"}.items():
        (device / name).write_text(text + "\n")
    _link(device / "subsystem", "../../../bus/pci")
    node = root / "sys/dev/char/226:128"
    node.mkdir(parents=True, exist_ok=True)
    _link(node / "device", f"../../../../{_SYSFS}")


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _run(root: Path, words: list[str]) -> int:
    environment = {"PATH": "/usr/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    while words and "=" in words[0]:
        name, _, environment[name] = words.pop(0).partition("=")
    command: list[str | Path] = ["/usr/sbin/chroot", root, "/usr/bin/python3", "-c", _RUN, *words]
    return subprocess.run(command, check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
