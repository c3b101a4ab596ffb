"""Errors of guests, one class for each cause.

Everything derives from `GuestError`.  Errors of a running guest carry the last lines of its console in
`console_tail` and show them in their text: without them a failure in CI cannot be explained.
"""

from __future__ import annotations

from typing import Self


class GuestError(Exception):
    """Base class: something about the guest, its QEMU or its environment failed."""

    def __init__(self, message: str, *, console_tail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.console_tail = console_tail

    def __str__(self) -> str:
        if not self.console_tail.strip():
            return self.message
        quoted = "\n".join(f"  | {line}" for line in self.console_tail.rstrip().splitlines())
        return f"{self.message}\nThe guest's console ended with:\n{quoted}"

    def with_console(self, tail: str) -> Self:
        """This error, explained by the last lines of the guest's console."""
        self.console_tail = tail
        return self


class MissingEnvironment(GuestError):
    """QEMU, a kernel or a guest tool is not there; the text names it and the command that cures it."""


class FetchFailed(GuestError):
    """The guest environment could not be downloaded or unpacked; nothing half-made was left behind."""


class NotSigned(FetchFailed):
    """A file of a Debian archive is not signed by one of the keys that are believed."""


class ExpiredSuites(FetchFailed):
    """The mirror's Release files of these suites are past the date until which Debian vouches for them.

    Somebody between here and Debian may be holding newer, mended packages back; or the mirror is not kept up to date.
    """

    def __init__(self, message: str, suites: tuple[str, ...]) -> None:
        super().__init__(message)
        self.suites = suites


class NotUsable(GuestError):
    """What the caller named for the guest is not there, or cannot be used; no guest was begun."""


class KernelError(NotUsable):
    """A kernel image or module directory is not usable, or a module does not exist in it."""


class KernelLacks(KernelError):
    """The kernel is built without something that the machine cannot do without; the text names the option."""


class InitramfsError(NotUsable):
    """A file or program that the initramfs should hold cannot be put into it."""


class RootError(NotUsable):
    """A root file system for the guest is neither a folder nor an image of a kind that can be mounted."""


class UnknownUserland(NotUsable):
    """There is no userland of that name; the text lists those that there are."""


class QemuFailed(GuestError):
    """QEMU did not start, or ended before it was told to; the text holds what it wrote to stderr."""


class BootFailed(GuestError):
    """The guest did not reach its /init, or its agent did not answer, in the time allowed."""


class GuestPanic(GuestError):
    """The guest's kernel panicked."""


class ChannelLost(GuestError):
    """The command channel to the guest broke, or the agent answered something that is not an answer."""


class ChannelClosed(ChannelLost):
    """QEMU closed the command channel: it has ended, or is about to."""


class CommandTimeout(GuestError):
    """A command in the guest ran longer than allowed; it was killed and the channel still works.

    `output` is what the command had written until then (stdout and stderr).
    """

    def __init__(self, message: str, *, output: bytes = b"", console_tail: str = "") -> None:
        super().__init__(message, console_tail=console_tail)
        self.output = output


class CommandFailed(GuestError):
    """A command in the guest ended with a non-zero exit code where success was required."""


class QmpError(GuestError):
    """QEMU refused a QMP command, or its QMP socket closed."""


class QmpClosed(QmpError):
    """QEMU closed its QMP connection: it has ended, or is about to."""


class ConsoleTimeout(GuestError):
    """A pattern did not appear on the guest's console in the time allowed."""
