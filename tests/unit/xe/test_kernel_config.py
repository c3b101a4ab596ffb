"""The kernel's options in docs/your-own-kernel.md are those of the files that users merge."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.info import BASE, DEBUG
from vfio_user_xe.emulator.guest.kernel_config import rows, table

PAGE = Path(__file__).parents[3] / "docs" / "your-own-kernel.md"


@pytest.mark.parametrize("file", [BASE, DEBUG])
def test_the_page_has_the_table_of_the_file(file: Path) -> None:
    assert table(file) in PAGE.read_text(), "run: vfio-user-xe kernel config --for debug --table"


def test_no_option_has_two_values() -> None:
    named = [option for row in rows(BASE) for option in row.wanted]
    assert len(named) == len(set(named))


def test_what_a_guest_cannot_do_without_is_named() -> None:
    fatal = {option for row in rows(BASE) for loss in row.losses if loss.fatal for option in loss.options}
    assert {"PCI", "ACPI", "DEVTMPFS", "BLK_DEV_INITRD", "SERIAL_8250_CONSOLE", "DRM_XE"} - fatal == {"DRM_XE"}
