"""The demo of user space: Intel's unmodified OpenCL driver (NEO) runs programs on a VF, and virtual machines draw with Mesa's."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from demo_machines import show_machines
from demo_output import ledger_table, require, show, step

from vfio_user_xe.device_models.xe.scenarios.steps import UNITS
from vfio_user_xe.emulator.guest.progress import Progress
from vfio_user_xe.emulator.guest.userland import fetch_userland
from vfio_user_xe.emulator.testing.lab import Lab, open_lab

USERLAND = "compute"
SERVE = ["--vfs", "1", "--set", "vf_bar2=4GiB"]
"""NEO wants all of a card's memory in its BAR: see docs/execution.md."""
PF = "/sys/bus/pci/devices/0000:01:00.0"
NEO = "OCL_ICD_VENDORS=/etc/OpenCL/vendors/intel.icd"
ONLY_THE_VF = f"{NEO} ZE_AFFINITY_MASK=1"
"""NEO's devices are in the order of their PCI addresses."""
PROGRAM = '''
import numpy as np
import pyopencl as cl
import pyopencl.array as array

((device,),) = [platform.get_devices() for platform in cl.get_platforms()]
print(device.name, device.global_mem_size >> 20, "MiB")
context = cl.Context([device])
queue = cl.CommandQueue(context)
program = cl.Program(context, """
    kernel void multiply(global const float *a, global const float *b, global float *c, int n) {
        float sum = 0;
        for (int k = 0; k < n; k++) sum += a[get_global_id(1) * n + k] * b[k * n + get_global_id(0)];
        c[get_global_id(1) * n + get_global_id(0)] = sum;
    }
    kernel void reduce(global const int *in, global int *out, local int *part) {
        int i = get_local_id(0);
        part[i] = in[get_global_id(0)];
        for (int n = get_local_size(0) / 2; n; n /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (i < n) part[i] += part[i + n];
        }
        if (!i) atomic_add(out, part[0]);
    }""").build()
random = np.random.default_rng(7)
a, b = (random.standard_normal((64, 64), dtype=np.float32) for _ in range(2))
c = array.zeros(queue, a.shape, np.float32)
program.multiply(queue, a.shape, (16, 4), array.to_device(queue, a).data, array.to_device(queue, b).data, c.data, np.int32(64))
print("product of 64x64 matrices as numpy has it:", np.allclose(c.get(), a @ b, rtol=1e-4, atol=1e-4))
data = random.integers(-1000, 1000, 1 << 18, dtype=np.int32)
total = array.zeros(queue, 1, np.int32)
program.reduce(queue, data.shape, (256,), array.to_device(queue, data).data, total.data, cl.LocalMemory(1024))
print("sum of 2^18 integers as numpy has it:", bool(total.get()[0] == data.sum()))
'''


def run_userland(pictures: Path) -> None:
    """The whole demo; PNGs are left in `pictures`. Raises what went wrong."""
    with step("Debian's Mesa, NEO and Python for the guest"):
        userland = fetch_userland(USERLAND, progress=Progress())
        named = ("libgl1-mesa-dri", "intel-opencl-icd", "libigc2", "python3-pyopencl", "clinfo")
        show(
            "\n".join(
                f"{name} {userland.manifest.packages[name]}" for name in named if name in userland.manifest.packages
            )
        )
    with ExitStack() as stack:
        with step("Serve a card, and boot an unmodified kernel with that user space"):
            files = {"/root/on_vf.py": PROGRAM.encode()}
            lab = stack.enter_context(open_lab(SERVE, modules=["xe"], userland=USERLAND, memory=3072, files=files))
            show(f"Linux {lab.guest.run('uname -r').stdout.strip()} under {lab.guest.accelerator.name}")
        with step("xe takes the PF, provisions a VF, and takes that too"):
            lab.guest.run("modprobe xe", check=True, timeout=180)
            lab.guest.run(f"echo 1 > {PF}/sriov_numvfs", check=True, timeout=180)
            show(lab.guest.run("for n in /sys/class/drm/renderD*; do echo $n: $(readlink $n/device); done").stdout)
        demonstrate(lab)
    show_machines(pictures, USERLAND)


def demonstrate(lab: Lab) -> None:
    """clinfo, then programs on the VF, then the ledger."""
    with step("clinfo"):
        wanted = "^  (Device Name|Driver Version|Device PCI bus info|Max compute units|Global memory size)"
        listed = lab.guest.run(f"{NEO} clinfo | grep -E '{wanted}'", check=True, timeout=240).stdout
        show(listed)
        require("0000:01:00.0" in listed and "0000:01:00.1" in listed, "NEO does not see the PF and the VF")
    with step("OpenCL on the VF, by PyOpenCL: a matrix product and a reduction in shared local memory"):
        lab.card.call("ledger", clear=True)
        said = lab.guest.run(f"{ONLY_THE_VF} python3 /root/on_vf.py", check=True, timeout=400).stdout
        show(said)
        require(said.count("as numpy has it: True") == 2, "the results differ from numpy's")
    with step("What the execution units reached, by the ledger"):
        entries = [entry for entry in lab.card.call("ledger") if entry["kind"] in UNITS]
        ledger_table(entries)
        require(any(e["initiator"] == e["owner"] == "vf1" for e in entries), "the VF did not use its own VRAM")
        require({e["initiator"] for e in entries} == {"vf1"}, "another function than the VF ran kernels")
