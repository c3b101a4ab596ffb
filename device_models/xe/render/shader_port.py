"""Serves the messages of shader threads: the URB and render targets here, memory and images as compute's threads have them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.port import Port
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot
from vfio_user_xe.device_models.xe.eu.messages import payload
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage, LscOp, RenderCacheOp, RenderTargetMessage
from vfio_user_xe.device_models.xe.eu.messages.payload import BarrierSignal
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid
from vfio_user_xe.device_models.xe.eu.port import Reply, Request
from vfio_user_xe.device_models.xe.eu.reference.threads import Status, Threads
from vfio_user_xe.device_models.xe.memory.address_space import Fault
from vfio_user_xe.device_models.xe.render.pixel_output import PixelOutput
from vfio_user_xe.device_models.xe.render.stage import Stage
from vfio_user_xe.device_models.xe.render.urb import Urb

_REGISTER = 64


@dataclass
class _Together:
    """`GroupsInFlight` of threads that run together: barriers are of all of them."""

    first_slot: int = 0
    """Scratch slot of the first thread."""
    threads: Threads | None = None
    """Those of the reference back end; compiled code has barriers of its own."""
    waiting: list[int] = field(default_factory=list)

    slm_bytes: int = 0
    memory: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))

    def slm_start(self, threads: NDArray[np.int64]) -> NDArray[np.int64]:
        """All of them share it."""
        return np.zeros(len(threads), dtype=np.int64)

    def scratch_slot(self, threads: NDArray[np.int64]) -> NDArray[np.int64]:
        """A thread's number, behind the first one's."""
        return threads + self.first_slot

    def signal(self, thread: int, signal: BarrierSignal) -> None:
        """Threads of a hull shader, and of a thread group of task and mesh shaders, wait for each other."""
        if self.threads is None:
            return
        self.waiting.append(thread)
        if len(self.waiting) >= np.count_nonzero(self.threads.status != Status.ENDED):
            self.threads.notify(self.waiting)
            self.waiting = []


class ShaderPort:
    """The message port of one stage's threads (`eu.port.MessagePort`)."""

    def __init__(
        self,
        stage: Stage,
        urb: Urb | None = None,
        output: PixelOutput | None = None,
        first_slot: int = 0,
        slm_bytes: int = 0,
    ) -> None:
        """`urb` is what URB messages reach, `output` takes what pixel shaders write, `first_slot` is the first thread's scratch.

        The threads are one group with `slm_bytes` of shared local memory.
        """
        self._stage = stage
        self._urb = urb
        self._output = output
        self._together = _Together(first_slot, slm_bytes=slm_bytes, memory=np.zeros(slm_bytes, dtype=np.uint8))
        self._memory = Port(self._together, stage)

    def serves(self, threads: Threads) -> None:
        """These are the threads of the reference back end whose messages come."""
        self._together.threads = threads

    @property
    def faults(self) -> list[Fault]:
        """Of messages whose threads are to repeat them."""
        return self._memory.faults

    @property
    def slm_bytes(self) -> int:
        """Shared local memory of the threads."""
        return self._together.slm_bytes

    def lend(self, slot: Slot) -> None:
        """Let compiled threads of a slot access the URB while this port lives; their shared local memory is the slot's."""
        if self._together.slm_bytes:
            slot.slm.fill(0)
            self._together.memory = slot.slm
        if self._urb is not None:
            slot.struct.urb, slot.struct.urb_bytes = self._urb.dwords.ctypes.data, self._urb.dwords.nbytes

    def send(self, request: Request) -> Reply:
        """Serve one message of each of `request.threads`."""
        message = request.message
        if isinstance(message, LscMessage) and request.send.sfid is Sfid.URB:
            return self._urb_message(request, message)
        if isinstance(message, RenderTargetMessage) and self._output is not None:
            if message.op is RenderCacheOp.WRITE:
                self._output.write(request, message)
                return Reply()
            return Reply(data=self._output.read(request, message))
        return self._memory.send(request)

    def _urb_message(self, request: Request, message: LscMessage) -> Reply:
        length = message.response_length * _REGISTER
        nothing = Reply(data=np.zeros((len(request.threads), length), dtype=np.uint8) if length else None)
        stores = message.op in (LscOp.STORE, LscOp.STORE_QUAD)
        if self._urb is None or not (stores or message.op in (LscOp.LOAD, LscOp.LOAD_QUAD)):
            self._stage.report(f"threads send {message.op.name} to URB, which is not emulated: answered with zeros")
            return nothing
        if not message.components:
            return nothing  # a geometry shader's threads end with a store of no component
        try:
            offsets = payload.addresses(message, request.payload)
            data = payload.data(message, request.payload) if stores else None
        except payload.PayloadError as short:
            self._stage.report(f"threads send {short} to URB: answered with zeros")
            return nothing
        lanes = request.lanes[:, : offsets.shape[1]]
        if data is not None:
            self._urb.store(offsets, data, message.components, lanes)
            return nothing
        if not length:
            return nothing
        return Reply(data=payload.response(message, self._urb.load(offsets, message.components, lanes)))
