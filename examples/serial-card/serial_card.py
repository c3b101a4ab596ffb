"""A 16550 UART on a PCI card with MSI, driven by Linux's stock `8250_pci`.

The registers are those of National Semiconductor's PC16550D. The card has the ids of HPE's PCI serial device, which
`8250_pci.c` knows as one port in BAR1 (memory or I/O, one byte a register) with MSI (`pci_use_msi`, `pbn_b1_1_115200`).

The far end of the line is the control socket: `serial_send` and `serial_received`; or, with `loop`, the near end.

Registers are bytes here, and two of them change when they are read. So the model has an access handler of its own
instead of a `RegisterFile`, whose unit is the dword.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from vfio_user_xe.emulator.api import Bar, Card, CommandError, Function, Identity, Msi, Option

DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
NAMES = ("DATA", "IER", "IIR/FCR", "LCR", "MCR", "LSR", "MSR", "SCR")

RECEIVED, EMPTY, LINE, MODEM = 0x1, 0x2, 0x4, 0x8
"""Interrupt enable register."""
NO_INTERRUPT, IIR_EMPTY, IIR_RECEIVED, IIR_LINE, IIR_TIMEOUT, IIR_FIFOS = 0x1, 0x2, 0x4, 0x6, 0xC, 0xC0
FIFO_ENABLE, FIFO_CLEAR_RX, FIFO_CLEAR_TX = 0x1, 0x2, 0x4
DIVISOR_LATCH = 0x80
LOOPBACK = 0x10
DATA_READY, OVERRUN, THR_EMPTY, TX_EMPTY = 0x01, 0x02, 0x20, 0x40
CTS, DSR, RI, DCD = 0x10, 0x20, 0x40, 0x80

FIFO_SIZE = 16
TRIGGER_LEVELS = (1, 4, 8, 14)
KEPT = 1 << 20
"""Bytes that the far end keeps for `serial_received`."""


class SerialCard:
    """A PCI card with one 16550 serial port."""

    API_VERSION = (2, 1)
    OPTIONS = (Option("loop", "bool", False, "whether the far end sends back what it receives"),)

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.uart = Uart(card, loop=options["loop"])
        self.function = Function(
            "serial",
            0,
            executor=card.executor,
            identity=Identity(0x1590, 0x037E, 0x1590, 0x037E, class_code=0x070002),
            capabilities=[Msi()],
            bars={1: Bar(4096, handler=self.uart, is_64bit=False)},
        )
        self.uart.interrupt = self.function.raise_msi
        self.function.on_reset.append(lambda reason: self.uart.reset())
        card.functions.append(self.function)
        card.commands["serial_send"] = self.uart.serial_send
        card.commands["serial_received"] = self.uart.serial_received
        card.commands["serial_line"] = self.uart.serial_line


class Uart:
    """One UART: answers accesses (on the transport's thread), moves bytes (on the executor)."""

    def __init__(self, card: Card, *, loop: bool) -> None:
        self.loop = loop
        self.interrupt: Callable[[], object] = lambda: None
        self._executor = card.executor
        self._tap = card.tracer.tap("uart", "registers of the serial port")
        self._drop = card.faults.point("serial.drop", "lose a byte on the line")
        self._lock = threading.Lock()
        self._line_in: deque[int] = deque()
        """What the far end sent and the receive FIFO had no room for yet."""
        self._far: deque[int] = deque(maxlen=KEPT)
        self._set_defaults()

    def _set_defaults(self) -> None:
        self._rx: deque[int] = deque()
        self._tx: deque[int] = deque()
        self._registers = [0] * 8
        self._divisor = 1
        self._fifos = False
        self._trigger = 1
        self._overrun = False
        self._empty_pending = False
        self._working = False
        self._signalled = NO_INTERRUPT

    def reset(self) -> None:
        """Power-up state."""
        with self._lock:
            self._set_defaults()
            self._line_in.clear()

    # Accesses.

    def read(self, offset: int, size: int) -> int:
        """Bytes at 0 to 7 are registers; what lies behind them reads as ones."""
        value = 0
        with self._lock:
            for index in range(size):
                value |= self._read(offset + index) << 8 * index
            raised = self._changed()
        if self._tap.on:
            self._tap("serial", "read", {"register": _name(offset), "value": value})
        if raised:
            self.interrupt()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """See `read`."""
        if self._tap.on:
            self._tap("serial", "write", {"register": _name(offset), "value": value})
        with self._lock:
            for index in range(size):
                self._write(offset + index, value >> 8 * index & 0xFF)
            raised = self._changed()
        if raised:
            self.interrupt()

    def _read(self, offset: int) -> int:
        if offset > SCRATCH:
            return 0xFF
        if self._registers[LCR] & DIVISOR_LATCH and offset in (DATA, IER):
            return self._divisor >> 8 * offset & 0xFF
        if offset == DATA:
            value = self._rx.popleft() if self._rx else 0
            self._fill()
            return value
        if offset == IIR_FCR:
            cause = self._cause()
            if cause == IIR_EMPTY:
                self._empty_pending = False
            return cause | (IIR_FIFOS if self._fifos else 0)
        if offset == LSR:
            status = (DATA_READY if self._rx else 0) | (OVERRUN if self._overrun else 0)
            self._overrun = False
            return status | (0 if self._tx else THR_EMPTY | TX_EMPTY)
        if offset == MSR:
            return self._modem_lines()
        return self._registers[offset]

    def _write(self, offset: int, value: int) -> None:
        if offset > SCRATCH or offset in (LSR, MSR):
            return
        if self._registers[LCR] & DIVISOR_LATCH and offset in (DATA, IER):
            shift = 8 * offset
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
        elif offset == DATA:
            self._tx.append(value)
            self._empty_pending = False
            self._work()
        elif offset == IER:
            if value & EMPTY and not self._registers[IER] & EMPTY and not self._tx:
                self._empty_pending = True
            self._registers[IER] = value & (RECEIVED | EMPTY | LINE | MODEM)
        elif offset == IIR_FCR:
            self._set_fifos(value)
        else:
            self._registers[offset] = value & (0x1F if offset == MCR else 0xFF)

    def _set_fifos(self, value: int) -> None:
        enabled = bool(value & FIFO_ENABLE)
        if value & FIFO_CLEAR_RX or enabled != self._fifos:
            self._rx.clear()
        if value & FIFO_CLEAR_TX or enabled != self._fifos:
            self._tx.clear()
        self._fifos = enabled
        self._trigger = TRIGGER_LEVELS[value >> 6] if enabled else 1
        self._fill()

    def _modem_lines(self) -> int:
        if not self._registers[MCR] & LOOPBACK:
            return CTS | DSR | DCD
        outputs = self._registers[MCR]
        dtr, rts, out1, out2 = (outputs >> bit & 1 for bit in range(4))
        return rts * CTS | dtr * DSR | out1 * RI | out2 * DCD

    # Interrupts: one message each time that the cause becomes another one.

    def _cause(self) -> int:
        enabled = self._registers[IER]
        if enabled & LINE and self._overrun:
            return IIR_LINE
        if enabled & RECEIVED and self._rx:
            return IIR_RECEIVED if len(self._rx) >= self._trigger else IIR_TIMEOUT
        if enabled & EMPTY and self._empty_pending:
            return IIR_EMPTY
        return NO_INTERRUPT

    def _changed(self) -> bool:
        """Whether the guest must be told."""
        cause, before = self._cause(), self._signalled
        self._signalled = cause
        return cause not in (NO_INTERRUPT, before)

    # The line: only the executor moves bytes.

    def _work(self) -> None:
        if not self._working:
            self._working = True
            self._executor.submit(self._transmit)

    def _transmit(self) -> None:
        with self._lock:
            self._working = False
            looped = bool(self._registers[MCR] & LOOPBACK)
            while self._tx:
                byte = self._tx.popleft()
                if self._drop.armed and self._drop.take() is not None:
                    continue
                if looped:
                    self._receive(byte)
                else:
                    self._far.append(byte)
                    if self.loop:
                        self._line_in.append(byte)
            self._empty_pending = True
            self._fill()
            raised = self._changed()
        if raised:
            self.interrupt()

    def _fill(self) -> None:
        """From the line into the FIFO: the far end waits until there is room, as with hardware flow control."""
        while self._line_in and len(self._rx) < (FIFO_SIZE if self._fifos else 1):
            self._rx.append(self._line_in.popleft())

    def _receive(self, byte: int) -> None:
        if len(self._rx) >= (FIFO_SIZE if self._fifos else 1):
            self._overrun = True
        else:
            self._rx.append(byte)

    # Commands of the control socket; on the executor.

    def serial_send(self, data: str) -> int:
        """Send bytes (hexadecimal) from the far end; how many."""
        try:
            sent = bytes.fromhex(data)
        except ValueError:
            raise CommandError(f'data "{data[:32]}" is not hexadecimal: want two digits a byte') from None
        with self._lock:
            self._line_in.extend(sent)
            self._fill()
            raised = self._changed()
        if raised:
            self.interrupt()
        return len(sent)

    def serial_received(self, clear: bool = False) -> str:
        """What the far end received (the last MiB), in hexadecimal."""
        with self._lock:
            received = bytes(self._far)
            if clear:
                self._far.clear()
        return received.hex()

    def serial_line(self) -> dict[str, Any]:
        """How the guest has set up the port."""
        with self._lock:
            format_bits = self._registers[LCR]
            return {
                "baud": 115200 // (self._divisor or 1),
                "data_bits": 5 + (format_bits & 3),
                "stop_bits": 2 if format_bits & 4 else 1,
                "parity": "none" if not format_bits & 8 else "even" if format_bits & 0x10 else "odd",
                "fifos": self._fifos,
                "waiting": len(self._line_in),
            }


def _name(offset: int) -> str:
    return NAMES[offset] if offset < len(NAMES) else f"{offset:#x}"
