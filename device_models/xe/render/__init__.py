"""The 3-D pipeline: state, vertex fetch, shader stages, rasteriser, tests and render targets, a file a fixed function.

    engines = Engines(gt, listener, {**compute.COMMANDS, **render.COMMANDS})

`COMMANDS` is what the command streamers execute of the pipeline, by the commands' names.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines.command_streamer import Handler
from vfio_user_xe.device_models.xe.engines.render_commands import RENDER_COMMANDS
from vfio_user_xe.device_models.xe.render import hz_op, indirect, primitive, state, stream_out

__all__ = ["COMMANDS"]

_MERGED: dict[str, Handler] = {
    "3DSTATE_VERTEX_BUFFERS": state.vertex_buffers,
    "3DSTATE_VF_INSTANCING": state.vf_instancing,
    "3DSTATE_CONSTANT_ALL": state.constant_all,
    "3DSTATE_CONSTANT_VS": state.constant_stage,
    "3DSTATE_CONSTANT_HS": state.constant_stage,
    "3DSTATE_CONSTANT_DS": state.constant_stage,
    "3DSTATE_CONSTANT_GS": state.constant_stage,
    "3DSTATE_CONSTANT_PS": state.constant_stage,
    "3DSTATE_WM_DEPTH_STENCIL": state.wm_depth_stencil,
    "3DSTATE_DRAWING_RECTANGLE": state.drawing_rectangle,
    "3DSTATE_DRAWING_RECTANGLE_FAST": state.drawing_rectangle,
    "3DSTATE_WM_HZ_OP": hz_op.wm_hz_op,
    **{f"3DSTATE_SO_BUFFER_INDEX_{number}": stream_out.so_buffer for number in range(stream_out.BUFFERS)},
    "3DPRIMITIVE": primitive.primitive,
    "3DMESH_1D": primitive.mesh_1d,
    "3DMESH_3D": primitive.mesh_3d,
    "EXECUTE_INDIRECT_DRAW": indirect.execute_indirect_draw,
}
"""Commands that do more than to replace the state of their name."""

COMMANDS: dict[str, Handler] = {
    command.name: _MERGED.get(command.name, state.keep) for command in RENDER_COMMANDS if command.pipeline
}
