"""`kernel config|check|build`, the last on a stand-in for a kernel tree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Done
from typer.testing import CliRunner

from tests.support.kernel_tree import make_tree
from vfio_user_xe.device_models.xe.info import BASE, DEBUG
from vfio_user_xe.emulator.cli.kernel import app


def invoke(*words: Any) -> Done:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_fragment_has_the_options_of_its_purpose() -> None:
    assert invoke("config").output.strip() == BASE.read_text().strip()
    assert DEBUG.read_text() in invoke("config", "--for", "debug").output
    assert invoke("config", "--for", "debug", "--table").output.count("| for | options |") == 2


def test_an_unknown_purpose_or_a_model_without_one_is_wrong_use() -> None:
    done = invoke("config", "--for", "debgu")
    assert (done.exit_code, "did you mean" in done.output) == (2, True)
    done = invoke("config", "--model", "edu")
    assert (done.exit_code, "says nothing of a kernel's configuration" in done.output) == (2, True)


def test_a_check_says_what_is_lost_and_ends_with_1_where_nothing_runs(tmp_path: Path) -> None:
    file = tmp_path / ".config"
    file.write_text(BASE.read_text())
    done = invoke("check", file)
    assert (done.exit_code, "has every option" in done.output) == (0, True)
    file.write_text(BASE.read_text().replace("CONFIG_DRM_VGEM=m", ""))
    done = invoke("check", file)
    assert done.exit_code == 0
    assert "lost    CONFIG_DRM_VGEM (not set, wanted: m): 10 is not applicable" in done.output
    file.write_text(BASE.read_text().replace("CONFIG_PCI=y", ""))
    done = invoke("check", file, "--json")
    assert done.exit_code == 1
    said = json.loads(done.output)
    assert (said["usable"], [item["option"] for item in said["missing"]]) == (False, ["PCI"])


def test_what_cannot_be_checked_is_named(tmp_path: Path) -> None:
    done = invoke("check", tmp_path / "gone")
    assert (done.exit_code, "gone: cannot be read" in done.output) == (2, True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "linux")


def test_a_tree_is_built_beside_itself_and_the_line_to_run_it_is_printed(tree: Path, tmp_path: Path) -> None:
    before = sorted(tree.rglob("*"))
    done = invoke("build", tree, "-j", 2)
    assert done.exit_code == 0, done.output
    objects = tmp_path / "linux-scenarios"
    image, modules = objects / "arch/x86/boot/bzImage", objects / "installed"
    assert f"vfio-user-xe scenario run --kernel {image} --modules {modules}\n" in done.output
    assert "# 9.9.9\n" in done.output
    assert "LD [M] some.ko" in done.output
    assert "lost    CONFIG_VFIO (not set, wanted: m): VFs have no exporter" in done.output
    assert sorted(tree.rglob("*")) == before, "nothing is written to the tree"
    config = (objects / ".config").read_text()
    assert "CONFIG_DRM_XE=m" in config


def test_a_folder_that_is_configured_is_built_further(tree: Path, tmp_path: Path) -> None:
    fragment = tmp_path / "more.config"
    fragment.write_text("# mine\nCONFIG_MORE=y\n")
    assert invoke("build", tree, "-o", tmp_path / "obj", "-q").exit_code == 0
    assert invoke("build", tree, "-o", tmp_path / "obj", "-q", "--config", fragment).exit_code == 0
    assert "CONFIG_MORE" not in (tmp_path / "obj" / ".config").read_text()
    assert invoke("build", tree, "-o", tmp_path / "obj", "-q", "--config", fragment, "--reconfigure").exit_code == 0
    assert "CONFIG_MORE" in (tmp_path / "obj" / ".config").read_text()


def test_a_configuration_that_was_not_finished_is_made_anew_the_next_time(tree: Path, tmp_path: Path) -> None:
    merge = tree / "scripts" / "kconfig" / "merge_config.sh"
    whole = merge.read_text()
    merge.write_text("#!/bin/sh\nexit 3\n")
    assert invoke("build", tree, "-o", tmp_path / "obj", "-q").exit_code != 0
    merge.write_text(whole)
    assert invoke("build", tree, "-o", tmp_path / "obj", "-q").exit_code == 0
    assert "CONFIG_DRM_XE=m" in (tmp_path / "obj" / ".config").read_text()


@pytest.mark.parametrize("fails", ["tinyconfig", "merge_config.sh"])
def test_a_configuration_of_the_users_survives_one_that_fails(fails: str, tree: Path, tmp_path: Path) -> None:
    config = tmp_path / "obj" / ".config"
    config.parent.mkdir()
    config.write_text("# mine\n")
    if fails == "tinyconfig":
        makefile = tree / "Makefile"
        makefile.write_text(makefile.read_text().replace("\tprintf", "\tfalse; exit 3; printf"))
    else:
        (tree / "scripts" / "kconfig" / "merge_config.sh").write_text("#!/bin/sh\nexit 3\n")
    assert invoke("build", tree, "-o", config.parent, "-q", "--reconfigure").exit_code == 1
    assert config.read_text() == "# mine\n"
    assert [path.name for path in config.parent.iterdir()] == [".config"]


def test_the_configuration_that_another_took_the_place_of_is_kept(tree: Path, tmp_path: Path) -> None:
    config = tmp_path / "obj" / ".config"
    config.parent.mkdir()
    config.write_text("# mine\n")
    assert invoke("build", tree, "-o", config.parent, "-q", "--reconfigure").exit_code == 0
    assert "# mine" not in config.read_text()
    assert config.with_name(".config.old").read_text() == "# mine\n"


def test_a_users_files_beside_the_modules_stay_and_modules_of_an_earlier_build_go(tree: Path, tmp_path: Path) -> None:
    mine, earlier = tmp_path / "obj/installed/mine", tmp_path / "obj/installed/lib/modules/9.9.8/some.ko"
    earlier.parent.mkdir(parents=True)
    mine.touch()
    earlier.touch()
    assert invoke("build", tree, "-o", tmp_path / "obj", "-q").exit_code == 0
    assert mine.exists()
    assert [path.name for path in (tmp_path / "obj/installed/lib/modules").iterdir()] == ["9.9.9"]


def test_a_build_that_fails_says_the_command_and_its_last_words(tree: Path, tmp_path: Path) -> None:
    (tree / "behaviour").write_text("does-not-build")
    done = invoke("build", tree, "-o", tmp_path / "obj", "-q")
    assert done.exit_code == 1
    assert "bzImage modules: ended with exit code 2" in done.output
    assert "behaviour.c:7: error: it does not build" in done.output


def test_what_is_no_kernel_tree_is_named(tmp_path: Path) -> None:
    done = invoke("build", tmp_path)
    assert (done.exit_code, "is no kernel tree: it has no Makefile" in done.output) == (2, True)


def test_a_machine_without_make_is_told_what_a_kernel_needs(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    done = invoke("build", tree)
    assert (done.exit_code, "there is no make on PATH" in done.output) == (2, True)
