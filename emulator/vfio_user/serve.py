"""A whole card behind a folder of sockets: its functions, and what QEMU's qtest connects to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from socket import SOCK_SEQPACKET
from typing import Protocol

import trio

from vfio_user_xe.emulator.control.dispatch import Control
from vfio_user_xe.emulator.guest.qemu_arguments import CARD_FOLDER, DESCRIPTION_FILE, CardDescription
from vfio_user_xe.emulator.guest.serve_options import SLEEPING, Polling
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.pci.transport import Served
from vfio_user_xe.emulator.vfio_user.control_server import serve_control
from vfio_user_xe.emulator.vfio_user.memory_client import dial
from vfio_user_xe.emulator.vfio_user.memory_server import MemoryServer
from vfio_user_xe.emulator.vfio_user.qtest import QtestPeer
from vfio_user_xe.emulator.vfio_user.server import SocketFolder, serve_functions, socket_folder


class Backend(Protocol):
    """How functions get behind sockets: `vfio_user_xe.emulator.vfio_user.server.serve_functions`, or another library's."""

    def __call__(
        self,
        functions: Sequence[Served],
        folder: SocketFolder,
        ready: Callable[[dict[str, str]], None] | None = None,
    ) -> Awaitable[None]:
        """Serve every function on `<name>.sock` in `folder` until cancelled; `ready` gets the sockets' paths by name."""
        ...


async def serve_cards(
    cards: Sequence[Card],
    path: Path,
    ready: Callable[[CardDescription], None],
    polling: Polling = SLEEPING,
) -> None:
    """As `serve_card`, for several: each in a folder of its own in `path`, and one qtest socket for all of them."""
    for card in cards:
        card.beside = [other for other in cards if other is not card]
    async with socket_folder(path) as folder:
        with ExitStack() as stack:
            qtest = QtestPeer(folder.listen("qtest"))
            stack.callback(qtest.close)
            qtest.start()
            async with trio.open_nursery() as nursery:
                for number, card in enumerate(cards, 1):
                    one = partial(serve_card, qtest=qtest)
                    nursery.start_soon(one, card, path / f"{CARD_FOLDER}{number}", ready, polling)


async def serve_card(
    card: Card,
    path: Path,
    ready: Callable[[CardDescription], None],
    polling: Polling = SLEEPING,
    *,
    backend: Backend | None = None,
    served: Sequence[Served] | None = None,
    qtest: QtestPeer | None = None,
) -> None:
    """Run `card` and serve it in the folder `path` until cancelled.

    `backend` is this project's own unless given; `served` are stand-ins for the card's functions, if there are any;
    `qtest` is what several cards share, a card alone has one of its own.

    Raises:
        ServerError: a socket cannot be made in the folder.
    """
    backend = backend or partial(serve_functions, polling=polling, tap=card.client_tap)
    async with socket_folder(path) as folder:
        with ExitStack() as stack:
            programmed = [f.sriov.programming for f in card.functions if f.sriov is not None and f.sriov.programs_bars]
            if programmed and qtest is None:
                qtest = QtestPeer(folder.listen("qtest"))
                stack.callback(qtest.close)
                qtest.start()
            for programming in programmed:
                assert qtest is not None
                programming.prefer(qtest)
            memory = MemoryServer(card, folder.listen("memory", SOCK_SEQPACKET))
            card.dial = dial
            stack.callback(card.stop)
            card.start()
            # After the card's start, so before its stop: who has its memory hears of the end while it is there.
            stack.callback(memory.close)
            memory.start()
            control = folder.listen("control")
            stack.callback(control.close)
            stack.callback((folder.path / DESCRIPTION_FILE).unlink, missing_ok=True)

            def listening(sockets: dict[str, str]) -> None:
                description = CardDescription.of(
                    card,
                    sockets,
                    qtest=qtest.path if programmed and qtest else None,
                    control=str(folder.socket_path("control")),
                )
                description.write(folder.path)
                ready(description)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_control, Control(card), control)
                nursery.start_soon(backend, served or card.served, folder, listening)
