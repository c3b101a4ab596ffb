"""The suite's defects with their fixes, as `scenario findings` shows them."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.defects import RESCAN_LOCK, RESET_LOST
from vfio_user_xe.device_models.xe.scenarios.sriov import defects
from vfio_user_xe.emulator.scenarios.finding import Finding

FINDINGS = (
    Finding(
        defects.REMOVAL_DEADLOCK,
        "PCI/IOV: removing a PF with VFs enabled never ends",
        ("pf-removed-with-vfs",),
        "2fa119c0e5e5, a revert of 05703271c3cd; the lock is now taken in sriov_numvfs_store",
    ),
    Finding(
        defects.NUMVFS_DEADLOCK,
        "PCI/IOV: writing sriov_numvfs and removing the PF block each other",
        ("numvfs-against-removal",),
        page=defects.NUMVFS_DEADLOCK,
    ),
    Finding(
        RESCAN_LOCK,
        "PCI/IOV: VFs are removed without pci_rescan_remove_lock",
        ("pf-unbound-with-vfs",),
        needs="lockdep",
        page=RESCAN_LOCK,
    ),
    Finding(
        defects.LATE_INVALIDATION,
        "xe: LMTT invalidated after the GuC is gone",
        ("unloaded-after-vfs",),
        "9a54b5127f08, drm/xe/pf: Make the late-initialization really late",
    ),
    Finding(
        defects.SILENT_VF,
        "xe: a VF's driver leaves without telling the GuC",
        ("vf-driver-unbound",),
        "d043b95993e6, drm/xe/vf: Reset VF GuC state on fini",
    ),
    Finding(
        defects.CCS_MODE,
        "xe: VFs offer ccs_mode",
        ("ccs-mode-of-vfs",),
        "ae9e86545797 (merge), in 7.0",
    ),
    Finding(
        RESET_LOST,
        "xe: a reset is lost while another ends",
        ("reset-bursts",),
        "3764e9b99fa8 mends what two GTs have to do with it, not this",
        page=RESET_LOST,
    ),
    Finding(
        defects.UNLOCKED_CLOSE,
        "vfio-pci: bus reset at close without the bridge's lock",
        ("reset-by-the-bus-at-close",),
        "vfio/pci: Lock upstream bridge for vfio_pci_core_disable()",
    ),
    Finding(
        defects.UNLOCKED_TRY,
        "PCI: pci_try_reset_function() does not lock the bridge",
        ("reset-by-the-bus-at-open",),
        page=defects.UNLOCKED_TRY,
    ),
    Finding(
        defects.LATE_CLOSE,
        "xe: a process that outlives its device makes it warn of runtime PM",
        ("pf-removed-under-jobs",),
        page=defects.LATE_CLOSE,
    ),
    Finding(
        defects.WEDGED_LOOP,
        "xe: a process with jobs on a wedged device never ends",
        ("gone-and-removed",),
        "drm/xe: Trigger queue cleanup if not in wedged mode 2",
    ),
    Finding(
        defects.WEDGED_REMOVAL,
        "xe: removing a wedged device warns of memory",
        ("gone-and-removed",),
        page=defects.WEDGED_REMOVAL,
    ),
    Finding(
        defects.FENCES_LEFT,
        "xe: removal does not wait for the jobs that it ends",
        ("gone-and-removed",),
        page=defects.FENCES_LEFT,
    ),
    Finding(
        defects.PROBE_LEAK,
        "xe: a probe that fails at the queue for copies leaves VRAM allocated",
        ("probe-fails-everywhere",),
        page=defects.PROBE_LEAK,
    ),
    Finding(
        defects.NO_SHARE,
        "xe: VRAM below 1 GiB is not shared out",
        ("little-vram",),
        page=defects.NO_SHARE,
    ),
    Finding(
        defects.SAVE_ABANDONED,
        "xe: saving a VF that is reset meanwhile never ends",
        ("reset-while-saving",),
        page=defects.SAVE_ABANDONED,
    ),
    Finding(
        defects.LOST_TAIL,
        "xe: a VF's restore misses the last of VRAM",
        ("restored-in-one-piece",),
        page=defects.LOST_TAIL,
    ),
    Finding(
        defects.CONFIGFS_LOCK,
        "xe: a VF's recovery after a migration takes configfs' lock below that of submissions",
        ("moved-with-settings",),
        needs="lockdep",
        page=defects.CONFIGFS_LOCK,
    ),
)
