"""VERSION: what is proposed, what may be answered, what must be refused."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import INVALID, MALFORMED, WRONG_STATE
from vfio_user_xe.emulator.conformance.outcomes import fail
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Disconnected, Message, default_capabilities, encode

VERSION = "VFIO_USER_VERSION"


def _body(document: object = None, *, major: int = 0, minor: int = 0, text: bytes | None = None) -> bytes:
    body = wire.VERSION_BODY.pack(major, minor)
    if text is not None:
        return body + text
    return body if document is None else body + json.dumps(document).encode() + b"\0"


def _propose(t: Context, body: bytes) -> tuple[Client, Message, dict[str, Any]]:
    """Negotiate by hand; the connection, the reply, and its capabilities. Fails unless the proposal is accepted."""
    client = t.raw()
    reply = t.exchange(client, wire.VERSION, body)
    if reply.failed:
        fail(f"VERSION was refused with errno {reply.error}, but must be accepted")
    t.check(len(reply.body) >= wire.VERSION_BODY.size, f"the reply has only {len(reply.body)} bytes of payload")
    text = reply.body[wire.VERSION_BODY.size :]
    if not text:
        return client, reply, {}
    t.equal(text[-1:], b"\0", "the last byte of the version data")
    try:
        document = json.loads(text[:-1].decode())
    except ValueError as exc:
        fail(f"the version data of the reply is not JSON: {exc}")
    t.check(isinstance(document, dict), "the version data of the reply is not a JSON object")
    capabilities = document.get("capabilities", {})
    t.check(isinstance(capabilities, dict), "'capabilities' of the reply is not an object")
    return client, reply, capabilities


def _accepted(t: Context, capabilities: dict[str, Any]) -> dict[str, Any]:
    """The server's capabilities for a proposal that must be accepted, and leads to a usable session."""
    client, _, answer = _propose(t, _body({"capabilities": capabilities}))
    t.usable(client)
    return answer


def _refused(t: Context, body: bytes) -> None:
    t.refused_or_closed(t.raw(), wire.VERSION, body, INVALID | MALFORMED)


@case(VERSION)
def usual_proposal_is_accepted(t: Context) -> None:
    """A proposal with every common capability is accepted, and commands work after it."""
    _accepted(t, default_capabilities())


@case(VERSION)
def reply_has_the_proposed_major(t: Context) -> None:
    """The major version in the reply is the one that was proposed."""
    _, reply, _ = _propose(t, _body({"capabilities": {}}))
    t.equal(wire.VERSION_BODY.unpack_from(reply.body)[0], 0, "the major version")


@case(VERSION)
def reply_minor_is_not_above_the_proposed_one(t: Context) -> None:
    """The minor version in the reply is at most the proposed one: 0 for 0."""
    _, reply, _ = _propose(t, _body({"capabilities": {}}, minor=0))
    t.equal(wire.VERSION_BODY.unpack_from(reply.body)[1], 0, "the minor version")


@case(VERSION)
def higher_minor_is_negotiated_down(t: Context) -> None:
    """A client with a newer minor version is accepted, with the server's minor version."""
    client, reply, _ = _propose(t, _body({"capabilities": {}}, minor=0xFFFF))
    t.check(wire.VERSION_BODY.unpack_from(reply.body)[1] < 0xFFFF, "the server claims to speak version 0.65535")
    t.usable(client)


@case(VERSION)
def version_data_is_optional(t: Context) -> None:
    """A VERSION without version data is accepted."""
    client, _, _ = _propose(t, _body())
    t.usable(client)


@case(VERSION)
def empty_object_is_accepted(t: Context) -> None:
    """Version data without capabilities is accepted."""
    client, _, _ = _propose(t, _body({}))
    t.usable(client)


@case(VERSION)
def empty_capabilities_are_accepted(t: Context) -> None:
    """An empty set of capabilities is accepted."""
    _accepted(t, {})


@case(VERSION)
def reply_capabilities_are_among_those_proposed(t: Context) -> None:
    """The reply's capabilities are a subset of the proposed ones."""
    proposed = {"max_msg_fds": 8, "max_data_xfer_size": 65536}
    extra = sorted(set(_accepted(t, proposed)) - set(proposed))
    t.check(not extra, f"the reply has capabilities that were not proposed: {', '.join(extra)}")


@case(VERSION)
def reply_to_no_capabilities_has_none(t: Context) -> None:
    """To a client that proposes no capability, the reply names none."""
    extra = sorted(_accepted(t, {}))
    t.check(not extra, f"the reply has capabilities that were not proposed: {', '.join(extra)}")


@case(VERSION)
def reply_capabilities_have_their_types(t: Context) -> None:
    """Numbers are numbers, booleans are booleans."""
    answer = _accepted(t, default_capabilities())
    for key in ("max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes"):
        value = answer.get(key, 1)
        good = isinstance(value, int) and not isinstance(value, bool) and value > 0
        t.check(good, f"{key} is {value!r}, want a positive number")
    t.check(isinstance(answer.get("write_multiple", True), bool), "write_multiple is not a boolean")


@case(VERSION, silent=True)
def reply_fits_where_the_request_did(t: Context) -> None:
    """The reply is no longer than a common client's request (QEMU drops the connection otherwise)."""
    # As QEMU 11.1 sends it: 214 bytes with the header.
    proposed = {**default_capabilities(), "migration": {"max_bitmap_size": 268435456, "pgsize": 4096}}
    body = _body({"capabilities": proposed})
    _, reply, _ = _propose(t, body)
    t.check(len(reply.body) <= len(body), f"the reply's payload has {len(reply.body)} bytes, the request's {len(body)}")


@case(VERSION)
def reply_brings_no_descriptor_unasked(t: Context) -> None:
    """Without twin_socket no descriptor comes with the reply."""
    _, reply, answer = _propose(t, _body({"capabilities": {"max_msg_fds": 8}}))
    t.equal(len(reply.fds), 0, "the number of descriptors")
    t.check("twin_socket" not in answer, "the reply has twin_socket, which was not proposed")


def _single(name: str, value: Any) -> None:
    def check(t: Context) -> None:
        _accepted(t, {name: value})

    check.__name__ = f"{name}_alone_is_accepted"
    check.__doc__ = f"The capability {name} on its own is accepted."
    case(VERSION)(check)


_single("max_msg_fds", 1)
_single("max_data_xfer_size", 4096)
_single("max_dma_maps", 16)
_single("pgsizes", 4096)
_single("write_multiple", False)
_single("twin_socket", {"supported": False})


@case(VERSION)
def twin_socket_object_may_be_empty(t: Context) -> None:
    """twin_socket.supported defaults to false."""
    _, reply, answer = _propose(t, _body({"capabilities": {"twin_socket": {}}}))
    t.equal(len(reply.fds), 0, "the number of descriptors")
    t.check(not answer.get("twin_socket", {}).get("supported"), "the server enabled a twin socket unasked")


@case(VERSION)
def declined_twin_socket_is_not_opened(t: Context) -> None:
    """A client that says it has no twin sockets gets none."""
    _, reply, answer = _propose(t, _body({"capabilities": {"twin_socket": {"supported": False}}}))
    t.equal(len(reply.fds), 0, "the number of descriptors")
    t.check(not answer.get("twin_socket", {}).get("supported"), "the server enabled a twin socket unasked")


@case(VERSION)
def offered_twin_socket_is_a_socket(t: Context) -> None:
    """If twin_socket is supported, fd_index names a descriptor of the reply, which is a socket."""
    client, reply, answer = _propose(t, _body({"capabilities": {"max_msg_fds": 8, "twin_socket": {"supported": True}}}))
    twin = answer.get("twin_socket", {})
    if twin.get("supported") is not True:
        t.equal(len(reply.fds), 0, "the number of descriptors without a twin socket")
        t.skip("the server has no twin sockets (they are optional)")
    index = twin.get("fd_index")
    t.check(isinstance(index, int) and 0 <= index < len(reply.fds), f"fd_index {index!r} of {len(reply.fds)}")
    with socket.socket(fileno=reply.fds.pop(index)) as end:
        t.equal(end.type, socket.SOCK_STREAM, "the twin socket's type")
    t.drop(client)
    t.serves_next_client()


@case(VERSION)
def unknown_capability_is_ignored(t: Context) -> None:
    """A capability that the server does not know is not in its reply, and does no harm."""
    answer = _accepted(t, {"max_msg_fds": 8, "x-unheard-of": {"deep": [1, None, True]}})
    t.check("x-unheard-of" not in answer, "the server agreed to a capability that does not exist")


@case(VERSION, silent=True)
def unknown_top_level_key_is_ignored(t: Context) -> None:
    """A key beside 'capabilities' is ignored."""
    client, _, _ = _propose(t, _body({"capabilities": {}, "x-vendor": "someone"}))
    t.usable(client)


@case(VERSION, silent=True)
def legacy_migration_capability_is_accepted(t: Context) -> None:
    """The migration object of older specifications, which QEMU sends, is accepted."""
    _accepted(t, {**default_capabilities(), "migration": {"max_bitmap_size": 268435456, "pgsize": 4096}})


@case(VERSION)
def version_data_is_utf8(t: Context) -> None:
    """Version data may hold any Unicode text."""
    text = '{"capabilities": {"x-\u00fcber": "\u6f22\\u0000\\ud83d\\ude00"}}'.encode() + b"\0"
    client, _, _ = _propose(t, _body(text=text))
    t.usable(client)


@case(VERSION, silent=True)
def white_space_in_version_data_is_accepted(t: Context) -> None:
    """JSON may be indented."""
    text = b' \r\n\t{ "capabilities" :\n { "max_msg_fds" : 4 } }\n\0'
    client, _, _ = _propose(t, _body(text=text))
    t.usable(client)


@case(VERSION)
def other_major_is_refused(t: Context) -> None:
    """A major version that the server does not speak ends in an error or a closed connection."""
    _refused(t, _body({"capabilities": {}}, major=0xFFFF))


def _malformed(name: str, rule: str, body: bytes, *, silent: bool = False) -> None:
    def check(t: Context) -> None:
        _refused(t, body)

    check.__name__ = name
    check.__doc__ = rule
    case(VERSION, silent=silent)(check)


_malformed("empty_body_is_refused", "A VERSION without a version is refused.", b"")
_malformed("half_a_version_is_refused", "A VERSION with only a major version is refused.", b"\0\0")
_malformed("missing_nul_is_refused", "Version data must end with a NUL byte.", _body(text=b'{"capabilities": {}}'))
_malformed("truncated_json_is_refused", "Cut-off JSON is refused.", _body(text=b'{"capabilities": {\0'))
_malformed("text_that_is_not_json_is_refused", "Text that is not JSON is refused.", _body(text=b"max_msg_fds=8\0"))
_malformed("bytes_that_are_not_utf8_are_refused", "Version data must be UTF-8.", _body(text=b'{"x": "\xff\xfe"}\0'))
_malformed(
    "capabilities_that_are_no_object_are_refused",
    "'capabilities' must be an object.",
    _body({"capabilities": "8"}),
)
_malformed("version_data_that_is_a_list_is_refused", "Version data must be an object.", _body([1, 2]))
_malformed(
    "max_msg_fds_that_is_no_number_is_refused",
    "max_msg_fds must be a number.",
    _body({"capabilities": {"max_msg_fds": "8"}}),
)
_malformed(
    "negative_max_msg_fds_is_refused",
    "max_msg_fds must not be negative.",
    _body({"capabilities": {"max_msg_fds": -1}}),
)
_malformed(
    "max_data_xfer_size_that_is_no_number_is_refused",
    "max_data_xfer_size must be a number.",
    _body({"capabilities": {"max_data_xfer_size": [4096]}}),
)
_malformed(
    "twin_socket_that_is_no_object_is_refused",
    "twin_socket must be an object.",
    _body({"capabilities": {"twin_socket": True}}),
    silent=True,
)


def _survived(name: str, rule: str, body: bytes) -> None:
    """Odd proposals that a server may take or refuse, as long as it goes on serving."""

    def check(t: Context) -> None:
        client = t.raw()
        with contextlib.suppress(Disconnected):
            t.exchange(client, wire.VERSION, body)
        t.drop(client)
        t.serves_next_client()

    check.__name__ = name
    check.__doc__ = rule
    case(VERSION, silent=True)(check)


_survived(
    "deeply_nested_json_is_survived", "A hundred thousand brackets do no harm.", _body(text=b"[" * 100_000 + b"\0")
)
_survived("lone_nul_is_survived", "Version data of one NUL byte does no harm.", _body(text=b"\0"))
_survived(
    "text_after_the_nul_is_survived", "Bytes behind the NUL do no harm.", _body(text=b'{"capabilities":{}}\0{}\0')
)
_survived("large_version_data_is_survived", "64 KiB of version data do no harm.", _body({"x-pad": "x" * 65536}))
_survived(
    "enormous_numbers_are_survived",
    "Numbers beyond 64 bits do no harm.",
    _body({"capabilities": {"max_data_xfer_size": 10**40, "max_msg_fds": 10**30, "max_dma_maps": 1e300}}),
)
_survived(
    "zero_limits_are_survived",
    "Limits of 0 do no harm.",
    _body({"capabilities": {"max_data_xfer_size": 0, "max_msg_fds": 0, "max_dma_maps": 0, "pgsizes": 0}}),
)


@case(VERSION)
def server_is_ready_after_a_refused_proposal(t: Context) -> None:
    """After a refused proposal the next client is served."""
    client = t.raw()
    t.refused_or_closed(client, wire.VERSION, _body(major=77), INVALID | MALFORMED)
    t.drop(client)
    t.serves_next_client()


@case(VERSION)
def second_version_is_refused(t: Context) -> None:
    """VERSION is the initial message; another one is refused, or costs the connection."""
    t.refused_or_closed(t.client, wire.VERSION, _body({"capabilities": {}}), WRONG_STATE)


@case(VERSION)
def message_id_is_echoed(t: Context) -> None:
    """The reply to VERSION has the request's message id, whatever that is."""
    for message_id in (0, 1, 0x8000, 0xFFFF):
        client = t.raw()
        reply = t.exchange(client, wire.VERSION, _body({"capabilities": {}}), message_id=message_id)
        t.check(not reply.failed, f"VERSION with message id {message_id:#x} was refused")
        t.drop(client)


def _before_version(name: str, command: int, body: bytes) -> None:
    def check(t: Context) -> None:
        client = t.raw()
        t.refused_or_closed(client, command, body, WRONG_STATE | MALFORMED)
        t.drop(client)
        t.serves_next_client()

    check.__name__ = f"{name}_before_version_is_refused"
    check.__doc__ = f"The client's first message must be VERSION: {name.upper()} before it is refused."
    case(VERSION)(check)


_before_version("device_get_info", wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0))
_before_version("region_read", wire.REGION_READ, wire.REGION_ACCESS.pack(0, wire.CONFIG, 4))
_before_version("region_write", wire.REGION_WRITE, wire.REGION_ACCESS.pack(0x3C, wire.CONFIG, 1) + b"\0")
_before_version("dma_map", wire.DMA_MAP, wire.DMA_MAP_BODY.pack(32, 3, 0, 0, 4096))
_before_version("device_reset", wire.DEVICE_RESET, b"")


@case(VERSION, silent=True)
def descriptors_with_version_are_closed(t: Context) -> None:
    """Descriptors that come with VERSION are not kept, whether it is accepted or not."""
    with t.witness() as (fd, closed):
        client = t.raw()
        with contextlib.suppress(Disconnected):
            t.exchange(client, wire.VERSION, _body({"capabilities": {}}), [fd])
        closed()


@case(VERSION, silent=True)
def version_without_reply_is_survived(t: Context) -> None:
    """VERSION with No_reply set gets no reply, or costs the connection; the server goes on serving."""
    client = t.raw()
    client.send_raw(encode(wire.VERSION, _body({"capabilities": {}}), flags=wire.FLAG_NO_REPLY))
    with contextlib.suppress(Disconnected):
        t.silent(client)
    t.drop(client)
    t.serves_next_client()
