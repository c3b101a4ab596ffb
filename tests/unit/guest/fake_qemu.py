"""Plays QEMU and the guest for the tests of the runner: `python fake_qemu.py SCENE QEMU-ARGUMENTS...`."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time

scene, arguments = sys.argv[1], " ".join(sys.argv[2:])


def descriptor(name: str, key: str = "path") -> int:
    match = re.search(rf"id={name},(?:\S+,)?(?:fd=|{key}=/proc/self/fd/)(\d+)", arguments)
    assert match is not None, arguments
    return int(match[1])


channel = os.fdopen(descriptor("channel"), "wb", buffering=0)
commands = os.fdopen(descriptor("channel", "input-path"), "rb")
monitor = socket.socket(fileno=descriptor("qmp"))
console = open(f"/proc/self/fd/{descriptor('console')}", "wb", buffering=0)  # noqa: SIM115
boots = 0


def boot() -> None:
    global boots  # noqa: PLW0603
    boots += 1
    console.write(b"[    0.000000] Linux version fake\r\ninit: the guest's /init is running\r\n")
    channel.write(b"READY 00000000-0000-0000-0000-%012d 1\n" % boots)


def serve_monitor() -> None:
    stream = monitor.makefile("rwb", buffering=0)
    stream.write(b'{"QMP": {}}\n')
    for line in stream:
        request = json.loads(line)
        stream.write(json.dumps({"return": {"ran": request["execute"]}, "id": request["id"]}).encode() + b"\n")
        if request["execute"] == "system_wakeup":
            stream.write(b'{"event": "WAKEUP"}\n')
        if request["execute"] == "system_reset":
            boot()


if scene == "refuses":
    sys.exit("qemu-system-x86_64: -device nonsense: 'nonsense' is not a valid device model name")
if scene == "silent":
    time.sleep(1000)
if scene == "hangs-in-kernel":
    console.write(b"[    0.000000] Linux version fake\r\n[    1.0] probing\r\n")
    time.sleep(1000)
if scene == "panics-at-boot":
    console.write(
        b"[ 1.0] Kernel panic - not syncing: no init\r\n---[ end Kernel panic - not syncing: no init ]---\r\n"
    )
    time.sleep(1000)

threading.Thread(target=serve_monitor, daemon=True).start()
boot()
for line in commands:
    if not line.strip():
        continue
    verb, number, *sizes = line.split()
    if verb == b"KILL":
        channel.write(b"DONE %s 137 r 0 r 0\n" % number)
        continue
    script = commands.read(int(sizes[1])).decode()
    commands.read(int(sizes[3]))
    if script == "reboot -f":
        boot()
    elif script == "suspend":
        monitor.sendall(b'{"event": "SUSPEND"}\n')
    elif script == "panic":
        console.write(
            b"[ 9.0] Kernel panic - not syncing: sysrq\r\n---[ end Kernel panic - not syncing: sysrq ]---\r\n"
        )
    elif script == "crash":
        sys.stderr.write("qemu: fatal: assertion failed\n")
        sys.stderr.flush()
        sys.exit(134)
    elif script == "end slowly":
        channel.close()
        time.sleep(1.5)
        sys.exit("qemu: terminating")
    elif script == "fail":
        console.write(b"[ 5.0] xe: probe failed\r\n")
        channel.write(b"DONE %s 1 r 0 r 4\noops" % number)
    elif script != "hang":
        output = script.encode()
        channel.write(b"DONE %s 0 r %d r 0\n%s" % (number, len(output), output))
