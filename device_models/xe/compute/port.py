"""Serves the messages of compute threads: memory, shared local memory, the gateway.

A thread whose message meets a fault is sent back to repeat it (`Outcome.RETRY`), and the fault is kept in `Port.faults`;
of such a message nothing has happened, and the other threads go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.atomics import OPERANDS, OPERATIONS
from vfio_user_xe.device_models.xe.compute.block2d import Blocks
from vfio_user_xe.device_models.xe.compute.groups import SLM_ADDRESS_MASK, GroupsInFlight
from vfio_user_xe.device_models.xe.compute.images import Images
from vfio_user_xe.device_models.xe.compute.memory import Flags, Numbers, numbers, parts
from vfio_user_xe.device_models.xe.compute.sampler import UnknownSample
from vfio_user_xe.device_models.xe.compute.surfaces import STATELESS, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import UnknownImage
from vfio_user_xe.device_models.xe.compute.units import Dispatched
from vfio_user_xe.device_models.xe.eu.messages import payload
from vfio_user_xe.device_models.xe.eu.messages.message import (
    FenceMessage,
    GatewayMessage,
    GatewayOp,
    LscMessage,
    LscOp,
    SamplerMessage,
    SurfaceKind,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid
from vfio_user_xe.device_models.xe.eu.port import Outcome, Reply, Request
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault

_LOADS = frozenset({LscOp.LOAD, LscOp.LOAD_QUAD})
_STORES = frozenset({LscOp.STORE, LscOp.STORE_QUAD, LscOp.STORE_UNCOMPRESSED, LscOp.STORE_UNCOMPRESSED_QUAD})
_REGISTER = 64


class Port:
    """The message port of the groups in flight of one walker."""

    def __init__(self, groups: GroupsInFlight, task: Dispatched) -> None:
        self.groups = groups
        self.faults: list[Fault] = []
        self._memory = task.memory
        self._surfaces = task.surfaces
        self._general = task.state.general
        self._report = task.report
        self._images = Images(task, self.faults_of)

    def faults_of(self, faults: list[Fault]) -> None:
        """Keep the faults of a message."""
        self.faults += faults

    def send(self, request: Request) -> Reply:
        """Serve one message of each of `request.threads` (`eu.port.MessagePort`)."""
        message = request.message
        try:
            match message:
                case GatewayMessage():
                    return self._gateway(request, message)
                case FenceMessage():
                    return self._nothing(request)
                case LscMessage(typed=True):
                    return self._images.load_store(request, message)
                case LscMessage() if message.op.is_block2d:
                    return self._blocks(request, message)
                case LscMessage():
                    return self._load_store(request, message)
                case SamplerMessage():
                    return self._images.sample(request, message)
        except (TranslationFault, AccessFault) as fault:
            # Of a descriptor, or of a page that went meanwhile: all of them ask again.
            self.faults.append(fault)
            return Reply(outcome=np.full(len(request.threads), Outcome.RETRY))
        except (UnknownImage, UnknownSample, payload.PayloadError) as unknown:
            return self._unserved(request, str(unknown))
        return self._unserved(request, type(message).__name__)

    def _gateway(self, request: Request, message: GatewayMessage) -> Reply:
        if message.op is GatewayOp.BARRIER:
            for thread, data in zip(request.threads.tolist(), request.payload, strict=True):
                self.groups.signal(thread, payload.barrier_signal(data))
        elif message.op is not GatewayOp.END_OF_THREAD:
            return self._unserved(request, f"gateway {message.op.name}")
        return self._nothing(request)

    def _unserved(self, request: Request, what: str) -> Reply:
        self._report(f"threads send {what} to {request.send.sfid.name}, which is not emulated: answered with zeros")
        return self._nothing(request)

    def _nothing(self, request: Request) -> Reply:
        length = request.message.response_length * _REGISTER
        return Reply(data=np.zeros((len(request.threads), length), dtype=np.uint8) if length else None)

    def _blocks(self, request: Request, message: LscMessage) -> Reply:
        """2-D blocks, one thread after the other."""
        outcome = np.full(len(request.threads), Outcome.DONE, dtype=np.int64)
        result = np.zeros((len(request.threads), message.response_length * _REGISTER), dtype=np.uint8)
        write = message.op is LscOp.STORE_BLOCK2D
        for index, data in enumerate(request.payload):
            blocks = Blocks(message, data)
            _, faults = self._memory.faults(blocks.addresses, blocks.size, write)
            if faults:
                self.faults += faults
                outcome[index] = Outcome.RETRY
            elif write:
                blocks.store(self._memory, data)
            else:
                result[index] = blocks.response(self._memory, result.shape[1])
        return Reply(data=result if message.response_length else None, outcome=outcome)

    # Loads, stores and atomics.

    def _load_store(self, request: Request, message: LscMessage) -> Reply:
        op = message.op
        if op not in _LOADS and op not in _STORES and op not in OPERATIONS:
            return self._unserved(request, op.name)
        if request.send.sfid is Sfid.URB:
            return self._unserved(request, op.name)
        offsets = payload.addresses(message, request.payload)
        if request.send.sfid is Sfid.SLM:
            offsets = offsets & np.uint64(SLM_ADDRESS_MASK)
        if message.transpose:
            offsets = offsets[:, :1]
        elements = offsets[:, None, :] + _component_offsets(message)[None, :, None]
        lanes = request.lanes[:, : elements.shape[2]]
        active = np.broadcast_to(lanes[:, None, :], elements.shape)
        if request.send.sfid is Sfid.SLM:
            return self._shared_local(request, message, elements, active)
        elements, active = self._place(request, message, elements, active)
        chosen, outcome = self._reachable(message, elements, active)
        data = self._access(
            message,
            _Part(request, chosen),
            lambda size, flat: self._memory.load(flat, size),
            lambda size, flat, values: self._memory.store(flat, values, size),
            lambda size, flat, operands: self._memory.atomic(OPERATIONS[op], flat, operands, size),
            elements[chosen],
            active[chosen],
        )
        if data is not None and len(data) != len(request.threads):
            whole = np.zeros((len(request.threads), data.shape[1]), dtype=np.uint8)
            whole[chosen] = data
            data = whole
        return Reply(data=data, outcome=outcome)

    def _place(self, request: Request, message: LscMessage, elements: Numbers, active: Flags) -> tuple[Numbers, Flags]:
        """Virtual addresses of elements, and those that are inside of their surface."""
        kind = message.surface.kind
        if kind is SurfaceKind.FLAT:
            return elements, active
        assert request.surface is not None  # where there is a surface, the request has it
        if kind is SurfaceKind.BTI and request.surface == STATELESS:
            return elements + np.uint64(self._general), active
        surface = self._surfaces.find(kind, request.surface)
        size = surface.bytes
        inside = active & (elements + np.uint64(message.data_bytes) <= np.uint64(size))
        if surface.type is SurfaceType.SCRATCH:
            slots = self.groups.scratch_slot(request.threads).astype(np.uint64)[:, None, None]
            inside = inside & (slots < np.uint64(surface.entries))
            return elements + np.uint64(surface.base) + slots * np.uint64(surface.pitch), inside
        return elements + np.uint64(surface.base), inside

    def _reachable(
        self, message: LscMessage, elements: Numbers, active: Flags
    ) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Which threads' elements are all there, and the outcome of all threads; None says all are."""
        write = message.op not in _LOADS
        bad, faults = self._memory.faults(elements[active], message.data_bytes, write)
        everyone = np.arange(len(elements))
        if not faults:
            return everyone, None
        self.faults += faults
        of_thread = np.broadcast_to(everyone[:, None, None], elements.shape)[active]
        outcome = np.full(len(elements), Outcome.DONE, dtype=np.int64)
        outcome[of_thread[bad]] = Outcome.RETRY
        return np.nonzero(outcome == Outcome.DONE)[0], outcome

    def _shared_local(self, request: Request, message: LscMessage, elements: Numbers, active: Flags) -> Reply:
        groups = self.groups
        inside = active & (elements + np.uint64(message.data_bytes) <= np.uint64(groups.slm_bytes))
        memory = groups.memory
        starts = groups.slm_start(request.threads).astype(np.uint64)[:, None, None]

        def load(size: int, flat: Numbers) -> Numbers:
            return numbers(memory[flat.astype(np.int64)[:, None] + np.arange(size)], size)

        def store(size: int, flat: Numbers, values: Numbers) -> None:
            memory[flat.astype(np.int64)[:, None] + np.arange(size)] = parts(values, size)

        def atomic(size: int, flat: Numbers, operands: list[list[int]]) -> list[int]:
            operation, cells = OPERATIONS[message.op], memory.data
            old = []
            for index, place in enumerate((flat & np.uint64(-size & (1 << 64) - 1)).tolist()):
                before = int.from_bytes(cells[place : place + size], "little")
                after = operation(before, operands[0][index], operands[1][index], size)
                cells[place : place + size] = after.to_bytes(size, "little")
                old.append(before)
            return old

        everyone = np.arange(len(request.threads))
        data = self._access(message, _Part(request, everyone), load, store, atomic, elements + starts, inside)
        return Reply(data=data)

    def _access(
        self,
        message: LscMessage,
        part: _Part,
        load: Callable[[int, Numbers], Numbers],
        store: Callable[[int, Numbers, Numbers], None],
        atomic: Callable[[int, Numbers, list[list[int]]], list[int]],
        elements: Numbers,
        active: Flags,
    ) -> NDArray[np.uint8] | None:
        """Do what the message says with its active elements; the response, if there is one."""
        size, op = message.data_bytes, message.op
        flat = elements[active]
        values: Numbers | None = None
        if op in _LOADS:
            if message.response_length:
                values = np.zeros(elements.shape, dtype=np.uint64)
                values[active] = load(size, flat)
        elif op in _STORES:
            store(size, flat, payload.data(message, part.payload)[active])
        else:
            count = OPERANDS.get(op, 1)
            operands = [
                payload.data(message, part.payload, index)[active].tolist() if index < count else [0] * len(flat)
                for index in range(2)
            ]
            old = atomic(size, flat, operands)
            if message.response_length:
                values = np.zeros(elements.shape, dtype=np.uint64)
                values[active] = np.array(old, dtype=np.uint64)
        if values is None:
            return self._nothing(part.request).data
        return payload.response(message, values)


class _Part:
    """Some threads of a request."""

    def __init__(self, request: Request, chosen: NDArray[np.int64]) -> None:
        if len(chosen) != len(request.threads):
            request = replace(
                request,
                threads=request.threads[chosen],
                lanes=request.lanes[chosen],
                payload=request.payload[chosen],
            )
        self.request = request
        self.payload = request.payload


def _component_offsets(message: LscMessage) -> Numbers:
    """Bytes from a lane's address to each component."""
    return np.array(message.components, dtype=np.uint64) * np.uint64(message.data_bytes)
