"""`--topology`, `--cards` and what `qemu-args` makes of them: whole programs, without guests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.wait import eventually
from vfio_user_xe.emulator.testing.lab import CONFIG, open_card

SRIOV = 0x320
VF_CAP = 0x1901F8
"""A register that says whether the function is a VF."""


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `vfio-user-xe`."""
    line = [sys.executable, "-m", "vfio_user_xe.emulator", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)


def qemu_arguments(*words: str | Path) -> list[str]:
    """What `qemu-args` prints."""
    done = command("qemu-args", "--json", *words)
    assert done.returncode == 0, done.stderr
    arguments: list[str] = json.loads(done.stdout)
    return arguments


def sockets(arguments: list[str]) -> list[str]:
    """Names of the sockets that the devices of these arguments use, in order."""
    return [
        Path(json.loads(word)["socket"]["path"]).relative_to(Path(json.loads(word)["socket"]["path"]).parents[1]).name
        for word in arguments
        if word.startswith("{")
    ]


def test_qemu_args_attach_what_belongs_into_each_guest_of_a_split_card() -> None:
    with open_card(["--topology", "split", "--vfs", "2"]) as card:
        assert sockets(qemu_arguments("--socket-dir", card.folder)) == [
            "pf.sock",
            "vf1-placeholder.sock",
            "vf2-placeholder.sock",
        ]
        alone = qemu_arguments("--socket-dir", card.folder, "--function", "vf2")
        assert sockets(alone) == ["vf2.sock"]
        assert "-qtest" not in alone
        wrong = command("qemu-args", "--socket-dir", card.folder, "--function", "vf3")
        assert wrong.returncode == 2
        assert "--function vf3: the card has pf, vf1, vf1-placeholder, vf2, vf2-placeholder" in wrong.stderr


def test_the_host_of_a_passed_on_vf_governs_what_its_user_has_of_it() -> None:
    with open_card(["--topology", "passthrough", "--vfs", "1"]) as card:
        assert sockets(qemu_arguments("--socket-dir", card.folder)) == ["pf.sock", "vf1-host.sock"]
        assert sockets(qemu_arguments("--socket-dir", card.folder, "--function", "vf1")) == ["vf1.sock"]
        with contextlib.ExitStack() as stack:
            pf, host, user = (
                stack.enter_context(contextlib.closing(card.client(name))) for name in ("pf", "vf1-host", "vf1")
            )

            def state() -> str:
                card.call("ledger")
                [passed] = card.call("passthrough")
                return str(passed["state"])

            assert state() == "absent"
            pf.write(CONFIG, SRIOV + 0x10, 2, 1)
            pf.write(CONFIG, SRIOV + 0x08, 2, 0x9)
            assert state() == "closed"
            assert user.read(0, VF_CAP, 4) == 0xFFFFFFFF
            host.write(CONFIG, 0x04, 2, 0x6)
            assert state() == "open"
            assert user.read(0, VF_CAP, 4) == host.read(0, VF_CAP, 4) == 1
            user.write(CONFIG, 0x04, 2, 0x6)
            user.reset()
            assert state() == "reset-wanted"
            assert user.read(0, VF_CAP, 4) == 0xFFFFFFFF
            host.write(CONFIG, 0x78, 2, 0x8000)
            host.write(CONFIG, 0x04, 2, 0x6)
            assert state() == "open"
            pf.write(CONFIG, SRIOV + 0x08, 2, 0)
            assert state() == "absent"


def test_neither_side_of_a_passed_on_vf_holds_up_the_other_by_going_away() -> None:
    with open_card(["--topology", "passthrough", "--vfs", "1"]) as card:
        with contextlib.closing(card.client("pf")) as pf, contextlib.closing(card.client("vf1-host")) as host:
            pf.write(CONFIG, SRIOV + 0x10, 2, 1)
            pf.write(CONFIG, SRIOV + 0x08, 2, 0x9)
            host.write(CONFIG, 0x04, 2, 0x6)
            user = card.client("vf1")
            user.write(CONFIG, 0x04, 2, 0x6)
            user.close()
            # A machine that comes after one that was killed has a device that nobody has reset.
            with contextlib.closing(card.client("vf1")) as second:
                assert second.read(0, VF_CAP, 4) == 0xFFFFFFFF
                assert host.read(0, VF_CAP, 4) == 1
        with contextlib.closing(card.client("vf1")) as last:
            eventually(lambda: card.call("passthrough")[0]["state"] == "closed", "the host's machine is gone")
            assert last.read(0, VF_CAP, 4) == 0xFFFFFFFF


def test_a_vf_only_card_has_no_socket_for_a_pf() -> None:
    with open_card(["--topology", "vf-only", "--vfs", "2"]) as card:
        assert sockets(qemu_arguments("--socket-dir", card.folder)) == ["vf1.sock", "vf2.sock"]
        assert not (card.folder / "pf.sock").exists()
        assert [vf["function"] for vf in card.call("pf_part")] == ["vf1", "vf2"]


def test_a_nested_card_comes_with_a_viommu_before_it() -> None:
    with open_card(["--topology", "nested", "--vfs", "1"]) as card:
        arguments = qemu_arguments("--socket-dir", card.folder, "--machine")
        [iommu] = [n for n, word in enumerate(arguments) if word.startswith("intel-iommu")]
        [port] = [n for n, word in enumerate(arguments) if word.startswith("pcie-root-port")]
        assert iommu < port
        assert "q35,memory-backend=ram,kernel-irqchip=split" in arguments


def test_cards_of_one_server_are_attached_together_and_leave_nothing() -> None:
    with open_card(["--cards", "2", "--vfs", "1"]) as cards, open_card(["--vfs", "0"]) as other:
        arguments = qemu_arguments("--socket-dir", cards.folder, "--socket-dir", other.folder)
        paths = [json.loads(word)["socket"]["path"] for word in arguments if word.startswith("{")]
        assert [str(Path(path).relative_to(cards.folder)) for path in paths[:4]] == [
            "card1/pf.sock",
            "card1/vf1.sock",
            "card2/pf.sock",
            "card2/vf1.sock",
        ]
        assert paths[4] == str(other.folder / "pf.sock")
        assert arguments.count("-qtest") == 1
        assert [description.card for description in cards.descriptions] == ["xe1", "xe2"]
        folder = cards.folder
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--topology", "ring"],
            '"ring" is not allowed; allowed is one of "same-guest", "split", "passthrough", "nested", "vf-only"',
        ),
        (["--topology", "split", "--vfs", "0"], "topology split needs VFs, and vfs is 0"),
        (["--model", "edu", "--topology", "split"], 'there is no option of the device model edu "topology"'),
        (["--cards", "2", "--record", "x"], "--cards 2: --record and --trace are for one card"),
        (["--cards", "9"], "Invalid value for '--cards': Input should be less than or equal to 8"),
    ],
)
def test_what_cannot_be_served_is_said(tmp_path: Path, words: list[str], message: str) -> None:
    done = command("serve", "--socket-dir", tmp_path / "sockets", *words)
    assert done.returncode == 2, done.stdout
    assert message in " ".join(done.stderr.split()), done.stderr
