"""What drivers' compilers make often: it has handlers, of the fewest ops, and gives what the interpreter gives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.xe.eu.compiled_rig import check_compiled
from vfio_user_xe.device_models.xe.eu.ir import Alu

KEEP = 0x4C0
"""Of cr0.0: denormals are kept."""

# Intel's compiler makes these of clamp and of min and max between 0 and 1.
SATURATED_CHOICES = """
sel (32|M0) (ge)f0.0   (sat)r20.0<1>:f   r12.0<1;1,0>:f   r14.0<1;1,0>:f
sel (16|M0) (lt)f0.0   (sat)r20.0<2>:f   r12.0<1;1,0>:f   r14.0<0;1,0>:f
sel (16|M0) (ge)f0.0   (sat)r20.0<1>:df  -r12.0<1;1,0>:df  r14.0<1;1,0>:df
(f0.0) sel (32|M0)     (sat)r20.0<1>:f   r12.0<1;1,0>:f   (abs)r14.0<1;1,0>:f
(~f0.0) sel (16|M0)    (sat)r20.0<1>:f   r12.0<1;1,0>:f   0x3f000000:f
(f0.0) sel (1|M0)      (sat)r20.0<1>:f   r12.0<0;1,0>:f   r14.0<0;1,0>:f
csel (16|M0) (ge)f0.0  (sat)r20.0<1>:f   r12.0<1;1,0>:f   r14.0<1;1,0>:f   r16.0<1;1,0>:f
"""


@pytest.mark.parametrize("cr0", [KEEP, 0x400], ids=["denormals", "flushed"])
def test_choices_that_saturate_are_compiled(cr0: int) -> None:
    random = np.random.default_rng(cr0)

    def about_one(instruction: Alu, seed: int) -> NDArray[np.float32]:
        """Below, between and above 0 and 1, denormals, infinities, and no numbers."""
        values = random.uniform(-0.5, 1.5, 192).astype(np.float32)
        special = np.array([0, -0.0, 1, 1e-40, -1e-40, np.inf, -np.inf, np.nan], np.float32)
        return np.where(random.random(192) < 0.4, random.choice(special, 192), values).astype(np.float32)

    lines = SATURATED_CHOICES.strip().splitlines()
    check_compiled("\n".join(lines if cr0 == KEEP else lines[:-1]), cr0, about_one)


# Intel's compiler makes these of fmin, fmax, fabs, and unary minus of halves.
HALVES = """
sel (32|M0) (lt)f0.0   r20.0<1>:hf   r12.0<1;1,0>:hf   r14.0<1;1,0>:hf
sel (16|M0) (ge)f0.0   r20.0<1>:hf   -r12.0<1;1,0>:hf  r14.0<0;1,0>:hf
sel (16|M0) (lt)f0.0   r20.0<2>:hf   r12.0<1;1,0>:hf   0x3c00:hf
sel (1|M0) (ge)f0.0    r20.0<1>:hf   r12.0<0;1,0>:hf   r14.0<0;1,0>:hf
sel (16|M0) (ge)f0.0   r20.0<1>:bf   r12.0<1;1,0>:bf   (abs)r14.0<1;1,0>:bf
sel (16|M0) (lt)f0.0   r20.0<2>:f    r12.0<1;1,0>:f    r14.0<1;1,0>:f
sel (32|M0) (ge)f0.0   (sat)r20.0<1>:hf   r12.0<1;1,0>:hf   r14.0<1;1,0>:hf
(f0.0) sel (16|M0)     (sat)r20.0<1>:hf   r12.0<1;1,0>:hf   r14.0<1;1,0>:hf
csel (16|M0) (ge)f0.0  r20.0<1>:hf   r12.0<1;1,0>:hf   r14.0<1;1,0>:hf   r16.0<1;1,0>:hf
csel (16|M0) (lt)f0.0  r20.0<2>:f    r12.0<1;1,0>:f    r14.0<1;1,0>:f    -r16.0<1;1,0>:f
csel (16|M0) (ge)f0.0  r20.0<1>:hf   -r12.0<1;1,0>:hf  (abs)r14.0<1;1,0>:hf   r16.0<1;1,0>:hf
csel (16|M0) (lt)f0.0  r20.0<2>:f    r12.0<1;1,0>:f    -(abs)r14.0<1;1,0>:f   r16.0<1;1,0>:f
(f0.0) sel (32|M0)     r20.0<1>:hf   -r12.0<1;1,0>:hf  r14.0<1;1,0>:hf
(~f0.0) sel (16|M0)    r20.0<2>:hf   r12.0<1;1,0>:hf   -(abs)r14.0<0;1,0>:hf
(f0.0) sel (16|M0)     r20.0<1>:hf   (abs)r12.0<2;1,0>:hf   0xbc00:hf
(f0.0) sel (1|M0)      r20.0<1>:hf   -r12.0<0;1,0>:hf  r14.0<0;1,0>:hf
(f0.0) sel (16|M0)     r20.0<1>:bf   r12.0<1;1,0>:bf   (abs)r14.0<1;1,0>:bf
(f0.0) sel (16|M0)     r20.0<2>:f    -r12.0<1;1,0>:f   r14.0<1;1,0>:f
(f0.0) sel (8|M0)      r20.0<2>:df   -r12.0<1;1,0>:df  r14.0<1;1,0>:df
mov (32|M0)            r20.0<1>:hf   -r12.0<1;1,0>:hf
mov (16|M0)            r20.0<2>:hf   (abs)r12.0<2;1,0>:hf
mov (16|M0)            r20.0<1>:bf   -(abs)r12.0<1;1,0>:bf
mov (16|M0)            r20.0<2>:f    -r12.0<1;1,0>:f
"""


@pytest.mark.parametrize("cr0", [KEEP, 0x400], ids=["denormals", "flushed but of halves"])
@pytest.mark.parametrize("seed", range(4))
def test_choices_and_signs_of_halves_are_compiled(seed: int, cr0: int) -> None:
    def any_bits(instruction: Alu, number: int) -> NDArray[np.float32]:
        """Halves of every kind: small ones, denormals, infinities, and no numbers."""
        random = np.random.default_rng((seed, number))
        special = np.array([0, 0x8000, 1, 0x8001, 0x3C00, 0x7C00, 0xFC00, 0x7E00, 0xFE01, 0x7D00], np.uint16)
        values = random.integers(0, 1 << 16, 384).astype(np.uint16)
        return (
            np.where(random.random(384) < 0.4, random.choice(special, 384), values).astype(np.uint16).view(np.float32)
        )

    lines = HALVES.strip().splitlines()
    if cr0 != KEEP:  # choices that are interpreted where denormals are flushed
        lines = [line for line in lines if ":bf" not in line and not line.startswith("csel")]
    check_compiled("\n".join(lines), cr0, any_bits)


# Intel's compiler makes these of quotients and roots of numbers that all lanes share, where it does not jump over them.
MACROS = """
madm (8|M0)          r20.mme0:df   r12.nomme:df  r14.mme2:df   r16.mme3:df
madm (16|M0)         r20.mme1:df   r12.mme0:df   -r14.mme2:df  r16.nomme:df
(~f0.0) madm (16|M0) r20.mme1:f    r12.mme0:f    r14.mme2:f    -r16.mme3:f
madm (1|M0)          r20.mme1:f    r12.nomme:f   r14.mme2:f    r16.mme3:f
"""


@pytest.mark.parametrize("cr0", [KEEP, 0x400], ids=["denormals", "flushed"])
def test_steps_of_quotients_are_compiled(cr0: int) -> None:
    def of_the_type(instruction: Alu, number: int) -> NDArray[np.float32]:
        random = np.random.default_rng((cr0, number))
        values = random.standard_normal(192) * 2.0 ** random.integers(-40, 40, 192)
        if instruction.destination.type.size == 8:
            return values[:96].view(np.float32)
        return values.astype(np.float32)

    check_compiled(MACROS.strip(), cr0, of_the_type)
