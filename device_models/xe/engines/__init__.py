"""The engines: command streamers with their contexts, blitters, and the scheduler (`Engines`, one for each GT).

    engines = Engines(gt, listener)
    context = Context(function, guc_id, engine_class, logical_mask, [lrc descriptor])
    engines.register(context)
    engines.enable(context)         # runs what is between RING_HEAD and RING_TAIL
    engines.kick(context)           # RING_TAIL has moved on
    engines.disable(context, done)  # preempt, save, then done()
    engines.remove(context)

Everything is called, and calls back, on the card's executor.
"""

from __future__ import annotations

from device_models.xe.address_space import Fault
from device_models.xe.engines.context import Context, EngineListener
from device_models.xe.engines.engine import Engine
from device_models.xe.engines.engines import Engines

__all__ = ["Context", "Engine", "EngineListener", "Engines", "Fault"]
