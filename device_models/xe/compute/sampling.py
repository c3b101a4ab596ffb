"""The tables of textures and sampler states that the sampler's handlers look into (`eu/compiled/runtime/sampler.h`)."""

from __future__ import annotations

import ctypes

from vfio_user_xe.device_models.xe.compute.compiled_images import sampler_struct, texture_struct, typed_struct
from vfio_user_xe.device_models.xe.compute.filtering import Mips
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.sampler_state import Reduction, SamplerState
from vfio_user_xe.device_models.xe.compute.state import ComputeState
from vfio_user_xe.device_models.xe.compute.surfaces import Surfaces
from vfio_user_xe.device_models.xe.compute.texels import Image, UnknownImage
from vfio_user_xe.device_models.xe.eu.compiled.draw_layout import SamplerStruct, SamplingStruct, TextureStruct
from vfio_user_xe.device_models.xe.eu.compiled.typed_messages import TYPED_KEY
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind

_TEXTURES, _SAMPLERS = 48, 24
_KIND = {kind.value: kind for kind in SurfaceKind}


class Sampling:
    """The textures and sampler states that threads of a draw or a walk have named.

    Used on the card's executor while no thread of them runs, but for `address`, which compiled code reads.
    """

    def __init__(self, memory: UnitMemory, surfaces: Surfaces, state: ComputeState, stage: int) -> None:
        """`stage`: offset of the stage's sampler states from dynamic state base, in bytes."""
        self._memory = memory
        self._surfaces = surfaces
        self._dynamic = state.dynamic
        self._textures = (TextureStruct * _TEXTURES)()
        self._samplers = (SamplerStruct * _SAMPLERS)()
        self.first = state.dynamic + stage
        """Where the stage's sampler states begin."""
        self._struct = SamplingStruct(
            textures=ctypes.addressof(self._textures),
            samplers=ctypes.addressof(self._samplers),
            stage=self.first,
            dynamic=state.dynamic,
            bindless=state.bindless_sampler,
        )
        self.address = ctypes.addressof(self._struct)
        """Of the `struct sampling`."""

    def texture(self, key: int) -> bool:
        """Enter the surface of a key (`messages.surface_key`, `TYPED_KEY`); False: compiled code has nothing for it.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        count = self._struct.texture_count
        if any(self._textures[number].key == key for number in range(count)):
            return True
        surface = self._surfaces.find(_KIND[key >> 32 & 3], key & 0xFFFF_FFFF)
        if count == _TEXTURES:
            return False
        try:
            if key & TYPED_KEY:
                self._textures[count] = typed_struct(key, Image(self._memory, surface, surface.typed_level))
            else:
                self._textures[count] = texture_struct(key, Mips(self._memory, surface))
        except UnknownImage:
            return False
        self._struct.texture_count = count + 1
        return True

    def sampler(self, address: int) -> bool:
        """Enter the sampler state at an address; False: compiled code does not have it.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        count = self._struct.sampler_count
        if any(self._samplers[number].key == address for number in range(count)):
            return True
        state = SamplerState.of(self._memory, address, self._dynamic)
        if count == _SAMPLERS or state.reduction is not Reduction.STANDARD:
            return False
        self._samplers[count] = sampler_struct(address, state)
        self._struct.sampler_count = count + 1
        return True
