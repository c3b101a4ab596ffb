"""Forms of the sampler's messages: which parameters there are, in which order, and what is packed together."""

from __future__ import annotations

from dataclasses import dataclass

from vfio_user_xe.device_models.xe.eu.messages.message import SamplerOp


@dataclass(frozen=True, slots=True)
class Form:
    """A message's parameters by name, in their order, as Mesa's `brw_sampler.c` and `brw_nir_lower_texture.c` have them.

    `lod`, `bias`: level of detail, or what is added to it; `mlod`: its least; `ref`: what texels are compared with; `dudx` and its like:
    slopes. `off`: offsets in texels, of four or six bits each, of `u`, `v` and `r`, u lowest; where `lod` or `bias` is in the same
    parameter, they are its lowest bits; where `r` is, that is an integer in bits 11:0 below them.
    """

    parameters: str
    zero: bool = False
    """Level 0."""
    gathers: bool = False
    implicit: bool = False
    """A gather whose level of detail is computed; others take the first level."""

    @property
    def names(self) -> list[str]:
        """The parameters."""
        return self.parameters.split()

    @property
    def takes_level(self) -> bool:
        """The message says the level of detail itself."""
        return self._takes("lod")

    @property
    def takes_bias(self) -> bool:
        """The message says what is added to the level of detail."""
        return self._takes("bias")

    @property
    def is_first_level(self) -> bool:
        """The message is about level 0, whatever the sampler state says."""
        return self.zero or (self.gathers and not self.implicit and not self.takes_level and not self.takes_bias)

    def _takes(self, name: str) -> bool:
        """Alone, or packed with offsets."""
        return any(one == name or one.startswith(f"{name}_") for one in self.names)


FORMS: dict[SamplerOp, Form] = {
    SamplerOp.SAMPLE: Form("u v r ai mlod"),
    SamplerOp.SAMPLE_B: Form("bias u v r mlod"),
    SamplerOp.SAMPLE_L: Form("lod u v r"),
    SamplerOp.SAMPLE_C: Form("ref u v r ai mlod"),
    SamplerOp.SAMPLE_D: Form("u dudx dudy v dvdx dvdy r mlod"),
    SamplerOp.SAMPLE_B_C: Form("ref bias u v r ai"),
    SamplerOp.SAMPLE_L_C: Form("ref lod u v r ai"),
    SamplerOp.SAMPLE_D_C: Form("ref u dudx dudy v dvdx dvdy r"),
    SamplerOp.SAMPLE_LZ: Form("u v r ai", zero=True),
    SamplerOp.SAMPLE_C_LZ: Form("ref u v r ai", zero=True),
    SamplerOp.SAMPLE_MLOD: Form("mlod u v r ai"),
    SamplerOp.SAMPLE_C_MLOD: Form("mlod ref u v r ai"),
    SamplerOp.SAMPLE_PO: Form("u v r offuvr4 mlod"),
    SamplerOp.SAMPLE_PO_B: Form("bias_offuvr4 u v r mlod"),
    SamplerOp.SAMPLE_PO_L: Form("lod_offuvr4 u v r"),
    SamplerOp.SAMPLE_PO_C: Form("ref u v offuv4_r mlod"),
    SamplerOp.SAMPLE_PO_D: Form("u dudx dudy v dvdx dvdy offuvr4_r mlod"),
    SamplerOp.SAMPLE_PO_L_C: Form("ref lod_offuvr4 u v r"),
    SamplerOp.SAMPLE_PO_LZ: Form("u v r offuvr4", zero=True),
    SamplerOp.SAMPLE_PO_C_LZ: Form("ref u v offuv4_r", zero=True),
    SamplerOp.LOD: Form("u v r ai"),
    SamplerOp.GATHER4: Form("u v r ai", gathers=True),
    SamplerOp.GATHER4_C: Form("ref u v r ai", gathers=True),
    SamplerOp.GATHER4_L: Form("lod u v r ai", gathers=True),
    SamplerOp.GATHER4_B: Form("bias u v r ai", gathers=True, implicit=True),
    SamplerOp.GATHER4_I: Form("u v r ai", gathers=True, implicit=True),
    SamplerOp.GATHER4_I_C: Form("ref u v r ai", gathers=True, implicit=True),
    SamplerOp.GATHER4_L_C: Form("ref lod u v r ai", gathers=True),
    SamplerOp.GATHER4_PO: Form("u v offuv6 r", gathers=True),
    SamplerOp.GATHER4_PO_C: Form("ref u v offuv6_r", gathers=True),
    SamplerOp.GATHER4_PO_B: Form("bias_offuv6 u v r", gathers=True, implicit=True),
    SamplerOp.GATHER4_PO_L: Form("lod_offuv6 u v r", gathers=True),
    SamplerOp.GATHER4_PO_I: Form("u v r offuv6", gathers=True, implicit=True),
    SamplerOp.GATHER4_PO_I_C: Form("ref u v offuv6_r", gathers=True, implicit=True),
    SamplerOp.GATHER4_PO_L_C: Form("ref lod_offuv6 u v r", gathers=True),
}
PACKED_CUBES = frozenset({SamplerOp.SAMPLE_B, SamplerOp.SAMPLE_L, SamplerOp.SAMPLE_B_C, SamplerOp.SAMPLE_L_C})
"""Messages that have the array index of cubes in the lowest bits of the level or bias."""
