"""The engines that programs of a userland have without a guest (`tests/native`): how their process ends."""

from __future__ import annotations

import socket

import pytest

from tests.native.engines import BIND, Card

_SIZE = 40
"""Bytes of a request."""


@pytest.mark.parametrize("answered", [True, False], ids=["that has its answer", "that waits for its answer"])
def test_the_engines_of_a_process_that_is_killed_tell_what_they_did(
    answered: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        card = Card(ours, "a process")
        theirs.sendall(BIND.to_bytes(8, "little") + bytes(_SIZE - 8))
        if answered:
            theirs.shutdown(socket.SHUT_WR)
        else:
            theirs.close()
        card.serve()
    assert "a process: 0 batches took" in capsys.readouterr().err
