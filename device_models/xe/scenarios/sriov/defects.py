"""Defects that the suite `sriov` knows by name: of released kernels, and of QEMU where a scenario meets it."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.defects import DEFECTS as OF_DMABUFS
from vfio_user_xe.device_models.xe.scenarios.defects import POOL_LEAK, RESCAN_LOCK, RESET_GIVEN_UP, RESET_LOST
from vfio_user_xe.device_models.xe.scenarios.defects import REPORTS as OF_KERNELS
from vfio_user_xe.device_models.xe.scenarios.stacks import GUESSES, OF_PCI_IOV, OF_UNBINDING, OF_XE, frame, frames

REMOVAL_DEADLOCK = "pf-removal-takes-the-rescan-lock-twice"
NUMVFS_DEADLOCK = "numvfs-and-removal-block-each-other"
LATE_INVALIDATION = "lmtt-invalidated-after-the-guc"
SILENT_VF = "vf-driver-leaves-without-telling"
CCS_MODE = "vf-has-ccs-mode"
NO_SHARE = "small-vram-is-not-shared-out"
RUNNING_SCHEDULER = "jobs-looked-at-while-their-scheduler-runs"
LATE_CLOSE = "last-close-after-removal-without-pm"
UNLOCKED_CLOSE = "bus-reset-at-close-without-the-bridge-lock"
UNLOCKED_TRY = "bus-reset-at-open-without-the-bridge-lock"
WEDGED_LOOP = "wedged-device-is-reset-for-ever"
WEDGED_REMOVAL = "removal-of-a-wedged-device-warns"
FENCES_LEFT = "fences-left-at-removal"
PROBE_LEAK = "failed-probe-leaves-page-tables"
SAVE_ABANDONED = "save-interrupted-by-a-reset-never-ends"
LOST_TAIL = "restore-misses-the-last-vram"
CONFIGFS_LOCK = "recovery-takes-the-lock-of-configfs"

DEFECTS = {
    POOL_LEAK: OF_DMABUFS[POOL_LEAK],
    RESCAN_LOCK: OF_DMABUFS[RESCAN_LOCK],
    RESET_LOST: OF_DMABUFS[RESET_LOST],
    RESET_GIVEN_UP: OF_DMABUFS[RESET_GIVEN_UP],
    REMOVAL_DEADLOCK: "removing a PF whose VFs are enabled never ends: remove_store holds pci_rescan_remove_lock, and sriov_disable,"
    " called by the driver's remove(), takes it again (sriov_del_vfs)",
    NUMVFS_DEADLOCK: "writing sriov_numvfs takes the device's lock and then pci_rescan_remove_lock, removing the PF takes them the other"
    " way round: both block for ever, and with them whoever looks for or removes a PCI device",
    LATE_INVALIDATION: "xe invalidates the LMTT when its GuC is gone already: unloading it with VFs provisioned logs"
    ' "LMTT0 invalidation failed (-ENODEV)"',
    SILENT_VF: "xe on a VF leaves without a VF_RESET: the GuC goes on using the VF's CT buffer, whose memory is freed",
    CCS_MODE: "a VF's driver offers ccs_mode, which only a PF can set",
    NO_SHARE: "xe shares VRAM out by whole GiB (pf_profile_fair_lmem): of less than that VFs get nothing, and their drivers do not"
    " probe, while series before 7.0 share all of it out",
    RUNNING_SCHEDULER: "a GT reset of xe goes through the pending jobs of a queue whose scheduler runs (xe_guc_submit_start,"
    " __drm_sched_pending_job_iter_begin); seen when a card is gone and its jobs time out meanwhile",
    LATE_CLOSE: "a process that has a VM when its device is removed and that ends later makes xe warn of missing runtime PM"
    " protection (xe_pm_runtime_get_noresume)",
    UNLOCKED_CLOSE: "vfio-pci resets a device by its bus when it is closed without the lock of the bridge above it"
    " (vfio_pci_core_disable)",
    UNLOCKED_TRY: "pci_try_reset_function(), by which vfio-pci resets a device when it is opened or asked to, takes the device's lock"
    ' and not the bridge\'s, as pci_reset_function() does: "unlocked secondary bus reset"',
    WEDGED_LOOP: "a device that is declared wedged while its GT reset has failed keeps its queues: each job that times out asks for another"
    " reset, which is refused, and is tried again at once; its process never ends (xe_guc_submit_wedge, guc_exec_queue_timedout_job)",
    WEDGED_REMOVAL: "removing a wedged device with VFs enabled warns of memory that was never given back: the buffers of the functions'"
    " engine activity are freed only when the GuC has agreed to leave them (engine_activity_disable_function_stats)",
    FENCES_LEFT: "xe's removal kills its queues and does not wait for their time-outs, which end the jobs: fences of jobs may still be"
    " pending when the GT is taken down (guc_submit_fini, xe_hw_fence_irq_finish)",
    PROBE_LEAK: "a probe of xe in which the queue for copies cannot be made leaves that queue's page tables in VRAM behind:"
    " xe_migrate_init() closes the VM and neither unpins nor puts the buffer (m->pt_bo)",
    SAVE_ABANDONED: "a VF's reset ends a save of it without marking it as failed and without waking its reader: reading migration_data"
    " waits until a signal comes (pf_exit_vf_save_wip)",
    CONFIGFS_LOCK: "the worker that recovers a VF after a migration asks configfs for settings, which takes that subsystem's mutex,"
    " with the lock of submissions held (xe_guc_contexts_hwsp_rebase); mkdir in configfs allocates memory under that mutex, and reclaim may"
    " take the lock of submissions: a circle of locks",
    LOST_TAIL: "a VF's restore may end before the last VRAM is written: xe looks at its queue and at the end of the stream in the"
    " wrong order (pf_handle_vf_restore)",
}

_UNFREED = r"(?s)WARNING: [^\n]*(buddy_fini|drm_mm_takedown|drm_buddy\.c|gpu/buddy\.c|drm_mm\.c|xe_ttm_vram_mgr_fini)"
_OF_REMOVAL = rf"{frames(OF_UNBINDING, 0, 8)}{frame('remove_store')}"
_OF_QUEUES = r"guc_exec_queue_\w+"
_OF_RELEASE = frames("device_release_driver_internal", 1, 1)
_BLOCKED = rf"blocked (?:for more than|on a mutex)(?s:.*)__mutex_lock\S*\n{GUESSES}"
DEADLOCKED = rf"{frames(OF_PCI_IOV, 1, 3)}{frames(OF_XE, 0, 4)}{frames('xe_pci_remove', 1, 1)}{_OF_REMOVAL}"
"""The stack of a task that waits in the removal that it has begun itself."""
NUMVFS_WAITS = rf"(?:{frames(OF_PCI_IOV, 1, 3)}{frames(OF_XE, 0, 4)})?{frame('sriov_numvfs_(?:store|show)')}"
"""The one half of the deadlock of two. Until 7.0 the lock was taken where VFs are added and deleted, by way of the driver."""
REMOVAL_WAITS = rf"{_OF_RELEASE}{_OF_REMOVAL}"
"""The other half."""

REPORTS = {
    POOL_LEAK: OF_KERNELS[POOL_LEAK],
    RESCAN_LOCK: OF_KERNELS[RESCAN_LOCK],
    LATE_INVALIDATION: r"TLB invalidation request failed \(-(ENODEV|19)\)",
    RUNNING_SCHEDULER: r"(?s)WARNING: [^\n]*gpu_scheduler\.h.*xe_guc_submit_start",
    LATE_CLOSE: r"WARNING: [^\n]*xe_pm\.c[^\n]* xe_pm_runtime_get_noresume\+(?s:.*)\n"
    rf"{frames(_OF_QUEUES, 1, 3)}{frames(OF_XE, 0, 3)}{frame('xe_file_close')}",
    FENCES_LEFT: r"(?s)WARNING: [^\n]*xe_hw_fence\.c[^\n]*xe_hw_fence_irq_finish.*xe_gt_fini",
    PROBE_LEAK: _UNFREED + r".*really_probe",
    WEDGED_REMOVAL: _UNFREED + r"(?!.*really_probe)",
    NUMVFS_DEADLOCK: rf"{_BLOCKED}(?:{NUMVFS_WAITS}|{REMOVAL_WAITS})",
    CONFIGFS_LOCK: r"(?s)possible circular locking dependency(?=.*find_xe_config_group_device)(?=.*xe_guc_contexts_hwsp_rebase)",
    REMOVAL_DEADLOCK: rf"{_BLOCKED}{DEADLOCKED}",
}
"""What kernels say of defects by themselves."""
ONLY_IN = {
    FENCES_LEFT: ("gone-and-removed",),
    WEDGED_REMOVAL: ("gone-and-removed", "pf-removed-under-jobs"),
}
"""Scenarios to which reports belong that every removal of xe's could give: another that gives one has found something else."""
