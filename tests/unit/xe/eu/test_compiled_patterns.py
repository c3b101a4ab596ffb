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
