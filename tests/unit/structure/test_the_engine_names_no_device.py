"""`emulator/` knows no device, not even as a string: what it has to know of one is an attribute of the device model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.info import INFO
from vfio_user_xe.emulator.model.plugin_loading import default_model, device_models

EMULATOR = Path(__file__).parents[3] / "emulator"
WORDS = re.compile(
    r"(?<![a-z0-9])(battlemage|bmg|guc|huc|lmtt|ggtt|ppgtt|gdpa|i915|xe|intel)(?![a-z0-9])", re.IGNORECASE
)
ALLOWED = re.compile(
    r"vfio[-_]user[-_]xe"  # the product's own name
    r"|intel[-_]iommu"  # QEMU's and Linux's name of the vIOMMU
    r"|kvm_intel",  # Linux's module
    re.IGNORECASE,
)


def words_in(text: str) -> list[str]:
    return [f"line {number}: {match[0]}" for number, line in enumerate(text.splitlines(), 1)
            for match in WORDS.finditer(ALLOWED.sub("", line))]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('_FIRMWARE = {"card": "maker/bmg_guc_70.bin"}', ["line 1: bmg", "line 1: guc"]),
        ('DEFAULT_MODEL = "xe"', ["line 1: xe"]),
        ("import vfio_user_xe; run `vfio-user-xe serve` with VFIO_USER_XE_QEMU", []),
        ('["-device", "intel-iommu,intremap=on", "-cpu", "max,vendor=GenuineIntel"]', []),
        ("an Intel card", ["line 1: Intel"]),
        ("execute, pixel, exe, GuCs' messages are no words of it", []),
    ],
)
def test_words_are_found_alone_and_in_names(line: str, found: list[str]) -> None:
    assert words_in(line) == found


def test_no_file_of_the_engine_names_a_device() -> None:
    files = [path for path in sorted(EMULATOR.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 100
    named = {str(path.relative_to(EMULATOR)): words_in(path.read_text("utf-8")) for path in files}
    assert {name: found for name, found in named.items() if found} == {}


def test_one_installed_model_is_the_default_and_says_what_the_engine_asks() -> None:
    assert default_model().info is INFO
    assert [model.name for model in device_models()] == ["conformance", "edu", "xe"]
    assert {name for name, topology in INFO.topologies.items() if topology.iommu} == {"nested"}
    for name in ("suite.toml", "expectations.toml"):
        assert (INFO.suites["igt"] / name).is_file()
