"""The commands that every card answers on its control socket."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.fabric.interconnect import Space
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.model.options import UnknownName
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import Register
from vfio_user_xe.emulator.observe.unmodelled import unmodelled_bits, unmodelled_registers, unmodelled_report
from vfio_user_xe.emulator.pci import capability_dump
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY

if TYPE_CHECKING:
    from vfio_user_xe.emulator.pci.function import Function

MAX_LENGTH = 16 << 20
"""Bytes that one `read` returns."""
ADDRESS_SPACE = 1 << 64
_PATIENCE = 30.0
_SHOWN = 32
"""Characters of a wrong argument that an error repeats."""
_NEAR = 4
"""Names that an error proposes."""


def core_commands(card: Card) -> dict[str, Callable[..., Any]]:
    """The commands by name; they wait for the executor themselves where they need it."""
    commands = _Commands(card)
    return {name: getattr(commands, name) for name in dir(commands) if not name.startswith("_")}


class _Commands:
    """One method a command."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def status(self) -> dict[str, Any]:
        """The card: functions, their clients, VFs, what is switched on."""
        card = self._card
        return {
            "card": card.name,
            "model": card.config.model,
            "options": card.config.options,
            "address_spaces": dict(card.info.address_spaces),
            "interconnects": [item.name for item in card.fabric.interconnects],
            "functions": [_function_status(function) for function in card.functions],
            "executor": {"failures": card.executor.failures},
            "trace": card.tracer.active,
            "stalls": len(card.watchdog.stalls),
        }

    def capabilities(self, function: str) -> list[dict[str, Any]]:
        """The PCI capabilities of a function as its configuration space has them now: where, id, registers by name."""
        return capability_dump.dump(self._card.function(function))

    def ledger(self, clear: bool = False) -> list[dict[str, Any]]:
        """Accesses by initiator, owner, interconnect and kind; `clear` sets them to zero after that."""

        def take() -> list[dict[str, Any]]:
            entries = [entry.as_dict() for entry in self._card.fabric.ledger]
            if clear:
                self._card.fabric.ledger.clear()
            return entries

        # Together on the executor, which counts: nothing is lost between the two.
        return self._card.executor.run_sync(take, _PATIENCE)

    def verdicts(self) -> dict[str, Any]:
        """The ledger's verdicts: paths between functions, stale and foreign accesses."""
        names = [function.name for function in self._card.functions]
        return self._card.executor.run_sync(lambda: self._card.fabric.ledger.verdicts(names), _PATIENCE)

    def ownership(self, address: int | None = None) -> dict[str, Any]:
        """Changes of who owns which device memory (those of the page at `address`), and resets of functions."""
        ownership = self._card.fabric.ledger.ownership

        def take() -> dict[str, Any]:
            return {
                "now": self._card.fabric.ledger.now(),
                "changes": ownership.history(address),
                "resets": ownership.resets_as_list(),
            }

        return self._card.executor.run_sync(take, _PATIENCE)

    def accesses(self) -> list[dict[str, Any]]:
        """How often the registers of each register file were read and written."""
        files = self._card.register_files
        return [{"name": file.name, "reads": file.reads, "writes": file.writes} for file in files]

    def windows(self) -> list[dict[str, Any]]:
        """Paths into memory that are open now."""
        return [
            {
                "initiator": window.initiator.name,
                "space": window.space,
                "address": window.address,
                "length": window.length,
                "owner": window.owner,
                "interconnect": window.entry.interconnect,
                "kind": window.entry.kind,
            }
            for window in self._card.fabric.open_windows()
        ]

    def leases(self) -> list[dict[str, Any]]:
        """Memory of the card that is used outside of its process now."""
        return [lease.as_dict() for lease in self._card.leases]

    def read(self, function: str, space: str, address: int, length: int) -> str:
        """Bytes as the function reads them, in hexadecimal; `space` is "device" or "system"."""
        if not 0 < length <= MAX_LENGTH:
            raise CommandError(f"length {length} is not between 1 and {MAX_LENGTH}")
        initiator = self._card.function(function)
        _check_space(space)
        _check_address(address, length)
        fabric = self._card.fabric
        data = self._card.executor.run_sync(
            lambda: fabric.read(initiator, space, address, length, "control"), _PATIENCE
        )
        return data.hex()

    def write(self, function: str, space: str, address: int, data: str) -> int:
        """Write bytes (hexadecimal) as the function does; returns how many."""
        initiator = self._card.function(function)
        _check_space(space)
        raw = _bytes(data)
        _check_address(address, len(raw))
        fabric = self._card.fabric
        self._card.executor.run_sync(lambda: fabric.write(initiator, space, address, raw, "control"), _PATIENCE)
        return len(raw)

    def interrupt(self, function: str, vector: int = 0) -> bool:
        """Raise an interrupt vector of a function; whether the client has wired it."""
        initiator = self._card.function(function)
        vectors = max(initiator.interrupt_state.counts)
        if not 0 <= vector < vectors:
            raise CommandError(f"vector {vector}: {function} has {_range_in_words(vectors)}")
        return initiator.raise_msi(vector)

    def registers(
        self, function: str | None = None, name: str = "*", offset: int | None = None, live: bool = False
    ) -> list[dict[str, Any]]:
        """Registers by name pattern or offset, their values and fields.

        Values are those stored; with `live`, what a read computes is computed, with all that a read does.
        """
        found = []
        files = self._files(function)
        for file in files:
            for at, register in sorted(file.registers.items()):
                wanted = at == offset if offset is not None else fnmatch.fnmatch(register.name.lower(), name.lower())
                if wanted and at == register.offset:
                    found.append(_register_value(file, register, live))
        if not found:
            raise _no_register(name, files) if offset is None else _no_register_at(offset, files)
        return found

    def unmodelled(self, function: str | None = None, format: str = "json") -> Any:
        """Undeclared registers that were accessed, the most used first; `format` is "json" or "text", which also has `unmodelled_bits`."""
        if format not in ("json", "text"):
            raise UnknownName(format, "format", ["json", "text"])
        files = self._files(function)
        return unmodelled_report(files) if format == "text" else unmodelled_registers(files)

    def unmodelled_bits(self, function: str | None = None) -> list[dict[str, Any]]:
        """Bits that a guest set in declared registers though they are reserved or not modelled, the most written first."""
        return unmodelled_bits(self._files(function))

    def stalls(self) -> list[dict[str, Any]]:
        """Registers that a guest was seen to poll without end, oldest first."""
        return [{**stall.as_dict(), "text": str(stall)} for stall in list(self._card.watchdog.stalls)]

    def faults(self) -> list[dict[str, Any]]:
        """Places where a fault can be injected, and how often each happened in all that was queued before."""
        return self._card.executor.run_sync(self._card.faults.as_list, _PATIENCE)

    def inject(
        self, fault: str, after: int = 0, times: int = 1, arguments: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Let a fault happen `times` times (0: always), after `after` chances have passed."""
        point = self._card.faults[fault]
        if after < 0 or times < 0:
            raise CommandError(f"after ({after}) and times ({times}) must not be negative")
        point.arm(after, times, arguments)
        return point.as_dict()

    def heal(self, fault: str | None = None) -> None:
        """Take back an injected fault, or all."""
        if fault is None:
            self._card.faults.clear()
        else:
            self._card.faults[fault].disarm()

    def trace(self) -> dict[str, Any]:
        """Trace categories: what there is, what is on."""
        return {"categories": self._card.tracer.categories(), "on": self._card.tracer.active}

    def trace_on(self, categories: list[str], file: str) -> list[str]:
        """Trace categories (or "all") to a file of the server, replacing it; returns what is on."""
        try:
            self._card.tracer.start(categories, file)
        except OSError as error:
            raise CommandError(f"{file} cannot be written by the server: {error.strerror}") from error
        return self._card.tracer.active

    def trace_off(self) -> None:
        """End the trace; its file is complete then."""
        self._card.tracer.stop()

    def memory(self) -> dict[str, Any]:
        """Memories that guests map, in bytes: their sizes, and what they cost the host."""
        memories: dict[str, Memory] = dict(self._card.memories)
        for function in self._card.functions:
            for index, region in enumerate(function.regions):
                if region is not None and region.memory is not None and region.memory not in memories.values():
                    memories[f"{function.name} BAR{index}"] = region.memory
        sizes = {
            name: {"size": memory.size, "resident": memory.resident()}
            for name, memory in memories.items()
            if memory.fd >= 0
        }
        return {"memories": sizes, "resident": sum(size["resident"] for size in sizes.values())}

    def _files(self, function: str | None) -> list[RegisterFile]:
        files = self._card.register_files
        if function is None:
            return files
        found = [file for file in files if file.name == function]
        if not found:
            raise UnknownName(function, "register file", [file.name for file in files])
        return found


def _check_space(space: str) -> None:
    spaces = [Space.DEVICE, Space.SYSTEM]
    if space not in spaces:
        raise UnknownName(space, "address space", spaces)


def _check_address(address: int, length: int) -> None:
    if not 0 <= address <= ADDRESS_SPACE - length:
        raise CommandError(f"[{address:#x}, +{length:#x}) is not inside the 64 bits of an address")


def _bytes(data: str) -> bytes:
    try:
        return bytes.fromhex(data)
    except ValueError:
        raise CommandError(
            f'data "{_cut(data)}" is not hexadecimal: want two digits a byte, such as 0011aaff'
        ) from None


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _range_in_words(vectors: int) -> str:
    return f"vectors 0 to {vectors - 1}" if vectors > 1 else "vector 0 only" if vectors else "no interrupts"


def _no_register(name: str, files: list[RegisterFile]) -> CommandError:
    """That no register matches `name`, with the names that are like it."""
    names = sorted({register.name for file in files for register in file.registers.values()})
    by_key = {known.lower(): known for known in names}
    plain = name.lower().strip("*?")
    near = [known for key, known in by_key.items() if plain and plain in key]
    near = near or [by_key[key] for key in difflib.get_close_matches(plain, by_key, n=_NEAR)]
    hint = (
        f"; did you mean {', '.join(near[:_NEAR])}?"
        if near
        else f"; {len(names)} are declared, the pattern * lists them"
    )
    where = f" of {files[0].name}" if len(files) == 1 else ""
    return CommandError(f'no register{where} is called "{name}"{hint}', near)


def _no_register_at(offset: int, files: list[RegisterFile]) -> CommandError:
    """That no register is at `offset`, with the nearest ones."""
    known = sorted({(at, register.name) for file in files for at, register in file.registers.items()})
    near = sorted(known, key=lambda pair: abs(pair[0] - offset))[:2]
    hint = "; the nearest: " + ", ".join(f"{name} at {at:#x}" for at, name in sorted(near)) if near else ""
    return CommandError(f"no register is at {offset:#x}{hint}", [name for _, name in sorted(near)])


def _register_value(file: RegisterFile, register: Register, live: bool) -> dict[str, Any]:
    if live:
        value = file.read(register.offset, register.width)
    else:
        value = file.peek(register.offset)
        if register.width == 8:
            value |= file.peek(register.offset + 4) << 32
    return {
        "function": file.name,
        "name": register.name,
        "offset": register.offset,
        "value": value,
        "fields": register.decode(value),
        "meanings": register.meanings(value),
        "computed": register.read is not None,
    }


def _function_status(function: Function) -> dict[str, Any]:
    command = function.config.peek(COMMAND, 2)
    status: dict[str, Any] = {
        "name": function.name,
        "index": function.index,
        "vf": function.is_vf,
        "attached": function.has_client,
        "memory_enable": bool(command & COMMAND_MEMORY),
        "bus_master": bool(command & COMMAND_MASTER),
        "power_state": function.power_state,
        "bars": {str(index): bar.size for index, bar in function.bars.items()},
    }
    if function.sriov is not None:
        status["sriov"] = {
            "total_vfs": function.sriov.total_vfs,
            "num_vfs": function.sriov.num_vfs,
            "enabled": function.sriov.enabled,
            "memory_enabled": function.sriov.memory_enabled,
            "enabled_vfs": function.sriov.enabled_vfs,
            "bar_programming": function.sriov.programming.status.as_dict(),
        }
    return status
