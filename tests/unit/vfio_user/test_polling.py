"""When an access thread polls."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from vfio_user_xe.emulator.guest.serve_options import Polling
from vfio_user_xe.emulator.vfio_user import free_core, receiver
from vfio_user_xe.emulator.vfio_user.free_core import FreeCore
from vfio_user_xe.emulator.vfio_user.receiver import Receiver


@dataclass
class Host:
    """Time that passes when it is told to, of which some cores are idle."""

    now: float = 100.0
    idle: float = 1000.0

    def pass_(self, seconds: float, idle: float) -> None:
        self.now += seconds
        self.idle += idle

    def core(self) -> FreeCore:
        return FreeCore(lambda: self.idle, lambda: self.now)


@pytest.mark.parametrize(
    ("text", "expected"), [("0", Polling()), ("50", Polling(50e-6)), ("auto", Polling(50e-6, True))]
)
def test_microseconds_and_auto_are_taken(text: str, expected: Polling) -> None:
    assert Polling.of(text) == expected


@pytest.mark.parametrize("text", ["-1", "1001", "1.5", "", "always"])
def test_other_words_are_refused_with_what_is_possible(text: str) -> None:
    with pytest.raises(ValueError, match="0 to 1000 microseconds and 'auto' are possible"):
        Polling.of(text)


def test_a_core_is_free_that_is_idle_but_for_polling() -> None:
    host = Host()
    core = host.core()
    assert not core.is_free()
    host.pass_(1.0, idle=1.0)
    assert core.is_free()
    core.polled(0.8)
    host.pass_(1.0, idle=0.2)
    assert core.is_free()


def test_no_core_is_free_where_all_work() -> None:
    host = Host()
    core = host.core()
    host.pass_(1.0, idle=1.0)
    assert core.is_free()
    core.polled(0.3)
    host.pass_(1.0, idle=0.3)
    assert not core.is_free()


def test_the_kernel_s_idle_time_does_not_go_back() -> None:
    first = free_core._idle_seconds()
    assert 0 <= first <= free_core._idle_seconds()


@pytest.mark.parametrize("free", [False, True])
def test_a_receiver_polls_only_while_a_core_is_free(free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def is_free(self: FreeCore) -> bool:
        asked.append(self)
        return free

    monkeypatch.setattr(receiver.FreeCore, "is_free", is_free)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = Receiver(ours, 4096, Polling(1.0, if_free=True))
        for _ in range(3):
            theirs.sendall(b"x")
            assert made.fill()
        assert made.end == 3
    assert asked
