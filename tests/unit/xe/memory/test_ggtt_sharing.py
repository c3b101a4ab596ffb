"""Whose GGTT entries are whose, and where they are: in a VF's own window, or in the PF's."""

from __future__ import annotations

from unittest.mock import NonCallableMock, create_autospec

import pytest

from vfio_user_xe.device_models.xe.memory.address_space import GgttSpace
from vfio_user_xe.device_models.xe.memory.formats.ggtt import PTES_SIZE, VFID_SHIFT
from vfio_user_xe.device_models.xe.memory.function import Device, XeFunction
from vfio_user_xe.device_models.xe.memory.ggtt import Ggtt
from vfio_user_xe.device_models.xe.memory.ggtt_sharing import GgttSharing, TrappedGgtt

MIB = 1 << 20
START, SIZE = 64 * MIB, 4 * MIB
FIRST, LAST = START >> 12, (START + SIZE >> 12) - 1


@pytest.fixture
def gpu() -> Device:
    functions = [
        NonCallableMock(
            spec=XeFunction,
            vfid=vfid,
            ggtt=Ggtt(vfid, memoryview(bytearray(PTES_SIZE))),
            ggtt_space=create_autospec(GgttSpace, instance=True),
        )
        for vfid in range(3)
    ]
    return NonCallableMock(spec=Device, functions=functions, pf=functions[0])


@pytest.fixture
def sharing(gpu: Device) -> GgttSharing:
    return GgttSharing(gpu)


def entries(gpu: Device, vfid: int) -> memoryview:
    view: memoryview = gpu.functions[vfid].ggtt.entries
    return view


def test_a_vf_gets_what_the_pf_left_in_its_range_and_not_what_it_wrote_there_before(
    gpu: Device, sharing: GgttSharing
) -> None:
    entries(gpu, 0)[FIRST] = 0x7001 | 1 << VFID_SHIFT
    entries(gpu, 1)[FIRST] = entries(gpu, 1)[LAST] = 0x666003
    sharing.provision(1, START, SIZE)
    assert entries(gpu, 1)[FIRST] == 0x7001
    assert entries(gpu, 1)[LAST] == 0


def test_the_same_range_again_changes_nothing(gpu: Device, sharing: GgttSharing) -> None:
    sharing.provision(1, START, SIZE)
    entries(gpu, 1)[FIRST] = 0x5003
    sharing.provision(1, START, SIZE)
    assert entries(gpu, 1)[FIRST] == 0x5003


def test_a_range_that_moves_leaves_marked_entries_to_the_pf_and_none_in_the_vfs_window(
    gpu: Device, sharing: GgttSharing
) -> None:
    sharing.provision(2, START, SIZE)
    entries(gpu, 2)[FIRST], entries(gpu, 2)[LAST] = 0x5003, 0x6003
    sharing.provision(2, START + 2 * MIB, SIZE)
    assert entries(gpu, 2)[FIRST] == 0
    assert entries(gpu, 0)[FIRST] == 0x5003 | 2 << VFID_SHIFT
    assert entries(gpu, 2)[LAST] == 0x6003, "what stays in the range is not touched"
    assert entries(gpu, 0)[LAST] == 0


def test_shown_entries_carry_the_vfid_and_come_back_as_the_pf_changed_them(gpu: Device, sharing: GgttSharing) -> None:
    sharing.provision(1, START, SIZE)
    entries(gpu, 1)[FIRST] = 0x5003 | 0x3FF << VFID_SHIFT
    sharing.show(1)
    assert entries(gpu, 0)[FIRST] == 0x5003 | 1 << VFID_SHIFT
    assert entries(gpu, 0)[LAST] == 1 << VFID_SHIFT
    entries(gpu, 0)[FIRST] = 0x8003 | 1 << VFID_SHIFT
    entries(gpu, 1)[LAST] = 0x666003
    sharing.show(1)
    assert entries(gpu, 0)[FIRST] == 0x8003 | 1 << VFID_SHIFT, "shown already: the PF's are the ones that count"
    sharing.take(1)
    assert (entries(gpu, 1)[FIRST], entries(gpu, 1)[LAST]) == (0x8003, 0)


def test_a_running_vfs_entries_are_not_taken(gpu: Device, sharing: GgttSharing) -> None:
    sharing.provision(1, START, SIZE)
    entries(gpu, 1)[FIRST] = 0x5003
    sharing.take(1)
    assert entries(gpu, 1)[FIRST] == 0x5003


def test_reset_takes_every_range_away(gpu: Device, sharing: GgttSharing) -> None:
    sharing.provision(1, START, SIZE)
    sharing.show(1)
    sharing.reset()
    assert (gpu.functions[1].ggtt.first, gpu.functions[1].ggtt.end) == (0, 0)
    assert not sharing.is_shown(1)


@pytest.mark.parametrize(("start", "size"), [(0x1001, 0x1000), (0x1000, 0x1001), (1 << 32, 0x1000)])
def test_a_range_of_broken_pages_or_outside_is_refused(sharing: GgttSharing, start: int, size: int) -> None:
    with pytest.raises(ValueError, match="whole pages inside 4 GiB"):
        sharing.provision(1, start, size)


class TestTrappedWindow:
    @pytest.fixture
    def window(self, gpu: Device, sharing: GgttSharing) -> TrappedGgtt:
        sharing.provision(1, START, SIZE)
        return TrappedGgtt(gpu, 1, sharing)

    def test_own_entries_are_written_whole_or_by_halves(self, gpu: Device, window: TrappedGgtt) -> None:
        window.write(8 * FIRST, 8, 0x1_2345_6003)
        assert window.read(8 * FIRST, 8) == 0x1_2345_6003
        window.write(8 * FIRST + 4, 4, 2)
        assert entries(gpu, 1)[FIRST] == 0x2_2345_6003
        assert window.read(8 * FIRST + 4, 4) == 2

    def test_the_vfid_cannot_be_written(self, gpu: Device, window: TrappedGgtt) -> None:
        window.write(8 * FIRST, 8, 0x5003 | 2 << VFID_SHIFT)
        assert entries(gpu, 1)[FIRST] == 0x5003
        assert window.read(8 * FIRST, 8) == 0x5003

    @pytest.mark.parametrize("page", [0, FIRST - 1, LAST + 1, PTES_SIZE // 8 - 1])
    def test_foreign_entries_read_zero_and_are_not_written(self, gpu: Device, window: TrappedGgtt, page: int) -> None:
        entries(gpu, 0)[page] = 0x7003
        window.write(8 * page, 8, 0x5003)
        assert window.read(8 * page, 8) == 0
        assert entries(gpu, 0)[page] == 0x7003
        assert entries(gpu, 1)[page] == 0

    def test_while_the_pf_has_them_they_are_the_same_entries(
        self, gpu: Device, sharing: GgttSharing, window: TrappedGgtt
    ) -> None:
        sharing.show(1)
        window.write(8 * FIRST, 8, 0x5003)
        assert entries(gpu, 0)[FIRST] == 0x5003 | 1 << VFID_SHIFT
        assert window.read(8 * FIRST, 8) == 0x5003
