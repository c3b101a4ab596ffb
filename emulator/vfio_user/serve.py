"""A whole card behind a folder of sockets: its functions, and what QEMU's qtest connects to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import trio

from emulator.card import Card
from emulator.control import Control
from emulator.qemu_arguments import DESCRIPTION_FILE, CardDescription
from emulator.vfio_user.control_server import serve_control
from emulator.vfio_user.qtest import QtestPeer
from emulator.vfio_user.server import serve_functions, socket_folder


async def serve_card(
    card: Card, path: Path, ready: Callable[[CardDescription], None], poll_seconds: float = 0.0
) -> None:
    """Run `card` and serve it in the folder `path` until cancelled. Raises `ServerError`."""
    async with socket_folder(path) as folder:
        with ExitStack() as stack:
            qtest = QtestPeer(folder.listen("qtest"))
            stack.callback(qtest.close)
            for function in card.functions:
                if function.sriov is not None:
                    function.sriov.programming.routes.insert(0, qtest)
            qtest.start()
            stack.callback(card.stop)
            card.start()
            control = folder.listen("control")
            stack.callback(control.close)
            stack.callback((folder.path / DESCRIPTION_FILE).unlink, missing_ok=True)

            def listening(sockets: dict[str, str]) -> None:
                description = CardDescription.of(card, sockets, qtest=qtest.path, control=str(folder.socket_path("control")))
                description.write(folder.path)
                ready(description)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_control, Control(card), control)
                nursery.start_soon(serve_functions, card.functions, folder, listening, poll_seconds)
