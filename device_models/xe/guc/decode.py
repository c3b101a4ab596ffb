"""HXG messages in words, for traces: names of actions, fields and KLVs as `actions` and `klv` declare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from construct import Construct

from vfio_user_xe.device_models.xe.guc import actions, klv
from vfio_user_xe.device_models.xe.guc.errors import ERROR_NAMES
from vfio_user_xe.device_models.xe.guc.formats.ct import HXG_FAILURE, HXG_HEADER, HXG_REQUEST
from vfio_user_xe.device_models.xe.guc.hxg import (
    EVENT,
    FAST_REQUEST,
    NO_RESPONSE_BUSY,
    NO_RESPONSE_RETRY,
    REQUEST,
    RESPONSE_FAILURE,
    RESPONSE_SUCCESS,
    TYPE_NAMES,
)

_INLINE_KLVS = {actions.UPDATE_SCHEDULING_POLICIES: 0, actions.UPDATE_CONTEXT_POLICIES: 1}
_RELAYED = {actions.RELAY_TO_VF: 2, actions.RELAY_TO_PF: 1, actions.RELAY_FROM_VF: 2, actions.RELAY_FROM_PF: 1}


def action_name(code: int, from_guc: bool = False) -> str:
    """The action's name, or its number."""
    found = (actions.G2H if from_guc else actions.H2G).get(code)
    return found.name if found else f"{code:#06x}"


def message(words: Sequence[int]) -> dict[str, Any]:
    """An HXG message as a flat dictionary: type, action or result, fields by name."""
    header = _parsed(HXG_HEADER, words[0])
    kind = header["type"]
    fields: dict[str, Any] = {"type": TYPE_NAMES.get(kind, kind)}
    if kind == RESPONSE_SUCCESS:
        fields["data0"] = header["low"]
        fields |= {f"dw{n}": word for n, word in enumerate(words[1:], 1)}
    elif kind == RESPONSE_FAILURE:
        failure = _parsed(HXG_FAILURE, words[0])
        fields["error"] = ERROR_NAMES.get(failure["error"], f"{failure['error']:#x}")
        fields["hint"] = failure["hint"]
    elif kind in (NO_RESPONSE_BUSY, NO_RESPONSE_RETRY):
        fields["data0"] = header["low"]
    elif kind in (REQUEST, EVENT, FAST_REQUEST):
        fields |= _request(_parsed(HXG_REQUEST, words[0]), tuple(words[1:]))
    return fields


def klvs(words: Sequence[int]) -> dict[str, int]:
    """KLVs by name, as far as they can be read."""
    return {klv.name_of(key): klv.number(value) for _, key, _, value in klv.split(words)}


def _parsed(layout: Construct, dword: int) -> Mapping[str, int]:
    found: Mapping[str, int] = layout.parse(dword.to_bytes(4, "little"))
    return found


def _request(header: Mapping[str, int], payload: tuple[int, ...]) -> dict[str, Any]:
    code, from_guc = header["action"], bool(header["from_guc"])
    declared = (actions.G2H if from_guc else actions.H2G).get(code)
    fields: dict[str, Any] = {"action": action_name(code, from_guc)}
    if header["data0"]:
        fields["data0"] = header["data0"]
    names = declared.fields if declared else ()
    for index, word in enumerate(payload):
        if code in _INLINE_KLVS and index >= _INLINE_KLVS[code]:
            return fields | klvs(payload[index:])
        if code in _RELAYED and index >= _RELAYED[code]:
            return fields | {"relayed": _relayed(payload[index:])}
        fields[names[index] if index < len(names) else f"dw{index + 1}"] = word
    _name_values(code, from_guc, fields)
    return fields


def _name_values(code: int, from_guc: bool, fields: dict[str, Any]) -> None:
    """Numbers that have names of their own, in `fields` that are there."""

    def rename(field: str, name: Callable[[int], Any]) -> None:
        if field in fields:
            fields[field] = name(fields[field])

    if from_guc:
        if code == actions.VF_STATE_NOTIFY:
            rename("event", lambda event: actions.VF_EVENTS.get(event, event))
    elif code == actions.VF_CONTROL:
        rename("command", lambda command: actions.VF_COMMANDS.get(command, command))
    elif code == actions.SLPC_REQUEST:
        rename("event", lambda event: actions.SLPC_EVENTS.get(event >> 8, event))
    elif code == actions.SELF_CFG:
        rename("klv", lambda header: klv.name_of(header >> 16))
    elif code == actions.QUERY_SINGLE_KLV:
        rename("key", lambda key: klv.name_of(key & 0xFFFF))


def _relayed(words: tuple[int, ...]) -> str:
    header = _parsed(HXG_REQUEST, words[0])  # there is one: it was reached by its index
    kind = header["type"]
    if kind in (REQUEST, EVENT, FAST_REQUEST):
        code = header["action"]
        declared = actions.RELAY.get(code)
        what = declared.name if declared else f"{code:#06x}"
    else:
        what = TYPE_NAMES.get(kind, str(kind))
    return " ".join([what, *(f"{word:#x}" for word in words[1:])])
