"""What the engine has to know of the model besides how to run it: its title, firmware, address spaces, suites of tests."""

from __future__ import annotations

from pathlib import Path

from vfio_user_xe.device_models.xe.topologies import TOPOLOGIES
from vfio_user_xe.emulator.model.model_info import ModelInfo, TraceProcess

KERNEL = Path(__file__).parent / "kernel"
BASE, DEBUG = KERNEL / "battlemage.config", KERNEL / "debug.config"
GGTT, PPGTT, DEVICE = "ggtt", "ppgtt", "device"

INFO = ModelInfo(
    title="an Intel Arc Battlemage GPU with SR-IOV",
    default=True,
    # What the driver asks for on this card (xe_uc_fw.c:XE_GUC_FIRMWARE_DEFS, XE_HUC_FIRMWARE_DEFS); it declares far more
    # files, of every device that it knows.
    firmware={"xe": ("xe/bmg_guc_70.bin", "xe/bmg_huc.bin")},
    firmware_packages=("firmware-intel-graphics",),
    # NEO: OpenCL and Level Zero.
    userland_packages={
        "compute": ("intel-opencl-icd", "libze-intel-gpu1"),
        "suites": ("intel-opencl-icd", "libze-intel-gpu1"),
    },
    address_spaces={
        GGTT: "the function's global GTT",
        PPGTT: "a VM's page tables, named by ASID or by root table",
        DEVICE: "device addresses: DPA of the PF, GDPA (before LMTT) of a VF",
    },
    topologies=TOPOLOGIES,
    trace_processes={"guc": TraceProcess("GuC", "gt")},
    scenarios={"scenario": "dmabuf", "fuzz kernel": "syscalls"},
    suites={folder.name: folder for folder in sorted((Path(__file__).parent / "suites").iterdir()) if folder.is_dir()},
    kernel_config={"scenarios": (BASE,), "debug": (BASE, DEBUG)},
)
