"""The arguments for virtme-ng: quoted for two shells, and right for the machine that it makes."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

from tests.support.guest.environments import environment_in
from vfio_user_xe.emulator.guest.environment import Environment, Qemu
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription, FunctionDescription
from vfio_user_xe.emulator.guest.root_filesystem import TAG, RootFileSystem
from vfio_user_xe.emulator.guest.vng import enter_program, qemu_program, vng_arguments

CARD = CardDescription(
    "mine",
    "xe",
    [FunctionDescription("pf", "/run/my card/pf.sock", 0, 1 << 32), FunctionDescription("vf1", "/run/vf1.sock", 1, 0)],
    qtest="/run/qtest.sock",
)


def qemu_options(words: list[str]) -> list[str]:
    """What arrives at QEMU: the user's shell takes one quoting away, virtme-ng's own shell the other."""
    (option,) = (word for word in shlex.split(shlex.join(words)) if word.startswith("--qemu-opts="))
    return shlex.split(option.removeprefix("--qemu-opts="))


def test_qemu_gets_each_argument_whole_after_two_shells() -> None:
    options = qemu_options(vng_arguments(CARD, Path("/usr/bin/qemu"), memory=2048, kvm=True))
    devices = [json.loads(option) for option in options if option.startswith("{")]
    assert [device["socket"]["path"] for device in devices] == ["/run/my card/pf.sock", "/run/vf1.sock"]
    assert options[options.index("-qtest") + 1] == "unix:/run/qtest.sock"


def test_the_machine_has_pci_express_and_shared_memory_of_the_size_that_vng_is_told() -> None:
    words = vng_arguments(CARD, Path("/usr/bin/qemu"), memory=3072, kvm=True)
    assert words[words.index("--memory") + 1] == "3072M"
    assert {"--disable-microvm", "--force-9p"} <= set(words)
    options = qemu_options(words)
    assert options[options.index("-machine") + 1].startswith("q35,memory-backend=")
    backend = options[options.index("-object") + 1]
    assert "size=3072M" in backend
    assert "share=on" in backend
    assert "-m" not in options


def test_the_cpu_is_the_host_s_with_kvm_and_one_with_room_for_the_bars_without() -> None:
    with_kvm = vng_arguments(CARD, Path("/usr/bin/qemu"), memory=2048, kvm=True)
    assert "-cpu" not in qemu_options(with_kvm)
    assert "--disable-kvm" not in with_kvm
    without = vng_arguments(CARD, Path("/usr/bin/qemu"), memory=2048, kvm=False)
    assert "phys-bits=46" in qemu_options(without)[qemu_options(without).index("-cpu") + 1]
    assert "--disable-kvm" in without


def test_an_image_is_a_disk_that_the_script_finds_and_a_folder_is_there_already(tmp_path: Path) -> None:
    image, folder = tmp_path / "root.img", tmp_path / "a root"
    image.write_bytes(bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(4096))
    folder.mkdir()

    def of(root: RootFileSystem) -> tuple[list[str], str]:
        words = vng_arguments(CARD, Path("/usr/bin/qemu"), memory=2048, kvm=True, root=root)
        script = enter_program(root, tmp_path)
        assert script.stat().st_mode & 0o111
        subprocess.run(["sh", "-n", script], check=True)
        return [option for option in qemu_options(words) if "guest-root" in option], script.read_text()

    disk, script = of(RootFileSystem.at(image))
    assert any(f"file={image}" in option for option in disk)
    assert any(f"serial={TAG}" in option for option in disk)
    assert f"\ntag={TAG}\n" in script
    assert "\nfolder=\n" in script
    disk, script = of(RootFileSystem.at(folder))
    assert disk == []
    assert f"\nfolder='{folder}'\n" in script


def test_a_qemu_of_several_words_becomes_one_program(tmp_path: Path) -> None:
    def environment(*command: str, **variables: str) -> Environment:
        return environment_in(qemu=Qemu(command, variables))

    assert qemu_program(environment("/usr/bin/qemu"), tmp_path) == Path("/usr/bin/qemu")
    script = qemu_program(environment("/bin/echo", "two words", WHERE="a b"), tmp_path)
    assert script.parent == tmp_path
    said = subprocess.run([script, "more"], capture_output=True, text=True, check=True).stdout
    assert said == "two words more\n"
    assert "export WHERE='a b'" in script.read_text()
