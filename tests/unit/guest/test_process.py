from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest
import trio

from tests.support.processes import runs
from tests.support.wait import eventually
from vfio_user_xe.emulator.guest.process import Process, describe_exit


def test_output_and_exit_code_are_kept() -> None:
    async def main() -> None:
        process = Process(["sh", "-c", "echo $GREETING; echo problem >&2; exit 3"], {"GREETING": "hello"})
        assert await process.wait() == 3
        assert process.output() == "hello\nproblem\n"
        process.close()

    trio.run(main)


def test_a_program_that_does_not_exist_is_named() -> None:
    async def main() -> None:
        process = Process(["/nowhere/qemu"], {})
        assert await process.wait() == 1
        assert "/nowhere/qemu: No such file or directory" in process.output()
        process.close()

    trio.run(main)


def test_it_inherits_only_the_file_descriptors_it_is_given() -> None:
    async def main() -> None:
        given, kept = os.pipe(), os.pipe()
        os.set_inheritable(kept[0], True)
        process = Process(["ls", "/proc/self/fd"], {}, [given[0]])
        await process.wait()
        seen = process.output().split()
        assert str(given[0]) in seen
        assert str(kept[0]) not in seen
        process.close()
        for fd in (*given, *kept):
            os.close(fd)

    trio.run(main)


def test_closing_kills_the_whole_process_group() -> None:
    process = Process(["sh", "-c", "sleep 1000 & echo $!; wait"], {})
    eventually(lambda: process.output().endswith("\n"))
    child = int(process.output())
    process.close()
    process.close()
    eventually(lambda: not runs(child))


PARENT = """
import sys, threading, time
from vfio_user_xe.emulator.guest.process import Process
process = Process(["sleep", "1000"], {})
print(process.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_a_killed_parent(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert runs(child)
        parent.send_signal(how)
    eventually(lambda: not runs(child))


def test_ends_are_described_in_words() -> None:
    assert describe_exit(1) == "exit code 1"
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(-99) == "killed by signal 99"


def test_what_is_said_again_with_other_numbers_hides_nothing() -> None:
    noise = "".join(f"vfio_container_dma_unmap(0x{at:x}, 0x1000) = -2\n" for at in range(0, 0x90000, 0x1000))
    with contextlib.closing(
        Process([sys.executable, "-c", f"print('no such device', end='\\n' + {noise!r})"], {})
    ) as process:
        eventually(lambda: process.returncode is not None)
        assert process.last_words() == "no such device\nvfio_container_dma_unmap(0x0, 0x1000) = -2 (144 such lines)"
