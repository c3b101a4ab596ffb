"""What a write does to the stored value of a register, by its access: one closure a register, made when it is declared."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vfio_user_xe.emulator.model.registers import MASKED, RO, RW, W1C, W1S

_ALL = 0xFFFFFFFF

Store = Callable[[int], None]


def _store_rw(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    if mask == _ALL:

        def store_all(value: int) -> None:
            storage[index] = value

        return store_all

    def store(value: int) -> None:
        with lock:
            storage[index] = (storage[index] & ~mask) | (value & mask)

    return store


def _store_ro(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    return lambda value: None


def _store_w1c(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    def store(value: int) -> None:
        with lock:
            storage[index] &= ~(value & mask) & _ALL

    return store


def _store_w1s(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    def store(value: int) -> None:
        with lock:
            storage[index] |= value & mask

    return store


def _store_masked(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    def store(value: int) -> None:
        change = value >> 16 & mask
        with lock:
            storage[index] = (storage[index] & 0xFFFF & ~change) | (value & change)

    return store


STORES: dict[str, Callable[[memoryview, int, int, threading.Lock], Store]] = {
    RW: _store_rw,
    RO: _store_ro,
    W1C: _store_w1c,
    W1S: _store_w1s,
    MASKED: _store_masked,
}
