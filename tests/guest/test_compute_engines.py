"""Kernels on four compute engines at once."""

from __future__ import annotations

import pytest

from tests.support.guest.compute import COPIED, MADE, MIB, begin, opened
from vfio_user_xe.device_models.xe.scenarios.card import PF
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.steps import kernel_command

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]


def test_kernels_run_on_all_engines_that_ccs_mode_gives() -> None:
    # The driver offers ccs_mode on cards without VFs only.
    with opened(0) as lab:
        lab.guest.run(f"echo 4 > /sys/bus/pci/devices/{PF}/tile0/gt0/ccs_mode", check=True)
        programs = [Program(lab.guest, f"p{number}") for number in range(4)]
        for seed, program in enumerate(programs, 1):
            begin(program, PF)
            program.do(
                kernel_command("pattern", MADE, 0, MIB, seed),
                f"spawn work loop {kernel_command('copy', COPIED, MADE, MIB, 20)}",
            )
        programs[0].do("sleep 3000")
        for seed, program in enumerate(programs, 1):
            program.do("stop work", "join work 60000", f"verify copied 0 0 {MIB:#x} {seed}", timeout=90)
        busy = {engine["name"]: sum(engine["busy_ns"].values()) for engine in lab.card.call("engines")}
        assert all(busy[f"ccs{number}"] for number in range(4)), busy
