"""The defects of the dma-buf scenarios with their fixes, as `scenario findings` shows them."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.emulator.scenarios.finding import Finding

FINDINGS = (
    Finding(
        defects.REVOCATION_WAITS,
        "vfio-pci, xe: a reset waits for an idle importer without a limit",
        ("reset-with-an-idle-import",),
        page=defects.REVOCATION_WAITS,
    ),
    Finding(
        defects.RANGES_OVERLAP,
        "dma-buf: ranges are linked at one IOVA",
        ("several-ranges-translating",),
        page=defects.RANGES_OVERLAP,
    ),
    Finding(
        defects.RESET_UNNOTICED,
        "vfio-pci: a reset through sysfs revokes nothing",
        ("reset-through-sysfs",),
        page=defects.RESET_UNNOTICED,
    ),
    Finding(
        defects.CLEAR_AFTER_RESET,
        "vfio-pci, xe: a VF is used before it is clean",
        ("written-right-after-opening",),
        page=defects.CLEAR_AFTER_RESET,
    ),
    Finding(
        defects.RESET_GIVEN_UP,
        "xe: a VF whose memory is not clear after 5 s is never served again",
        ("written-right-after-opening",),
        page=defects.RESET_GIVEN_UP,
    ),
    Finding(
        defects.STALE_FILE,
        "vfio-pci: the file of a closed dma-buf is used when something is revoked",
        ("path-left-at-reset",),
        page=defects.STALE_FILE,
    ),
    Finding(
        defects.REGISTRATION_HELD,
        "vfio-pci: a VF cannot be taken away while a closed dma-buf has an O_PATH descriptor",
        ("vfs-disabled-with-a-path-left",),
        page=defects.REGISTRATION_HELD,
    ),
    Finding(
        defects.EXEC_DUPLICATE,
        "xe: a VM with one buffer bound by two imports runs no job",
        ("two-imports-in-one-vm",),
        page=defects.EXEC_DUPLICATE,
    ),
    Finding(
        defects.SUSPEND_RACE,
        "xe: suspending copies contexts that still run",
        ("suspend",),
        page=defects.SUSPEND_RACE,
    ),
    Finding(
        defects.HANDED_ON_DIRTY,
        "xe: VRAM is handed on uncleaned",
        ("memory-handed-on",),
        page=defects.HANDED_ON_DIRTY,
    ),
)
