"""The conformance device: a PCI function made to be tested through.

Some rules cannot be seen from outside unless the device does something: DMA, interrupts of its own, a reset that
resets. A server that offers this device to the suite has all of its cases run. These are its numbers; `docs/conformance.md`
is its data sheet for authors of other servers, `device_models/conformance.py` is ours, `driver.py` drives it.
"""

from __future__ import annotations

from typing import Final

VENDOR_ID: Final = 0x1234
DEVICE_ID: Final = 0xC0F0
CLASS_CODE: Final = 0xFF0000

REGISTERS: Final = 0
"""BAR 0: 4 KiB of 32-bit registers, trapped."""
SCRATCH: Final = 1
"""BAR 1: 64 KiB of trapped memory; the last 8 KiB hold the MSI-X table and pending bits."""
MAPPED: Final = 2
"""BAR 2 (64 bits): memory that can be mapped as a whole; what DMA reads into and writes from."""
SPARSE: Final = 4
"""BAR 4 (64 bits): memory of which `SPARSE_AREAS` can be mapped; the rest is trapped memory."""

REGISTERS_SIZE: Final = 0x1000
SCRATCH_SIZE: Final = 0x10000
SCRATCH_USABLE: Final = 0xE000
MSIX_TABLE: Final = 0xE000
MSIX_PENDING: Final = 0xF000
MAPPED_SIZE: Final = 4 << 20
SPARSE_SIZE: Final = 0x10000
SPARSE_AREAS: Final = ((0x2000, 0x1000), (0x8000, 0x3000))
MSI_VECTORS: Final = 4
MSIX_VECTORS: Final = 16

MAGIC: Final = 0x44435556
"""The bytes "VUCD"."""
VERSION: Final = 1

# Registers of BAR 0, 32 bits each. RO where nothing else is said.
REG_MAGIC: Final = 0x000
REG_VERSION: Final = 0x004
REG_SCRATCH: Final = 0x008  # RW; 0 after a reset, kept when a client goes
REG_RESETS: Final = 0x00C  # DEVICE_RESETs since the server started
REG_IRQ_TRIGGER: Final = 0x020  # W: interrupt index << 16 | vector, signalled soon after the reply
REG_IRQ_DONE: Final = 0x024  # how many of those were dealt with
REG_IRQ_DELIVERED: Final = 0x028  # 1 if the last one had an eventfd, else 0
REG_DMA_ADDRESS: Final = 0x040  # RW
REG_DMA_ADDRESS_HIGH: Final = 0x044  # RW
REG_DMA_LENGTH: Final = 0x048  # RW, bytes
REG_DMA_BUFFER: Final = 0x04C  # RW, offset in BAR 2
REG_DMA_COMMAND: Final = 0x050  # W: one of DMA_*; carried out soon after the reply
REG_DMA_DONE: Final = 0x054  # how many commands were carried out
REG_DMA_ERRNO: Final = 0x058  # of the last command: 0 for success
REG_DMA_DIRECT: Final = 0x05C  # bytes of the last command that went through mapped memory
REG_WRITES: Final = 0x080  # writes to trapped memory (BARs 1 and 4)
REG_LAST_OFFSET: Final = 0x084  # of the last one
REG_LAST_SIZE: Final = 0x088  # of the last one
REG_BROKEN: Final = 0x0A0  # every access fails inside the device

DMA_READ: Final = 1
"""Client memory to BAR 2."""
DMA_WRITE: Final = 2
"""BAR 2 to client memory."""
DMA_QUERY_READ: Final = 3
"""Succeeds when the range may be read; moves nothing."""
DMA_QUERY_WRITE: Final = 4
"""Succeeds when the range may be written; moves nothing."""
DMA_BY_MESSAGE: Final = 0x100
"""Added to DMA_READ or DMA_WRITE: do not use mapped memory even where there is some."""
DMA_THEN_MSI: Final = 0x200
"""Added: signal MSI vector 0, or MSI-X vector 0 if that is what the client wired, when done."""
