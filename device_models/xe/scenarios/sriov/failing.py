"""Scenario 29: each part of xe's probe fails once."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.device_models.xe.scenarios.fail_function import MESSAGE, FailFunction
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.kernel_reports import Kind, reports
from vfio_user_xe.emulator.scenarios.run import Run

_PROBE = 180
_GTS = 2
_MESSAGES = 4
"""Functions say each error once on its way up, for each GT."""

_LEAK = {"xe_exec_queue_create"}
"""After these a known defect is reported (`defects.PROBE_LEAK`); a report after another function is something else."""


def _binds(run: Run, machine: SriovMachine, what: str) -> bool:
    pf = machine.card.pf
    binding = Background(machine, f"echo {pf} > /sys/bus/pci/drivers/xe/bind")
    if not binding.ended(_PROBE):
        s.stuck(run, machine, f"binding does not end: {what}")
    return machine.driver(pf) == "xe"


@scenario(
    "29",
    "each function that xe's probe of the PF calls, and that the kernel can let fail, fails once",
    "binding fails and leaves nothing behind, without a report; afterwards the PF and VFs work",
    groups=("fault-injection",),
)
def probe_fails_everywhere(run: Run, machine: SriovMachine) -> None:
    faults = FailFunction(run, machine)
    run.excuse(
        Kind.DRM, "xe says which part of it failed", pattern=MESSAGE, count=2 * _GTS * _MESSAGES * len(faults.functions)
    )
    run.excuse(
        Kind.DRM,
        "a probe that fails before xe has enabled its GuC's messages: xe_guc_rc_fini_hw() sends it one all the same",
        message="GuC RC setup HOST_CONTROL(0) failed (-19)",
        count=_GTS * len(faults.functions),
    )
    machine.unbind(machine.card.pf)
    with faults.counted() as calls:
        run.check(_binds(run, machine, "nothing fails"), "xe cannot be bound again")
    machine.unbind(machine.card.pf)
    called = [function for function in faults.functions if calls.get(function)]
    run.fact("calls of each function in one probe", calls)
    outcomes, said = {}, {}
    for function in called:
        with faults.failing(function) as possible, run.step(f"{function} fails"):
            if not possible:
                outcomes[function] = "the kernel does not let it fail"
                continue
            bound = _binds(run, machine, f"{function} fails")
            if not faults.has_failed():
                run.check(bound, f"binding fails, and {function}, which was to fail, has not been called")
                outcomes[function] = "not called"
            else:
                outcomes[function] = "bound all the same" if bound else "refused"
        if bound:
            machine.unbind(machine.card.pf)
        # Warnings that come once a boot come for each function.
        machine.run("echo 1 > /sys/kernel/debug/clear_warn_once")
        if found := [str(report) for report in reports(run.read_kernel_log()) if report.kind is not Kind.DRM]:
            said[function] = found
    run.evidence("with a function failing", outcomes)
    run.evidence("reports after it failed", said)
    run.check(set(said) <= _LEAK, f"the kernel reported after functions failed: {said}")
    run.check("refused" in outcomes.values(), f"no failing function reached the user: {outcomes}")
    machine.bind(machine.card.pf)
    s.work(run, machine, machine.card.pf, *machine.enable(2))
