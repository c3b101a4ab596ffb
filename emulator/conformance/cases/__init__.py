"""All cases, in the order of the specification; importing this registers them."""

# ruff: noqa: I001, F401 - the order is the report's
from emulator.conformance.cases import negotiation
from emulator.conformance.cases import framing
from emulator.conformance.cases import info
from emulator.conformance.cases import io_fds
from emulator.conformance.cases import irqs
from emulator.conformance.cases import dma
from emulator.conformance.cases import regions
from emulator.conformance.cases import posted
from emulator.conformance.cases import server_dma
from emulator.conformance.cases import reset
from emulator.conformance.cases import features
from emulator.conformance.cases import descriptors
from emulator.conformance.cases import pipelining
from emulator.conformance.cases import reconnect
