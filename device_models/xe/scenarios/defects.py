"""Defects that the dma-buf scenarios know by name, of released kernels and of the first series with mappings by device address."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.stacks import OF_PCI_IOV, OF_XE, frame, frames

REVOCATION_WAITS = "revocation-waits-for-importer"
RANGES_OVERLAP = "ranges-linked-at-one-iova"
RESET_UNNOTICED = "sysfs-reset-does-not-revoke"
CLEAR_AFTER_RESET = "clear-outlasts-reset"
RESET_LOST = "reset-lost-while-another-ends"
RESET_GIVEN_UP = "reset-given-up-after-five-seconds"
HANDED_ON_DIRTY = "memory-handed-on-uncleaned"
POOL_LEAK = "ttm-pool-leaks-its-lists"
RESCAN_LOCK = "vfs-removed-without-the-rescan-lock"
STALE_FILE = "stale-file-of-a-dmabuf"
REGISTRATION_HELD = "closed-dmabuf-holds-the-vf"
EXEC_DUPLICATE = "exec-refuses-two-imports-of-one-buffer"
SUSPEND_RACE = "suspend-copies-contexts-that-run"

DEFECTS = {
    REVOCATION_WAITS: "vfio-pci's revocation waits, without a limit, until importers have unmapped (vfio_pci_dma_buf_move);"
    " xe as an idle importer unmaps only at its next use or with its last reference (xe_bo_move_dmabuf)",
    RANGES_OVERLAP: "dma_buf_phys_vec_to_sgt() links every range of a buffer at offset 0 of its IOVA: a dma-buf of more than"
    " one range cannot be mapped behind a translating IOMMU (EADDRINUSE)",
    RESET_UNNOTICED: "a reset through sysfs of a device that VFIO has open does not revoke its dma-bufs: importers go on in"
    " memory that is being cleared",
    CLEAR_AFTER_RESET: "VFIO takes a VF for reset 100 ms after the FLR, while the PF's driver still clears its memory: dma-bufs"
    " are given back, and the VF can be used, before that has ended; what is written then may be lost",
    RESET_LOST: "xe takes no notice of a VF's FLR that it is told of after it has sent FLR_FINISH for the one before and before its"
    " worker has noted that (pf_begin_vf_flr: already in progress): the GuC waits for an FLR_FINISH that never comes, and the VF is"
    " not served until it is reset again",
    RESET_GIVEN_UP: "xe waits 5 s for a VF's memory to be cleared and then gives its reset up (pf_exit_vf_flr_reset_config): the GuC"
    " waits for an FLR_FINISH that is never sent, and the VF is not served",
    HANDED_ON_DIRTY: "xe clears a VF's memory at its reset, not when its provisioning changes: VRAM that one VF has to give up"
    " reaches another, which is running, with what was written there",
    POOL_LEAK: "TTM's pools initialise a list_lru each and never destroy it (ttm_pool_type_fini): what it allocated is lost when the"
    " last device goes; kmemleak says so",
    RESCAN_LOCK: "a PF's driver that disables VFs in its remove(), on unbind or unload, removes devices without"
    " pci_rescan_remove_lock, which only the files in sysfs take: lockdep_assert_held in pci_stop_and_remove_bus_device",
    STALE_FILE: "vfio-pci looks at the file of a dma-buf that is closed already while an O_PATH descriptor keeps the buffer itself"
    " (get_file_active(&dmabuf->file) in vfio_pci_dma_buf_move and vfio_pci_dma_buf_cleanup): a use after free, which a kernel with"
    " KASAN reports",
    REGISTRATION_HELD: "closing a VFIO device passes over a dma-buf that is closed already while an O_PATH descriptor keeps the buffer"
    " itself (vfio_pci_dma_buf_cleanup), so the buffer's registration is given back only when that descriptor goes: disabling the VF,"
    " and taking vfio-pci from it, waits until then (vfio_unregister_group_dev)",
    EXEC_DUPLICATE: "a VM in which one dma-buf is bound by two imports (the first one's handle was closed) runs no job any more:"
    " both have the exporter's reservation object, and xe_exec_ioctl locks without DRM_EXEC_IGNORE_DUPLICATES (EALREADY)",
    SUSPEND_RACE: 'xe_pm_suspend() copies the images of contexts to system memory before the GT is stopped ("Super racey", it says): an'
    " image that is saved afterwards is lost, and after resume its ring is executed once more from where the copy has it, with"
    " batches that were written over since",
    "D1": "an import keeps a reference of the VF's memory object: VRAM does not come back",
    "D2": "one device address for a range whose memory is scattered: foreign VRAM is mapped",
    "D3": "sizes of ranges are rounded up to powers of two: wrong data from the second range on",
    "D4": "the last page of the BAR is not taken, and a range's end is not checked",
    "D5": "no check against the VF's quota: addresses wrap around inside of it",
    "D6": "after a failed re-mapping page tables keep old device addresses",
    "D7": "mapping ignores revocation: the PF goes on after reset and close",
    "D8": "the search for the VF takes other functions for candidates",
    "D9": "importers are not told when the PF changes a VF's provisioning",
    "D10": "the PF's unbind leaves imports behind",
    "D11": "an import is translated under reservation locks and takes the PF's provisioning mutex, which provisioning, and"
    " clearing after an FLR, hold while they take reservation locks",
}


_GUESSES = r"(?:[ ]*\? [^\n]*\n)*"
"""Frames of which the kernel is not sure that they were called."""

REPORTS = {
    POOL_LEAK: r"(?s)unreferenced object.*list_lru_init.*ttm_pool_type_init",
    RESCAN_LOCK: r"WARNING: [^\n]*pci/remove\.c[^\n]* pci_stop_and_remove_bus_device\+(?s:.*)\n"
    f"{frames('pci_iov_remove_virtfn', 1, 1)}{frames(OF_PCI_IOV, 1, 3)}{frames(OF_XE, 0, 4)}{frame('xe_pci_remove')}",
    STALE_FILE: r"KASAN: slab-use-after-free in \S*get_file\w*\+[^\n]*\n(?:(?!Allocated by|Freed by)[^\n]*\n)*?"
    rf"[ ]*get_file_active\+[^\n]*\n{_GUESSES}[ ]*vfio_pci_\w*dma_?buf\w*\+(?s:.*)belongs to the cache filp ",
    "D5": r"WARNING: .*xe_res_cursor\.h",
    "D11": r"(?s)possible circular locking dependency.*xe_gt_sriov_pf_config_get_lmem_obj",
}
"""What kernels say of defects by themselves."""
