"""All cases, in the order of the specification; importing this registers them."""

# ruff: noqa: I001, F401 - the order is the report's
from vfio_user_xe.emulator.conformance.cases import negotiation
from vfio_user_xe.emulator.conformance.cases import framing
from vfio_user_xe.emulator.conformance.cases import info
from vfio_user_xe.emulator.conformance.cases import io_fds
import vfio_user_xe.emulator.conformance.cases.irqs.wiring
import vfio_user_xe.emulator.conformance.cases.irqs.refusals
import vfio_user_xe.emulator.conformance.cases.irqs.delivery
import vfio_user_xe.emulator.conformance.cases.irqs.forms
import vfio_user_xe.emulator.conformance.cases.dma.mapping
import vfio_user_xe.emulator.conformance.cases.dma.descriptors
import vfio_user_xe.emulator.conformance.cases.dma.access_modes
import vfio_user_xe.emulator.conformance.cases.dma.unmapping
import vfio_user_xe.emulator.conformance.cases.dma.reach
import vfio_user_xe.emulator.conformance.cases.regions.accesses
import vfio_user_xe.emulator.conformance.cases.regions.refusals
import vfio_user_xe.emulator.conformance.cases.regions.write_multi
from vfio_user_xe.emulator.conformance.cases import posted
import vfio_user_xe.emulator.conformance.cases.server_dma.commands
import vfio_user_xe.emulator.conformance.cases.server_dma.answers
import vfio_user_xe.emulator.conformance.cases.server_dma.ordering
import vfio_user_xe.emulator.conformance.cases.server_dma.twin_socket
from vfio_user_xe.emulator.conformance.cases import reset
from vfio_user_xe.emulator.conformance.cases import features
from vfio_user_xe.emulator.conformance.cases import dirty_logging
from vfio_user_xe.emulator.conformance.cases import descriptors
from vfio_user_xe.emulator.conformance.cases import pipelining
from vfio_user_xe.emulator.conformance.cases import reconnect
from vfio_user_xe.emulator.conformance.cases import clients
