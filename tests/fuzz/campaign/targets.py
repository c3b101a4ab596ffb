"""All targets by name."""

from __future__ import annotations

from tests.fuzz.campaign.file_targets import CardFiles, Recordings
from tests.fuzz.campaign.lab_targets import CommandStreams, CompiledKernels, Kernels
from tests.fuzz.campaign.rig_targets import Contexts, GucMessages, Klvs, PageTables
from tests.fuzz.campaign.socket_targets import ControlSocket, Exports
from tests.fuzz.campaign.target import Target
from tests.fuzz.campaign.wire_target import Wire

TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (
        Wire,
        GucMessages,
        Klvs,
        Contexts,
        PageTables,
        CommandStreams,
        Kernels,
        CompiledKernels,
        CardFiles,
        Recordings,
        ControlSocket,
        Exports,
    )
}
