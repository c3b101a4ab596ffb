"""A served card and a guest that has it, for one test module.

@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab(["--vfs", "2"], modules=["pci-pf-stub"]) as lab:
        yield lab
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emulator.guest import GuestSpec, Iommu, Kernel, Machine, MissingEnvironment, locate
from emulator.guest.blocking import BlockingGuest
from emulator.guest.served import ServedCard, served_card
from emulator.qemu_arguments import device_arguments

XE_FIRMWARE = ("xe/bmg_guc_70.bin", "xe/bmg_huc.bin")


@dataclass(slots=True)
class Lab:
    """What a guest test works with."""

    card: ServedCard
    guest: BlockingGuest

    def sh(self, command: str, timeout: float = 60) -> str:
        """Run a command that must succeed; its output without the last newline."""
        return self.guest.run(command, timeout=timeout, check=True).stdout.rstrip("\n")


@contextmanager
def open_lab(
    serve: Sequence[str] = (),
    *,
    modules: Sequence[str] = (),
    load: Sequence[str] = (),
    firmware: Sequence[str] | None = None,
    files: Mapping[str, Any] | None = None,
    memory: int = 1024,
    cpus: int = 1,
    cpu: str | None = None,
    iommu: bool = False,
    ovmf: bool = False,
    append: str = "",
    kernel: Kernel | None = None,
    console: Path | None = None,
    qtest: bool = True,
) -> Iterator[Lab]:
    """Serve a card with these arguments of `serve`, boot a guest with it, end both."""
    try:
        locate()
    except MissingEnvironment as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")
    if firmware is None:
        firmware = XE_FIRMWARE if "xe" in modules else ()
    with served_card(serve) as card:
        spec = GuestSpec(
            machine=Machine(
                memory=memory,
                cpus=cpus,
                cpu=cpu,
                iommu=Iommu() if iommu else None,
                ovmf=ovmf,
                arguments=device_arguments(card.description, qtest=qtest),
            ),
            modules=tuple(modules),
            load=tuple(load),
            firmware=tuple(firmware),
            files=dict(files or {}),
            append=append,
            kernel=kernel,
            console_log=console,
        )
        with BlockingGuest(spec) as guest:
            try:
                yield Lab(card, guest)
            except BaseException:
                print(f"--- server log ---\n{card.log_tail()}\n--- guest console ---\n{guest.console_tail()}")
                raise
