"""The options of a served card, once: for `serve`, and for the commands and tests that start it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from vfio_user_xe.emulator.observe.trace import parse_trace_argument

OWN_BACKEND, LIBVFIO_USER = "own", "libvfio-user"
_LONGEST_POLL_US, _AUTO_POLL_SECONDS = 1000, 50e-6
_AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Polling:
    """How long an access thread polls before it sleeps, in seconds; with `if_free` only while a core of the host is free."""

    seconds: float = 0.0
    if_free: bool = False

    @classmethod
    def of(cls, text: str) -> Polling:
        """`text` is a number of microseconds, or "auto".

        Raises:
            ValueError: it is neither.
        """
        if text == _AUTO:
            return cls(_AUTO_POLL_SECONDS, if_free=True)
        if not text.isdecimal() or int(text) > _LONGEST_POLL_US:
            raise ValueError(f"{text}: 0 to {_LONGEST_POLL_US} microseconds and {_AUTO!r} are possible")
        return cls(int(text) / 1e6)


SLEEPING = Polling()
"""No polling."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `vfio-user-xe serve` is told of the card and of serving it; its own command line aside from where.

    The fields' names are those of the command's options, but for `settings` (`--set`) and `interconnects` (`--interconnect`),
    which are repeatable.
    """

    card: str | None = None
    """A packaged card's name, or a card file; None: a card of `model` with its defaults."""
    model: str | None = None
    """The device model, without a card file; None: the default one."""
    vfs: int | None = None
    topology: str | None = None
    cards: int = 1
    """So many such cards, in folders `card1`, `card2` ... of the socket folder."""
    settings: tuple[str, ...] = ()
    """Options of the device model, each `KEY=VALUE`."""
    interconnects: tuple[str, ...] = ()
    """In order, each `NAME[:KEY=VALUE,...]`; none: the card file's."""
    trace: str | None = None
    """`CATEGORY,...:FILE`."""
    poll_us: str = "0"
    """Microseconds to poll for an access before sleeping, or "auto" (`Polling.of`)."""
    record: Path | None = None
    backend: str = OWN_BACKEND
    libvfio_user: Path | None = None
    """The library, for the backend `LIBVFIO_USER`."""
    verbose: bool = False

    def argv(self) -> list[str]:
        """These options as arguments of `vfio-user-xe serve`; what is at its default is left out."""
        words: list[str] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value == item.default:
                continue
            option = _OPTIONS.get(item.name, f"--{item.name.replace('_', '-')}")
            if isinstance(value, tuple):
                words += [word for one in value for word in (option, one)]
            elif isinstance(value, bool):
                words.append(option)
            else:
                words += [option, str(value)]
        return words

    def problem(self) -> str:
        """Why these options do not go together; "" when they do. What a card has to say about its own is a `CardError`."""
        own = self.backend == OWN_BACKEND
        if self.backend not in (OWN_BACKEND, LIBVFIO_USER):
            return f"--backend {self.backend}: there are {OWN_BACKEND} and {LIBVFIO_USER}"
        if own and self.libvfio_user is not None:
            return f"--libvfio-user is for --backend {LIBVFIO_USER}"
        if self.cards > 1 and (self.record is not None or self.trace is not None):
            return f"--cards {self.cards}: --record and --trace are for one card; 'control trace_on' traces any"
        if not own and self.cards > 1:
            return f"--cards {self.cards} is for --backend {OWN_BACKEND}"
        if not own and self.poll_us != "0":
            return f"--poll-us is for --backend {OWN_BACKEND}"
        try:
            Polling.of(self.poll_us)
        except ValueError as error:
            return f"--poll-us {error}"
        if self.trace is not None:
            try:
                parse_trace_argument(self.trace)
            except ValueError as error:
                return f"--trace {error}"
        return ""


_OPTIONS = {"settings": "--set", "interconnects": "--interconnect"}
