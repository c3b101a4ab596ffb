"""The machines that the dma-buf scenarios run on: where the card is plugged in, which CPU, and what the IOMMU does."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.card import CPU, MODULES
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.emulator.guest.settings import GuestSettings
from vfio_user_xe.emulator.scenarios.scenario import Setup

_KUNIT_SUITES = ("*dma*buf*kunit*", "*dma*buf*test*", "*kunit*dma*buf*", "*test*dma*buf*")
"""Modules with KUnit suites for dma-bufs, whatever a kernel calls them."""

PATIENT = "rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60"
"""For kernels under TCG, on a host that others use too: a processor may get no time for longer than the usual 20 s."""


def guest(
    append: str = "iommu=pt", cpu: str | None = CPU, *, root_bus: bool = False, memory: int = 1536
) -> GuestSettings:
    """What each of these guests has."""
    return {
        "modules": (*MODULES, "vgem?", "xe-vfio-pci?", "kunit?", *_KUNIT_SUITES),
        "memory": memory,
        "cpu": cpu,
        "iommu": True,
        "append": f"{append} {PATIENT}",
        "root_bus": root_bus,
    }


SERVE = ("--vfs", "2", "--set", "vram=2GiB")
"""Little VRAM: every time that a VF is opened or closed xe clears all of its share, and suspending saves it to RAM.
(Of less xe gives VFs nothing: it shares out whole GiB, `xe_gt_sriov_pf_config.c:pf_profile_fair_lmem`.)"""
USUAL = Setup("root port, AMD, pass-through", SERVE, guest(), XeMachine.of)
TRANSLATING = Setup("root port, AMD, translating", SERVE, guest("iommu=nopt"), XeMachine.of)
SLOW_CLEAR = Setup(
    "root port, AMD, pass-through, slow clearing",
    (
        *SERVE,
        *("--interconnect", "delay:inner=iov,initiator=pf,kind=kernel vram,latency_us=8000"),
        *("--interconnect", "p2p", "--interconnect", "host_dma"),
    ),
    guest(),
    XeMachine.of_small_shares,
)
"""The PF's driver needs seconds to clear a VF's memory, as it does on a card with much of it."""
TWO_CARDS = Setup(
    "two cards, AMD, pass-through", SERVE, guest(), XeMachine.of, others=(("--vfs", "1", "--set", "vram=2GiB"),)
)
ROOT_BUS = Setup("root bus, AMD, pass-through", SERVE, guest(root_bus=True), XeMachine.on_the_root_bus)
NOT_LISTED = Setup("root port, Intel, pass-through", SERVE, guest(cpu=None), XeMachine.of)
_LARGE = ("--vfs", "2", "--set", "vram=28GiB", "--set", "vf_bar2=8GiB")
"""The first VF's share is more than the guest has memory, and that is more than 6 GiB: imports of these count as if they used it
(`xe_ttm_sys_mgr.c:xe_ttm_sys_mgr_init`), and KASAN has an eighth of it. Nothing of it costs the host memory before it is written."""
LARGE = Setup("VFs with 8 GiB, AMD, pass-through", _LARGE, guest(memory=7936), XeMachine.of)
LARGE_TRANSLATING = Setup("VFs with 8 GiB, AMD, translating", _LARGE, guest("iommu=nopt", memory=7936), XeMachine.of)
