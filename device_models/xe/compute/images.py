"""Image messages of threads: typed loads and stores, 2-D blocks, the sampler."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import sampler, typed
from vfio_user_xe.device_models.xe.compute.atomics import OPERATIONS
from vfio_user_xe.device_models.xe.compute.filtering import Mips
from vfio_user_xe.device_models.xe.compute.sampler_state import SamplerState
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState
from vfio_user_xe.device_models.xe.compute.texels import UnknownImage
from vfio_user_xe.device_models.xe.compute.units import Dispatched
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage, LscOp, SamplerMessage, SurfaceKind
from vfio_user_xe.device_models.xe.eu.port import Outcome, Reply, Request
from vfio_user_xe.device_models.xe.memory.address_space import Fault

_REGISTER = 64


class Images:
    """Serves what reaches images.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """

    def __init__(self, task: Dispatched, faults: Callable[[list[Fault]], None]) -> None:
        """`faults` keeps those of texels."""
        self._memory = task.memory
        self._surfaces = task.surfaces
        self._state = task.state
        self._stage = task.sampler_state
        self._faults = faults

    def load_store(self, request: Request, message: LscMessage) -> Reply:
        """A typed message.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
            UnknownImage: the message, or the surface's format or layout, is not emulated.
        """
        surface = self._surface(request)
        if message.op.is_block2d:
            return self._blocks(request, message, surface)
        if message.op not in typed.LOADS | typed.STORES | OPERATIONS.keys():
            raise UnknownImage(f"typed {message.op.name}")
        access = typed.TexelAccess(self._memory, surface, message, request.payload, request.lanes)
        everyone = np.arange(len(request.threads))
        places = access.addresses[access.active]
        bad, faults = self._memory.faults(places, 1, access.is_write)
        if not faults:
            return Reply(data=access.run(everyone))
        self._faults(faults)
        owner = np.broadcast_to(everyone[:, None], access.active.shape)[access.active]
        outcome = np.full(len(everyone), Outcome.DONE, dtype=np.int64)
        outcome[owner[bad]] = Outcome.RETRY
        chosen = np.nonzero(outcome == Outcome.DONE)[0]
        return Reply(data=_spread(access.run(chosen), chosen, len(everyone)), outcome=outcome)

    def sample(self, request: Request, message: SamplerMessage) -> Reply:
        """A sampler message.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
            UnknownImage: the surface's format or layout is not emulated.
            UnknownSample: the message is not emulated.
        """
        mips = Mips(self._memory, self._surface(request))
        result = np.zeros((len(request.threads), message.response_length * _REGISTER), dtype=np.uint8)
        state = self._state
        places = np.zeros(len(request.threads), dtype=np.int64)
        if sampler.needs_state(message):
            places = sampler.addresses(message, request.payload, self._stage, state.bindless_sampler, state.dynamic)
        for address in np.unique(places).tolist():
            threads = np.nonzero(places == address)[0]
            how = None
            if sampler.needs_state(message):
                how = SamplerState.of(self._memory, address, state.dynamic)
            result[threads] = sampler.sample(
                message, mips, how, request.payload[threads], request.lanes[threads, : message.width]
            )
        return Reply(data=result if message.response_length else None)

    def _blocks(self, request: Request, message: LscMessage, surface: SurfaceState) -> Reply:
        result = np.zeros((len(request.threads), message.response_length * _REGISTER), dtype=np.uint8)
        for index, data in enumerate(request.payload):
            block = typed.Block(self._memory, surface, data)
            if message.op is LscOp.STORE_BLOCK2D:
                block.store()
            else:
                result[index] = block.load(result.shape[1])
        return Reply(data=result if message.response_length else None)

    def _surface(self, request: Request) -> SurfaceState:
        kind = request.message.surface.kind
        if kind is SurfaceKind.FLAT or request.surface is None:
            raise UnknownImage("an image message without a surface")
        return self._surfaces.find(kind, request.surface)


def _spread(data: NDArray[np.uint8] | None, chosen: NDArray[np.int64], count: int) -> NDArray[np.uint8] | None:
    """Responses of some threads among those of all."""
    if data is None:
        return None
    whole = np.zeros((count, data.shape[1]), dtype=np.uint8)
    whole[chosen] = data
    return whole
