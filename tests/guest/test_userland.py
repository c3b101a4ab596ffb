"""A guest with a root file system of its own: Mesa and NEO see the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.device_models import xe
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.guest import GuestSpec
from vfio_user_xe.emulator.guest.machine import Machine
from vfio_user_xe.emulator.guest.root_filesystem import RootFileSystem
from vfio_user_xe.emulator.guest.userland import locate_userland
from vfio_user_xe.emulator.guest.vng import enter_program
from vfio_user_xe.emulator.testing.lab import open_lab

pytestmark = pytest.mark.guest


def test_neo_and_rusticl_see_the_card_and_rusticl_its_vf_too() -> None:
    try:
        locate_userland("compute")
    except GuestError as error:
        pytest.skip(str(error))
    with open_lab(["--vfs", "1"], modules=["xe"], userland="compute", memory=2048) as lab:
        lab.guest.run("modprobe xe", check=True, timeout=120)
        listed = lab.guest.run("RUSTICL_ENABLE=iris clinfo -l", check=True, timeout=120).stdout
        assert listed.count("Arc") == 2, listed
        lab.guest.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", check=True, timeout=120)
        both = lab.guest.run("RUSTICL_ENABLE=iris clinfo -l", check=True, timeout=120).stdout
        assert both.count("Mesa Intel(R) Arc") == 2, both


OPENCL = """
import numpy as np
import pyopencl as cl
import pyopencl.array as array
from generated import GROUP, ITEMS, TYPES, VARIABLES, Program, inputs

devices = [d for p in cl.get_platforms() if "Intel(R) OpenCL" in p.name for d in p.get_devices()]
print(len(devices), "devices")
for device in devices:
    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    program = cl.Program(context, '''
        kernel void reduce(global const int *in, global int *out, local int *part) {
            int i = get_local_id(0);
            part[i] = in[get_global_id(0)];
            for (int n = get_local_size(0) / 2; n; n /= 2) {
                barrier(CLK_LOCAL_MEM_FENCE);
                if (i < n) part[i] += part[i + n];
            }
            if (!i) atomic_add(out, part[0]);
        }''').build()
    data = np.random.default_rng(7).integers(-1000, 1000, 1 << 16, dtype=np.int32)
    total = array.zeros(queue, 1, np.int32)
    program.reduce(queue, data.shape, (256,), array.to_device(queue, data).data, total.data, cl.LocalMemory(1024))
    single = data.astype(np.float32)
    doubled = (array.to_device(queue, single) * 2 + 1).get()
    print("reduction", total.get()[0] == data.sum(), "arithmetic", np.array_equal(doubled, single * 2 + 1))
    kind, seed = TYPES["float"], 1
    generated, arguments = Program(kind, seed), inputs(kind, seed)
    built = cl.Program(context, generated.source).build(["-cl-fp32-correctly-rounded-divide-sqrt"])
    out = array.zeros(queue, VARIABLES * ITEMS, kind.dtype)
    buffers = [array.to_device(queue, values).data for values in arguments]
    cl.Kernel(built, "generated")(queue, (ITEMS,), (GROUP,), *buffers, out.data)
    print("generated", np.array_equal(out.get(), generated.expected(*arguments), equal_nan=True))
"""
GENERATED = Path(xe.__file__).parent / "suites/opencl/tests/generated.py"


@pytest.mark.timeout(700)
def test_kernels_that_neo_compiles_give_right_results_and_are_in_the_ledger() -> None:
    try:
        locate_userland("compute")
    except GuestError as error:
        pytest.skip(str(error))
    files = {"/root/reduce.py": OPENCL.encode(), "/root/generated.py": GENERATED.read_bytes()}
    with open_lab(["--vfs", "0"], modules=["xe"], userland="compute", memory=3072, files=files) as lab:
        lab.guest.run("modprobe xe", check=True, timeout=120)
        lab.card.call("ledger", clear=True)
        out = lab.guest.run("python3 /root/reduce.py", check=True, timeout=550).stdout
        assert out.splitlines() == ["1 devices", "reduction True arithmetic True", "generated True"]
        kinds = {row["kind"] for row in lab.card.call("ledger") if row["initiator"] == "pf"}
        assert any(kind.startswith("eu ") for kind in kinds), kinds


def test_the_script_for_virtme_ng_enters_a_userland_and_keeps_changes_for_the_next_command(tmp_path: Path) -> None:
    try:
        root = RootFileSystem.at(locate_userland("compute").image)
    except GuestError as error:
        pytest.skip(str(error))
    files = {"/card/in-root": enter_program(root, tmp_path)}
    spec = GuestSpec(machine=Machine(arguments=root.arguments()), modules=root.modules, files=files)
    with BlockingGuest(spec) as guest:
        assert guest.run("/card/in-root clinfo --version", check=True, timeout=120).stdout.startswith("clinfo version")
        guest.run("/card/in-root sh -c 'echo new > /etc/new; ls /dev/null /proc/self'", check=True)
        assert guest.run("/card/in-root cat /etc/new", check=True).stdout == "new\n"
        assert guest.run("test -e /etc/new").returncode == 1


def test_a_folder_is_a_root_that_the_guest_does_not_change(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/name").write_text("of the root")
    spec = GuestSpec(root=root, files={"/etc/given": b"of the caller", "/etc/name2": b"x"})
    with BlockingGuest(spec) as guest:
        assert guest.run("cat /etc/name /etc/given", check=True).stdout == "of the rootof the caller"
        guest.script("echo changed >/etc/name; echo new >/etc/new")
        assert guest.run("cat /etc/name", check=True).stdout == "changed\n"
    assert sorted(path.name for path in (root / "etc").iterdir()) == ["name"]
    assert (root / "etc/name").read_text() == "of the root"
