"""All cases, in the order of the specification; importing this registers them."""

# ruff: noqa: I001, F401 - the order is the report's
from vfio_user_xe.emulator.conformance.cases import negotiation
from vfio_user_xe.emulator.conformance.cases import framing
from vfio_user_xe.emulator.conformance.cases import info
from vfio_user_xe.emulator.conformance.cases import io_fds
from vfio_user_xe.emulator.conformance.cases import irqs
from vfio_user_xe.emulator.conformance.cases import dma
from vfio_user_xe.emulator.conformance.cases import regions
from vfio_user_xe.emulator.conformance.cases import posted
from vfio_user_xe.emulator.conformance.cases import server_dma
from vfio_user_xe.emulator.conformance.cases import reset
from vfio_user_xe.emulator.conformance.cases import features
from vfio_user_xe.emulator.conformance.cases import descriptors
from vfio_user_xe.emulator.conformance.cases import pipelining
from vfio_user_xe.emulator.conformance.cases import reconnect
