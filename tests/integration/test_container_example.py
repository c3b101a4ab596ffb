"""The image's recipe and the compose file: what their tools accept, and what the card's service does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from tests.support import recipes
from vfio_user_xe.emulator.version import commit

FOLDER = Path(__file__).parents[2] / "examples" / "container"
COMPOSE = FOLDER / "compose.yaml"


def test_the_compose_file_is_what_its_schema_allows() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["build", "Containerfile"])
def test_steps_are_shell(name: str) -> None:
    text = (FOLDER / name).read_text()
    if name == "Containerfile":
        text = "\n".join(re.findall(r"^RUN (.*(?:\\\n.*)*)", text, re.MULTILINE))
        assert text.count("apt-get update") == 2
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("ca", "wanted"), [("", []), ("company.pem", ["company.crt"]), ("company", ["company.crt"])])
def test_the_image_gets_the_ca_that_build_is_told(ca: str, wanted: list[str], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "buildah"
    tool.write_text(f'#!/bin/sh\nfor last; do :; done\ncp -r "$last" {tmp_path}/context\n')
    tool.chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHON": "true"}
    if ca:
        (tmp_path / ca).write_text("-----BEGIN CERTIFICATE-----\n")
        variables["CA"] = str(tmp_path / ca)
    subprocess.run([FOLDER / "build"], env=variables, check=True)
    copied = tmp_path / "context" / "ca"
    assert [file.name for file in copied.iterdir()] == wanted
    assert re.search(
        r"^COPY ca/ /usr/local/share/ca-certificates/$", (FOLDER / "Containerfile").read_text(), re.MULTILINE
    )


@pytest.mark.timeout(300)
def test_the_card_s_service_becomes_healthy(tmp_path: Path) -> None:
    card = recipes.load(COMPOSE)["services"]["card"]

    def here(words: list[str]) -> list[str]:
        assert words[0] == "vfio-user-xe"
        return [
            sys.executable,
            "-m",
            "vfio_user_xe.emulator",
            *(word.replace("/run", str(tmp_path)) for word in words[1:]),
        ]

    kind, *check = card["healthcheck"]["test"]
    assert kind == "CMD"
    with subprocess.Popen(here(card["command"]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 200
            while subprocess.run(here(check), capture_output=True, check=False).returncode != 0:
                assert server.poll() is None, "the card's server ended"
                assert time.monotonic() < until, "the card never became healthy"
                time.sleep(1)
        finally:
            server.terminate()


def test_the_guest_waits_for_the_card() -> None:
    services = recipes.load(COMPOSE)["services"]
    assert services["guest"]["depends_on"]["card"]["condition"] == "service_healthy"
    assert services["guest"]["volumes"] == services["card"]["volumes"]


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A container of the built image, whose files buildah runs in a chroot: it needs no namespaces."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    if not buildah("images", "--quiet", "--filter", "reference=localhost/vfio-user-xe:latest").stdout.strip():
        pytest.skip("there is no image vfio-user-xe:latest: examples/container/build makes it, with buildah")
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    begun = buildah("from", "localhost/vfio-user-xe:latest")
    assert begun.returncode == 0, begun.stderr
    name = begun.stdout.strip()
    try:
        version = buildah("run", name, "--", "vfio-user-xe", "--version")
        if why := another(version.stdout):
            pytest.skip(why)
        yield name
    finally:
        buildah("rm", name)


def another(version: str) -> str:
    """Why the image that says this of itself is not one of this checkout as it is; empty: it is one."""
    found = re.search(r"\(commit (\S+)\)", version)
    said, here = found[1] if found else "none", commit()
    if said == here and not here.endswith("-dirty"):
        return ""
    return f"the image vfio-user-xe:latest is of commit {said}, and this checkout is {here}: examples/container/build makes it anew"


@pytest.mark.parametrize(
    ("said", "here", "good"),
    [
        ("0123456789ab", "0123456789ab", True),
        ("0123456789ab", "ba9876543210", False),
        ("0123456789ab-dirty", "0123456789ab-dirty", False),
        ("0123456789ab", "0123456789ab-dirty", False),
        ("", "0123456789ab", False),
    ],
)
def test_only_an_image_of_this_checkout_is_looked_at(
    said: str, here: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "commit", create_autospec(commit, return_value=here))
    why = another(f"vfio-user-xe 0.1.0{f' (commit {said})' * bool(said)}, plug-in API 2.1")
    assert (not why) is good
    assert good or f"is of commit {said or 'none'}, and this checkout is {here}" in why


def buildah(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["buildah", *words], capture_output=True, text=True, check=False)


@pytest.mark.timeout(1200)
def test_the_image_holds_all_that_a_guest_needs(container: str) -> None:
    version = buildah("run", container, "--", "vfio-user-xe", "--version")
    assert "(fetched)" in version.stdout, version.stdout + version.stderr
    doctor = buildah("run", container, "--", "vfio-user-xe", "doctor", "--json")
    assert json.loads(doctor.stdout)["usable"], doctor.stdout
    compiler = buildah("run", container, "--", "cc", "--version")
    assert compiler.returncode == 0, compiler.stderr
