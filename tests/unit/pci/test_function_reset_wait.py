"""A machine reset is over when it is answered."""

from __future__ import annotations

import time

import pytest

from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.pci import function as function_module
from vfio_user_xe.emulator.pci.capabilities import Msi
from vfio_user_xe.emulator.pci.function import Function, Identity


def test_what_follows_the_answer_to_a_reset_finds_the_device_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_module, "_RESET_SECONDS", 60)
    executor = Executor("test")
    executor.start()
    function = Function("pf", 0, executor=executor, identity=Identity(0x1234, 1), capabilities=[Msi()], bars={})
    state = {"value": 1}

    def model_reset(reason: str) -> None:
        time.sleep(0.05)
        state["value"] = 0

    function.on_reset.append(model_reset)
    try:
        for written in range(2, 6):
            state["value"] = written
            function.reset()
            assert state["value"] == 0
    finally:
        executor.stop()
