"""Dispatch of compute: state, walkers, thread groups, and the memory that their messages reach.

    engines = Engines(gt, listener, COMMANDS)

`COMMANDS` is what the command streamers execute of the compute pipeline, by the commands' names.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.compute import state, walker
from vfio_user_xe.device_models.xe.engines.command_streamer import Handler

__all__ = ["COMMANDS"]

COMMANDS: dict[str, Handler] = {
    "STATE_BASE_ADDRESS": state.state_base_address,
    "STATE_SIP": state.keep,
    "STATE_COMPUTE_MODE": state.keep,
    "CFE_STATE": state.keep,
    "3DSTATE_BINDING_TABLE_POOL_ALLOC": state.keep,
    "COMPUTE_WALKER": walker.compute_walker,
    "EXECUTE_INDIRECT_DISPATCH": walker.execute_indirect_dispatch,
}
