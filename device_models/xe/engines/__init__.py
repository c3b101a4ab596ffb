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

from vfio_user_xe.device_models.xe.engines.context import Context, EngineListener
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.engines import Engines
from vfio_user_xe.device_models.xe.memory.address_space import Fault

__all__ = ["Context", "Engine", "EngineListener", "Engines", "Fault"]
