"""HXG messages (`abi/guc_messages_abi.h`): what goes through mailboxes and CT buffers, in dwords.

Dword 0: origin in bit 31 (1 is the GuC), type in 30:28; of a request or an event, DATA0 in 27:16 and the action in
15:0; of a success, DATA0 in 27:0; of a failure, a hint in 27:16 and the error in 15:0.
"""

from __future__ import annotations

REQUEST = 0
EVENT = 1
FAST_REQUEST = 2
NO_RESPONSE_BUSY = 3
NO_RESPONSE_RETRY = 5
RESPONSE_FAILURE = 6
RESPONSE_SUCCESS = 7

TYPE_NAMES = {
    REQUEST: "REQUEST",
    EVENT: "EVENT",
    FAST_REQUEST: "FAST_REQUEST",
    NO_RESPONSE_BUSY: "BUSY",
    NO_RESPONSE_RETRY: "RETRY",
    RESPONSE_FAILURE: "FAILURE",
    RESPONSE_SUCCESS: "SUCCESS",
}

ORIGIN_GUC = 1 << 31


def message_type(dword: int) -> int:
    """The type in dword 0."""
    return dword >> 28 & 7


def success(data0: int = 0) -> int:
    """Dword 0 of a RESPONSE_SUCCESS."""
    return ORIGIN_GUC | RESPONSE_SUCCESS << 28 | data0 & 0xFFFFFFF


def failure(error: int, hint: int = 0) -> int:
    """Dword 0 of a RESPONSE_FAILURE."""
    return ORIGIN_GUC | RESPONSE_FAILURE << 28 | (hint & 0xFFF) << 16 | error & 0xFFFF


def event(action: int, data0: int = 0) -> int:
    """Dword 0 of an event from the GuC."""
    return ORIGIN_GUC | EVENT << 28 | data0 << 16 | action


class Message:
    """A request or an event from a host.

    `data0` are bits 27:16 of the header, `payload` the dwords after it.
    """

    __slots__ = ("action", "data0", "fence", "payload", "type", "words")

    def __init__(self, words: tuple[int, ...], fence: int = 0) -> None:
        """`words` is the whole HXG message."""
        header = words[0]
        self.words = words
        self.fence = fence
        self.type = message_type(header)
        self.action = header & 0xFFFF
        self.data0 = header >> 16 & 0xFFF
        self.payload = words[1:]

    def address(self, index: int) -> int:
        """The 64-bit value in payload dwords `index` (low) and `index + 1`."""
        return self.payload[index] | self.payload[index + 1] << 32
