"""Which modules are mutated, and which tests are tried."""

from __future__ import annotations

MODULES = (
    "device_models/xe/memory/vram.py",
    "device_models/xe/memory/lmtt.py",
    "device_models/xe/memory/ggtt.py",
    "device_models/xe/memory/ppgtt.py",
    "device_models/xe/memory/address_space.py",
    "device_models/xe/memory/stale.py",
    "device_models/xe/memory/formats/ggtt.py",
    "device_models/xe/memory/formats/lmtt.py",
    "device_models/xe/memory/formats/ppgtt.py",
    "device_models/xe/guc/klv.py",
    "device_models/xe/guc/sriov.py",
    "emulator/fabric/interconnect.py",
    "emulator/fabric/ledger.py",
    "emulator/fabric/span.py",
    "emulator/pci/decoding.py",
    "emulator/pci/sriov.py",
    "emulator/vfio_user/guest_memory.py",
    "emulator/vfio_user/dirty_logging.py",
    "emulator/vfio_user/request.py",
    "emulator/vfio_user/requests.py",
)

TESTS = ("tests/unit/fabric", "tests/unit/pci", "tests/unit/vfio_user", "tests/unit/xe/guc", "tests/unit/xe/memory")
"""The tests of these modules and of what is next to them. What others execute of these modules they execute by the way, and
to measure that takes longer than all the rest."""
