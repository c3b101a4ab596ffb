"""The bare minimum that a blocking server in Python costs; see `pingpong.c`, which does the same in C."""

from __future__ import annotations

import socket
import struct
import sys


def serve(connection: socket.socket) -> None:
    """Answer one client until it goes."""
    setup = connection.recv(16, socket.MSG_WAITALL)
    if len(setup) < 16:
        return
    request, size, every, _ = struct.unpack("<IIII", setup)
    buffer = memoryview(bytearray(4 << 20))
    reply = bytes(size)
    have = seen = 0
    receive, send = connection.recv_into, connection.sendall
    while True:
        count = receive(buffer)
        if not count:
            return
        have += count
        while have >= request:
            have -= request
            seen += 1
            if seen == every:
                seen = 0
                send(reply)


def main(path: str) -> None:
    """Serve clients one after the other."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(4)
        while True:
            connection, _ = listener.accept()
            with connection:
                serve(connection)


if __name__ == "__main__":
    main(sys.argv[1])
