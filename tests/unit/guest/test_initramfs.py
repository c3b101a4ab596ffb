from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from tests.support.guest.samples import RELEASE, environment, module, program, read_cpio
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import InitramfsError, KernelError, MissingEnvironment
from vfio_user_xe.emulator.guest.initramfs import Content, Contents, initramfs
from vfio_user_xe.emulator.guest.kernel import Kernel


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return environment(tmp_path)


def image_of(fetched: Environment, contents: Contents) -> Path:
    return initramfs(fetched, Kernel.packaged(fetched), contents)


def built(fetched: Environment, contents: Contents) -> dict[str, tuple[int, bytes]]:
    return read_cpio(image_of(fetched, contents).read_bytes())


def test_it_holds_init_agent_busybox_kmod_and_their_libraries(fetched: Environment) -> None:
    found = built(fetched, Contents())
    for name in ("init", "usr/sbin/guest-agent", "usr/bin/busybox", "usr/bin/kmod", "usr/bin/lspci"):
        assert stat.S_ISREG(found[name][0])
        assert found[name][0] & 0o111, f"{name} is not executable"
    assert {"usr/lib/x86_64-linux-gnu/libkmod.so.2", "usr/lib64/ld-linux-x86-64.so.2"} <= set(found)
    assert found["lib64"][1] == b"usr/lib64"
    assert stat.S_ISCHR(found["dev/console"][0])


def test_busybox_does_not_hide_real_programs(fetched: Environment) -> None:
    found = built(fetched, Contents())
    assert found["usr/bin/ls"][1] == b"busybox"
    assert found["usr/sbin/modprobe"][1] == b"../bin/kmod"
    assert "usr/bin/modprobe" not in found
    assert stat.S_ISREG(found["usr/bin/lspci"][0])


def test_only_the_modules_asked_for_and_their_dependencies_are_in_it(fetched: Environment) -> None:
    found = built(fetched, Contents(modules=("top-module",)))
    names = {Path(name).name for name in found if name.endswith(".ko")}
    assert names == {"top_module.ko", "middle.ko", "bottom.ko"}
    assert found[f"usr/lib/modules/{RELEASE}/modules.dep.bin"][1] == b"indexed\n"


def test_a_kernel_without_modules_needs_no_module_directory(fetched: Environment) -> None:
    kernel = Kernel.custom(Kernel.packaged(fetched).image, None)
    found = read_cpio(initramfs(fetched, kernel, Contents()).read_bytes())
    assert not [name for name in found if name.endswith(".ko")]
    with pytest.raises(KernelError, match=r"no module xe \(no module directory was given\)"):
        initramfs(fetched, kernel, Contents(modules=("xe",)))


def test_modules_to_load_come_with_their_parameters(fetched: Environment) -> None:
    found = built(fetched, Contents(load=("top-module max_vfs=3",)))
    assert found["etc/modules"][1] == b"top-module max_vfs=3\n"
    assert f"usr/lib/modules/{RELEASE}/top_module.ko" in found


def test_firmware_is_where_the_kernel_looks_for_it(fetched: Environment) -> None:
    found = built(fetched, Contents(firmware=("xe/bmg_guc_70.bin",)))
    assert found["usr/lib/firmware/xe/bmg_guc_70.bin"][1] == b"firmware"


def test_files_of_the_caller_get_the_mode_that_fits(fetched: Environment, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"anything")
    tool.chmod(0o755)
    files: dict[str, Content] = {
        "/bin/script": "#!/bin/sh\n",
        "/sbin/program": program([], ""),
        "/root/tool": tool,
        "/root/data": b"data",
    }
    found = built(fetched, Contents(files=files))
    modes = {name: found[name][0] & 0o777 for name in ("usr/bin/script", "usr/sbin/program", "root/tool", "root/data")}
    assert modes == {"usr/bin/script": 0o755, "usr/sbin/program": 0o755, "root/tool": 0o755, "root/data": 0o644}


def test_a_library_given_by_the_caller_is_taken_before_the_environments(fetched: Environment, tmp_path: Path) -> None:
    library = tmp_path / "libmine.so"
    library.write_bytes(program(["libc.so.6"], "") + b"mine")
    files: dict[str, Content] = {
        "/usr/bin/tool": program(["libmine.so"]),
        "/usr/lib/x86_64-linux-gnu/libmine.so": library,
    }
    found = built(fetched, Contents(files=dict(reversed(files.items()))))
    assert found["usr/lib/x86_64-linux-gnu/libmine.so"][1].endswith(b"mine")


def test_a_program_whose_library_is_nowhere_is_named(fetched: Environment) -> None:
    with pytest.raises(InitramfsError, match=r"usr/bin/tool cannot run in the guest: it needs the library libgone\.so"):
        built(fetched, Contents(files={"/usr/bin/tool": program(["libgone.so"])}))


def test_what_does_not_exist_is_named(fetched: Environment, tmp_path: Path) -> None:
    with pytest.raises(InitramfsError, match="nowhere cannot be read"):
        built(fetched, Contents(files={"/x": tmp_path / "nowhere"}))
    with pytest.raises(MissingEnvironment, match="absent_fw"):
        built(fetched, Contents(firmware=("absent_fw",)))
    with pytest.raises(KernelError, match="absent_module"):
        built(fetched, Contents(modules=("absent_module",)))
    with pytest.raises(InitramfsError, match="init is in the initramfs already"):
        built(fetched, Contents(files={"/init": b""}))


def test_nothing_half_made_stays_after_a_failure(fetched: Environment, tmp_path: Path) -> None:
    with pytest.raises(KernelError):
        built(fetched, Contents(modules=("absent_module",)))
    left = {path.name for path in (tmp_path / "cache/vfio-user-xe/initramfs").iterdir()}
    assert left <= {"lock"}


def test_an_unchanged_request_is_answered_from_the_cache(fetched: Environment) -> None:
    contents = Contents(modules=("top-module",))
    first = image_of(fetched, contents)
    first.write_bytes(b"as it was built")
    assert image_of(fetched, contents).read_bytes() == b"as it was built"


def test_a_rebuilt_module_gives_a_new_image_and_leaves_the_old_one(fetched: Environment) -> None:
    contents = Contents(modules=("top-module",))
    first = image_of(fetched, contents)
    before = first.read_bytes()
    path = Kernel.packaged(fetched).module_files["bottom"]
    path.write_bytes(module(comment="rebuilt"))
    second = image_of(fetched, contents)
    assert second != first
    assert first.read_bytes() == before
    assert read_cpio(second.read_bytes())[f"usr/lib/modules/{RELEASE}/bottom.ko"][1] == module(comment="rebuilt")


def test_different_file_contents_are_different_requests(fetched: Environment) -> None:
    one = image_of(fetched, Contents(files={"/a": b"1"}))
    two = image_of(fetched, Contents(files={"/a": b"2"}))
    assert one != two


def test_old_images_are_dropped_and_recent_ones_kept(fetched: Environment, tmp_path: Path) -> None:
    for number in range(14):
        image = image_of(fetched, Contents(files={"/n": str(number)}))
        if number < 8:
            os.utime(image, (time.time() - 7200 - number, time.time() - 7200 - number))
    folder = tmp_path / "cache/vfio-user-xe/initramfs"
    images = {path.name for path in folder.glob("*.cpio")}
    assert 12 <= len(images) < 14
    assert image.name in images
    assert {json.loads(index.read_bytes())["image"] for index in folder.glob("*.json")} == images
