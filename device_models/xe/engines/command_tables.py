"""The declarations as the command streamer indexes them: what executes a command, by bits 31:22 of its first dword."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy

from vfio_user_xe.device_models.xe.engines import post_sync
from vfio_user_xe.device_models.xe.engines.command import BARRIER, BLT, GFXPIPE, MI, STATE, Command
from vfio_user_xe.device_models.xe.engines.command_streamer import JUMPED, CommandStreamer, Entry, Handler
from vfio_user_xe.device_models.xe.engines.commands import COMMANDS, SO_DECL_LIST, find, length_of, name_of


class Tables:
    """Dispatch tables by bits 31:22 of a command: `normal`, and `noop` for where predication makes no-ops."""

    def __init__(self, commands: Iterable[Command] = COMMANDS, pipelines: Mapping[str, Handler] | None = None) -> None:
        """`pipelines` executes commands of the pipelines (GFXPIPE) by name; without it they are skipped.

        Raises:
            ValueError: a name is not declared.
        """
        self.traced = self
        """The table that is used while commands are traced."""
        self.pipelines: dict[int, Handler] = {}
        """By bits 31:16 of the first dword."""
        unknown: Entry = (_unknown, 1, 0)
        self.normal: list[Entry] = [unknown] * 1024
        for slot in range(1024):
            kind = slot >> 7
            if kind == MI:
                self.normal[slot] = (_unknown, 1, 0) if slot >> 1 & 0x3F < 0x10 else (_unknown, 0, 0xFF)
            elif kind in (BLT, STATE, BARRIER):
                self.normal[slot] = (_unknown if kind == BLT else _skipped, 0, 0xFF)
            elif kind == GFXPIPE:
                self.normal[slot] = (_skipped, 1, 0) if slot >> 5 & 3 == 1 else (_skipped, 0, 0xFF)
        self.noop: list[Entry] = [(_nothing, length, mask) for _, length, mask in self.normal]
        commands = tuple(commands)
        by_name = {command.name: command for command in commands if command.mask == 0xFFFF0000}
        for name, handler in (pipelines or {}).items():
            if name not in by_name:
                raise ValueError(f"{name} is not a declared command of the pipelines")
            self.pipelines[by_name[name].header >> 16] = handler
        for command in commands:
            if command.execute is None:
                continue
            for slot in range(1024):
                header = slot << 22
                if header & command.mask == command.header & command.mask & 0xFFC00000:
                    self._set(slot, command, command.execute)

    def _set(self, slot: int, command: Command, execute: Handler) -> None:
        # Several GFXPIPE commands share a slot with PIPE_CONTROL.
        handler = _pipe_control if command.name == "PIPE_CONTROL" else execute
        self.normal[slot] = (handler, command.length, command.length_mask)
        nothing = _nothing if command.predicable else execute
        self.noop[slot] = (nothing, command.length, command.length_mask)

    def with_trace(self, before: Callable[[CommandStreamer, memoryview, int, int], None]) -> Tables:
        """The same tables, with others for while commands are traced: those call `before` ahead of every command."""
        plain, traced = copy(self), copy(self)
        traced.normal = [(_traced(before, handler), length, mask) for handler, length, mask in self.normal]
        traced.noop = [(_traced(before, handler), length, mask) for handler, length, mask in self.noop]
        plain.traced = traced.traced = traced
        return plain


def _traced(before: Callable[[CommandStreamer, memoryview, int, int], None], handler: Handler) -> Handler:
    def execute(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
        before(streamer, words, index, length)
        return handler(streamer, words, index, length)

    return execute


def _nothing(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    return None


def _unknown(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    streamer.engine.report(f"unknown command {name_of(words[index])} ({words[index]:#010x}) skipped")
    return None


def _skipped(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """A command of the pipelines: executed by who has registered for it, else skipped (SO_DECL_LIST is longer)."""
    header = words[index]
    handler = streamer.tables.pipelines.get(header >> 16)
    if handler is not None:
        return handler(streamer, words, index, length)
    if header >> 16 == SO_DECL_LIST and header & 0x100:
        streamer.set_place(streamer.place(index + length_of(header)))
        return JUMPED
    command = find(header)
    if command is not None and command.work:
        streamer.engine.report(f"{command.name} needs execution units, which are not emulated: skipped")
    return None


def _pipe_control(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    if words[index] >> 16 != 0x7A00:
        return _skipped(streamer, words, index, length)
    return post_sync.pipe_control(streamer, words, index, length)


TABLES = Tables()
"""Those of engines that are not traced."""
