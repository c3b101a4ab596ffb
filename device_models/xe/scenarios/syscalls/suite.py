"""The suite `syscalls`: one scenario of usual calls, and the exploration of all others."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.defects import DEFECTS, REPORTS
from vfio_user_xe.device_models.xe.scenarios.lateness import LOST, lately
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine, account
from vfio_user_xe.device_models.xe.scenarios.setups import USUAL
from vfio_user_xe.device_models.xe.scenarios.syscalls.player import CallPlayer
from vfio_user_xe.device_models.xe.scenarios.syscalls.world import Calls
from vfio_user_xe.device_models.xe.scenarios.times import recorded
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import with_clients
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import checked
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Exploration, Scenario, Suite

USUAL_CALLS = (
    "a vm-create s0 to=s4",
    "a gem-create s0 size=0x10000 placement=0x2 caching=0x2 to=s12",
    "a mmap-offset s0 handle=s12",
    "a syncobj-create s0 to=s18",
    "a vm-bind s0 vm=s4 num_binds=1 bind.obj=s12 bind.pat=0 bind.range=0x10000 bind.addr=0x100000"
    " num_syncs=1 syncs=@2 syncs.handle=s18 syncs.flags=1",
    "a batch 0x0",
    "a vm-bind s0 vm=s4 num_binds=1 bind.op=2 bind.offset=0x7e0000008000 bind.pat=1 bind.range=0x1000 bind.addr=0x200000",
    "a queue-create s0 vm=s4 width=1 placements=1 instances=@3 instances.class=1 to=s8",
    "a exec s0 queue=s8 address=0x200000 batches=1 num_syncs=1 syncs=@2 syncs.handle=s18 syncs.flags=1",
    "a prime-export s0 handle=s12 flags=0x80002 to=s22",
    "a sync s22 flags=3",
    "a export-fence s22 flags=1 to=s26",
    "a prime-import s1 fd=s22 to=s13",
    "a vf-export s23",
    "a query s0 query=2",
    "a gem-close s1 handle=s13",
    "a close s22",
    "a queue-destroy s0 queue=s8",
    "a vm-destroy s0 vm=s4",
)
"""What every user of the driver does; each answers 0."""


def _usual(run: Run, machine: XeMachine) -> None:
    steps = [Step.of(line) for line in USUAL_CALLS]
    checked(Calls(), steps)
    player = CallPlayer(run, machine, ignore={})
    for step in steps:
        with run.step(str(step)):
            found = player.play(step)
        run.check(not found, "; ".join(failure.text for failure in found))
        run.check(player.answers[-1].errno == "0", f"{step}: {player.answers[-1]}")
    left = player.finish()
    run.check(not left, "; ".join(failure.text for failure in left))


SYSCALLS = Suite(
    "syscalls",
    (Scenario("1", "usual-calls", "what every user of the driver does", "every call answers 0", USUAL, _usual),),
    DEFECTS,
    with_clients,
    account,
    REPORTS,
    late=lately,
    fatal=rf"device wedged|{LOST}",
    exploration=Exploration(USUAL, Calls, CallPlayer),
    times=recorded("syscalls"),
)
"""Calls of xe, DRM and dma-bufs, one by one and with arguments from a grammar."""
