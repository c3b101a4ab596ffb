"""The command channel: run scripts in the guest over a byte stream that its second serial port is connected to.

The guest's side is the shell script `agent.AGENT`.  One command at a time; lines of text, followed by counted bytes:

    guest: READY <boot id> <agent's process id>
    host:  RUN <number> <form> <size> <form> <size>   then the script and its standard input
    guest: DONE <number> <exit code> <form> <size> <form> <size>   then stdout and stderr
    host:  KILL <number>   kill the command's process group (the answer is DONE as usual)
    host:  DROP <number>   it does not die: answer with what there is and leave it behind

`form` is `r` for bytes as they are, `z` for gzip, `-` for none.  Kernel messages go to the first serial port only.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import time
import zlib
from dataclasses import dataclass

import trio

from vfio_user_xe.emulator.guest.errors import ChannelClosed, ChannelLost, CommandFailed, CommandTimeout

_GZIP_FROM = 2048
_PIPE = 1 << 20
_KILL_GRACE = 4.0  # seconds between KILL and DROP
_DROP_GRACE = 30.0  # seconds for the answer to DROP, which an agent that lives gives: a guest may be slow
_READY = re.compile(rb"READY ([0-9a-f-]{36}) (\d+)$")


@dataclass(frozen=True)
class Result:
    """How a command in the guest ended: exit code (128 + N when killed by signal N) and what it wrote.

    `stdout` and `stderr` are text (undecodable bytes are replaced); `stdout_bytes` is stdout as it came.
    `seconds` is the time from sending the command to having its answer.
    """

    returncode: int
    stdout_bytes: bytes
    stderr: str
    seconds: float

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode(errors="replace")

    def check(self, what: str = "the command") -> Result:
        """This result, of a command that ended with 0.

        Raises:
            CommandFailed: the exit code is not 0; with the command's output.
        """
        if self.returncode != 0:
            said = (self.stderr.strip() or self.stdout.strip())[-2000:]
            raise CommandFailed(f"{what} ended with exit code {self.returncode}: {said or '(no output)'}")
        return self


class Channel:
    """The host's side of the command channel; `far` are the ends for QEMU, the one it reads and the one it writes.

    Two pipes and no socket: a serial port moves single bytes, of which a Unix socket holds a few hundred and a pipe
    64 KiB to 1 MiB.  On a busy host that is three times the throughput.

    Cancelling a call is safe at any point: the next call first finishes or kills what was left running.
    """

    def __init__(self) -> None:
        far_reads, self._to_guest = os.pipe2(os.O_CLOEXEC)
        near_reads, far_writes = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a user may have used up what pipe(7) allows
            fcntl.fcntl(far_writes, fcntl.F_SETPIPE_SZ, _PIPE)
        self.far = (os.fdopen(far_reads, "rb", buffering=0), os.fdopen(far_writes, "wb", buffering=0))
        self._from_guest = trio.lowlevel.FdStream(near_reads)
        os.set_blocking(self._to_guest, False)
        self._closed = False
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._number = 0
        self._running = 0  # the command that was sent and not answered, 0 for none
        self._boot: tuple[bytes, bytes] | None = None
        self._lock = trio.Lock()

    @property
    def boot_id(self) -> str:
        """The guest's /proc/sys/kernel/random/boot_id; "" before its agent has answered."""
        return self._boot[0].decode() if self._boot else ""

    async def wait_ready(self) -> None:
        """Wait until an agent announces itself (after a boot or a reboot); what was running before is forgotten."""
        async with self._lock:
            self._running = 0
            self._outgoing.clear()
            while not self._is_ready(await self._line()):
                pass

    async def run(self, script: str, *, stdin: bytes = b"", timeout: float = 60) -> Result:
        """Run a shell script (busybox sh) in the guest and wait for its end.

        Raises:
            CommandTimeout: it did not end within `timeout` seconds; the script and its process group were killed.
            ChannelLost: the guest rebooted or its agent ended meanwhile.
        """
        async with self._lock:
            await self._settle()
            started = time.monotonic()
            self._number += 1
            number = self._number
            script_form, script_data = _packed(script.encode())
            input_form, input_data = _packed(stdin)
            # The empty line ends what a guest that rebooted amid a message may have left unread.
            header = f"\nRUN {number} {script_form} {len(script_data)} {input_form} {len(input_data)}\n"
            self._outgoing += header.encode() + script_data + input_data
            self._running = number
            with trio.move_on_after(timeout):
                await self._flush()
                return self._result(await self._answer(number), started)
            answer = await self._kill(number)
            raise CommandTimeout(
                f"the command did not end within {timeout:g} s and was killed: {_shortened(script)}",
                output=answer[1] + answer[2],
            )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._from_guest.close()
            trio.lowlevel.notify_closing(self._to_guest)
            os.close(self._to_guest)
            for end in self.far:
                end.close()

    async def _settle(self) -> None:
        """Finish what an earlier, cancelled call left."""
        await self._flush()
        if self._running:
            await self._kill(self._running)

    async def _kill(self, number: int) -> tuple[int, bytes, bytes]:
        # Twice, because the first one finds nothing when the agent is about to start the command.
        for _ in range(2):
            self._outgoing += f"KILL {number}\n".encode()
            with trio.move_on_after(_KILL_GRACE / 2):
                await self._flush()
                return await self._answer(number)
        self._outgoing += f"DROP {number}\n".encode()
        with trio.move_on_after(_DROP_GRACE):
            await self._flush()
            return await self._answer(number)
        raise ChannelLost("the guest's agent does not answer any more")

    async def _answer(self, number: int) -> tuple[int, bytes, bytes]:
        """Wait for DONE of a command: exit code, stdout, stderr.  Cancellation loses nothing that was received."""
        while True:
            end = await self._line_end()
            line = bytes(self._incoming[:end]).rstrip(b"\r")
            fields = line.split()
            if fields[:1] == [b"DONE"] and len(fields) == 7:
                try:
                    found, code, out_size, err_size = (int(fields[index]) for index in (1, 2, 4, 6))
                except ValueError:
                    raise ChannelLost(f"the guest's agent sent a line that is no answer: {line!r}") from None
                total = end + 1 + out_size + err_size
                while len(self._incoming) < total:
                    await self._receive()
                body = bytes(self._incoming[end + 1 : total])
                del self._incoming[:total]
                if found == number:
                    self._running = 0
                    out = _unpacked(fields[3], body[:out_size])
                    return code, out, _unpacked(fields[5], body[out_size:])
                continue
            del self._incoming[: end + 1]
            before = self._boot
            if self._is_ready(line):
                self._running = 0
                self._outgoing.clear()
                rebooted = before is None or self._boot is None or before[0] != self._boot[0]
                happened = "the guest rebooted" if rebooted else "the guest's agent was ended and started again"
                raise ChannelLost(f"{happened} while a command was running; the channel is usable again")

    def _result(self, answer: tuple[int, bytes, bytes], started: float) -> Result:
        code, out, err = answer
        return Result(code, out, err.decode(errors="replace"), time.monotonic() - started)

    def _is_ready(self, line: bytes) -> bool:
        match = _READY.search(line)
        if match is None:
            return False
        self._boot = (match[1], match[2])
        return True

    async def _line(self) -> bytes:
        end = await self._line_end()
        line = bytes(self._incoming[:end]).rstrip(b"\r")
        del self._incoming[: end + 1]
        return line

    async def _line_end(self) -> int:
        searched = 0
        while (end := self._incoming.find(b"\n", searched)) < 0:
            searched = len(self._incoming)
            await self._receive()
        return end

    async def _receive(self) -> None:
        try:
            data = await self._from_guest.receive_some(1 << 16)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ChannelClosed(f"the command channel broke: {error}") from error
        if not data:
            raise ChannelClosed("the command channel was closed by QEMU")
        self._incoming += data

    async def _flush(self) -> None:
        """Send what is waiting; when cancelled, the rest of it waits on."""
        if self._closed:
            raise ChannelClosed("the command channel was closed with its guest")
        try:
            while self._outgoing:
                try:
                    sent = os.write(self._to_guest, self._outgoing[: 1 << 16])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._to_guest)
                else:
                    del self._outgoing[:sent]
        except (OSError, trio.ClosedResourceError) as error:
            raise ChannelClosed(f"the command channel broke: {error}") from error


def _packed(data: bytes) -> tuple[str, bytes]:
    if not data:
        return "-", b""
    if len(data) < _GZIP_FROM:
        return "r", data
    return "z", gzip.compress(data, 6)


def _unpacked(form: bytes, data: bytes) -> bytes:
    if form != b"z":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ChannelLost(f"the guest's agent sent damaged output: {error}") from error


def _shortened(script: str) -> str:
    line = " ".join(script.split())
    return line if len(line) <= 200 else line[:197] + "..."
