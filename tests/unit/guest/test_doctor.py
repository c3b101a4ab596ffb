"""`doctor`: what it notices of a machine, and the command that its distribution has for it."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import resource
import shutil
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from tests.support.guest.environments import environment_in
from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.guest import doctor, host
from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.doctor import Finding, examine
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.host import ARCH, DEBIAN, FEDORA, NIXOS, Distribution, distribution


def environment(days: int) -> Environment:
    made = environment_in()
    created = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)).isoformat(timespec="seconds")
    return dataclasses.replace(made, manifest=dataclasses.replace(made.manifest, created=created))


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that lacks nothing; the folder has its /proc/meminfo and /sys/module."""
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    monkeypatch.setattr(host, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(doctor, "_MODULES", tmp_path / "module")
    monkeypatch.setattr(doctor.environment, "locate", lambda: environment(1))
    monkeypatch.setattr(doctor.accelerator, "choose", lambda found: Accelerator("kvm", "it works"))
    monkeypatch.setattr(doctor.accelerator, "device_problem", lambda: "")
    monkeypatch.setattr(doctor, "locate_userland", lambda name: None)
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "distribution", lambda: FEDORA)
    return tmp_path


def found(what: str) -> Finding:
    (one,) = (finding for finding in examine() if finding.what == what)
    return one


def test_a_machine_that_lacks_nothing_is_fit() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0
    said = json.loads(done.output)
    assert said["usable"]
    marks = {finding["what"]: finding["mark"] for finding in said["findings"]}
    assert {marks[what] for what in ("memory", "QEMU", "guest environment", "accelerator", "C compiler")} == {"ok"}


def test_a_machine_without_an_environment_is_not_and_without_apt_takes_a_bundle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = create_autospec(doctor.environment.locate, side_effect=MissingEnvironment("there is none"))
    monkeypatch.setattr(doctor.environment, "locate", missing)
    assert found("guest environment").cure == "vfio-user-xe guest fetch"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "guest fetch --mirror URL" in found("guest environment").cure
    assert "--from FILE" in found("guest environment").cure
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_another_architecture_cannot_run_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "machine", lambda: "aarch64")
    assert found("architecture").fatal


def test_little_memory_is_noted(machine: Path) -> None:
    (machine / "meminfo").write_text("MemAvailable: 1000000 kB\n")
    assert (found("memory").mark, "--memory" in found("memory").cure) == ("note", True)


def test_few_open_files_are_noted_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_NOFILE: (256, 524288), resource.RLIMIT_MEMLOCK: (65536, 65536)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert found("open files").cure == "ulimit -n 4096"


def test_kvm_is_looked_at_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("KVM").mark == "ok"
    missing = create_autospec(doctor.environment.locate, side_effect=MissingEnvironment("there is none"))
    monkeypatch.setattr(doctor.environment, "locate", missing)
    monkeypatch.setattr(doctor.accelerator, "device_problem", lambda: "this machine has no /dev/kvm")
    assert (found("KVM").mark, found("KVM").text) == ("note", "this machine has no /dev/kvm")
    assert "--device /dev/kvm" in found("KVM").cure


@pytest.mark.parametrize(("value", "mark"), [("Y", "ok"), ("1", "ok"), ("N", "note")])
def test_nested_kvm_is_told_where_there_is_kvm(value: str, mark: str, machine: Path) -> None:
    file = machine / "module" / "kvm_intel" / "parameters" / "nested"
    file.parent.mkdir(parents=True)
    file.write_text(f"{value}\n")
    assert found("nested KVM").mark == mark


def test_an_old_environment_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.environment, "locate", lambda: environment(200))
    assert (found("guest environment").mark, found("guest environment").cure) == (
        "note",
        "vfio-user-xe guest fetch --update",
    )


COMMANDS = {
    "debian": {
        "C compiler": "apt-get install gcc libc6-dev",
        "compiled kernels": "pip install ziglang, or apt-get install gcc libc6-dev",
        "zstd": "apt-get install zstd",
        "kernel builds": "apt-get install make flex bison bc libelf-dev",
        "numpy": "apt-get install libstdc++6",
    },
    "fedora": {
        "C compiler": "dnf install gcc glibc-devel glibc-static",
        "compiled kernels": "pip install ziglang, or dnf install gcc glibc-devel glibc-static",
        "zstd": "dnf install zstd",
        "kernel builds": "dnf install make flex bison bc elfutils-libelf-devel",
        "numpy": "dnf install libstdc++",
    },
    "arch": {
        "C compiler": "pacman -S --needed gcc",
        "compiled kernels": "pip install ziglang, or pacman -S --needed gcc",
        "zstd": "pacman -S --needed zstd",
        "kernel builds": "pacman -S --needed make flex bison bc libelf",
        "numpy": "pacman -S --needed gcc-libs",
    },
    "nixos": {
        "C compiler": "nix-shell -p gcc glibc.static",
        "compiled kernels": "pip install ziglang, or nix-shell -p gcc glibc.static",
        "zstd": "nix-shell -p zstd",
        "kernel builds": "nix-shell -p gnumake flex bison bc elfutils",
        "numpy": "name the libraries in LD_LIBRARY_PATH, as docs/hosts.md says of NixOS",
    },
}
"""What `doctor` prints on each distribution for each thing that is not there."""


@pytest.mark.parametrize("distributed", [*COMMANDS, "ubuntu"])
def test_what_is_missing_is_named_with_the_distribution_s_command(
    distributed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "os-release").write_text(f"NAME=x\nID={distributed}\n")
    monkeypatch.setattr(doctor, "distribution", lambda: distribution(tmp_path / "os-release"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.importlib, "import_module", without_the_library)
    wanted = COMMANDS["debian" if distributed == "ubuntu" else distributed]
    assert {finding.what: finding.cure for finding in examine() if finding.what in wanted} == wanted


def without_the_library(name: str) -> ModuleType:
    """As numpy's import ends where libstdc++ is not: a long text of its own, for what the loader said."""
    try:
        raise ImportError("libstdc++.so.6: cannot open shared object file: No such file or directory")
    except ImportError as error:
        raise ImportError("\n\nIMPORTANT: PLEASE READ THIS\n") from error


def test_a_numpy_that_cannot_be_loaded_is_told_by_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib, "import_module", without_the_library)
    numpy = found("numpy")
    assert numpy.fatal
    assert numpy.text == "cannot be loaded: libstdc++.so.6: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            RuntimeError("NumPy was built with baseline optimizations: (X86_V2)"),
            "NumPy was built with baseline optimizations: (X86_V2)",
        ),
        (ImportError(), "ImportError"),
    ],
)
def test_a_numpy_that_fails_by_itself_is_to_be_installed_anew(
    monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    monkeypatch.setattr(doctor.importlib, "import_module", create_autospec(importlib.import_module, side_effect=error))
    numpy = found("numpy")
    assert numpy.text == f"cannot be loaded: {text}"
    assert numpy.cure == f"{sys.executable} -m pip install --force-reinstall numpy"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ID=debian\n", DEBIAN),
        ('ID=ubuntu\nID_LIKE="debian"\n', DEBIAN),
        ("ID=fedora\n", FEDORA),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', FEDORA),
        ("ID=manjaro\nID_LIKE=arch\n", ARCH),
        ("ID=nixos\n", NIXOS),
        ("ID=unheard-of\n", DEBIAN),
        ("", DEBIAN),
    ],
)
def test_a_distribution_is_known_by_its_os_release(text: str, wanted: Distribution, tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text(text)
    assert distribution(file) is wanted


def test_every_distribution_has_a_package_for_everything() -> None:
    assert len({frozenset(each.packages) for each in (DEBIAN, FEDORA, ARCH, NIXOS)}) == 1
