"""Mistakes of a device model's author: each is told in a line that names the model, and what is wrong with it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import create_autospec

import pytest

from tests.support import logs
from vfio_user_xe.emulator import API_VERSION
from vfio_user_xe.emulator.control.dispatch import Control
from vfio_user_xe.emulator.model import card as card_module
from vfio_user_xe.emulator.model import made_card
from vfio_user_xe.emulator.model.card import Card, CardConfig, CardError
from vfio_user_xe.emulator.model.plugin_loading import DEVICE_MODEL, Plugin, load_plugin
from vfio_user_xe.emulator.pci.function import Function, Identity

Make = Callable[[Card, Mapping[str, Any]], None]


def made(make: Make, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A card of a model whose constructor is `make`."""
    plugin = Plugin(DEVICE_MODEL, "lamp", "lamp:Lamp", "lamps", "1.0", api_version=API_VERSION, factory=make)
    config = CardConfig("lamp", "lamp", [], {})
    monkeypatch.setattr(card_module, "load_plugin", create_autospec(load_plugin, return_value=plugin))
    return Card(config)


def named(*names: Any) -> Make:
    def make(card: Card, options: Mapping[str, Any]) -> None:
        for index, name in enumerate(names):
            card.functions.append(
                Function(name, index, executor=card.executor, identity=Identity(0x1234, 1), capabilities=[], bars={})
            )

    return make


@pytest.mark.parametrize("error", [ValueError("BAR0 of 3 bytes"), SystemExit(3), RecursionError("deep")])
def test_whatever_a_model_raises_names_it_and_its_package(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def make(card: Card, options: Mapping[str, Any]) -> None:
        raise error

    with pytest.raises(CardError, match=rf"device model lamp \(lamp:Lamp, package lamps\).*{type(error).__name__}"):
        made(make, monkeypatch)
    assert "device model lamp (lamp:Lamp, package lamps) failed" in logs.text(caplog, made_card.log)


def test_what_a_model_says_of_an_option_leaves_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(card: Card, options: Mapping[str, Any]) -> None:
        raise CardError("must be even", key="lamps")

    with pytest.raises(CardError, match=r"^defaults: device.lamps: must be even$"):
        made(make, monkeypatch)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "has made no function"),
        (["../../lamp"], r"'\.\./\.\./lamp'"),
        ([""], "calls a function ''"),
        ([5], "calls a function 5"),
        (["control"], "'control', as something of every card"),
        (["qtest"], "'qtest', as something of every card"),
        (["pf", "pf"], "calls 2 functions 'pf'"),
    ],
)
def test_functions_have_names_that_can_be_used(
    names: Sequence[Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CardError, match=f"device model lamp .*{said}"):
        made(named(*names), monkeypatch)


def test_served_functions_are_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(card: Card, options: Mapping[str, Any]) -> None:
        named("pf", "../../lamp")(card, options)
        card.served.append(card.functions.pop())

    with pytest.raises(CardError, match=r"calls a function '\.\./\.\./lamp'"):
        made(make, monkeypatch)


def test_what_is_no_function_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(card: Card, options: Mapping[str, Any]) -> None:
        card.functions.append(None)  # type: ignore[arg-type]

    with pytest.raises(CardError, match="a function of None, which is no Function"):
        made(make, monkeypatch)


def test_what_the_host_has_no_more_of_is_not_the_model_s_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(card: Card, options: Mapping[str, Any]) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        made(make, monkeypatch)


def test_what_fails_at_the_start_names_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    card = made(named("lamp"), monkeypatch)
    card.on_start.append(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    try:
        with pytest.raises(CardError, match=r"device model lamp .*ZeroDivisionError"):
            card.start()
    finally:
        card.stop()


@pytest.mark.parametrize(
    ("name", "command", "said"),
    [
        ("status", lambda: None, "'status', as every card has"),
        ("help", lambda: None, "'help', as every card has"),
        ("glow", 7, "'glow' that is no function: 7"),
        ("glow", dict, "'glow' whose arguments are not known"),
    ],
)
def test_a_model_s_commands_can_be_called_and_hide_none(
    name: str, command: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = made(named("lamp"), monkeypatch)
    card.commands[name] = command
    with pytest.raises(CardError, match=f"device model lamp .*{said}"):
        Control(card)


def test_all_that_a_model_wants_to_be_done_at_the_end_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def leave() -> None:
        raise SystemExit(3)

    card = made(named("lamp"), monkeypatch)
    card.on_stop += [lambda: seen.append("first"), leave, lambda: seen.append("last")]
    monkeypatch.setattr(card.tracer, "stop", lambda: seen.append("trace"))
    card.start()
    with pytest.raises(CardError, match=r"device model lamp \(lamp:Lamp, package lamps\) fails: SystemExit: 3"):
        card.stop()
    assert seen == ["last", "first", "trace"]
