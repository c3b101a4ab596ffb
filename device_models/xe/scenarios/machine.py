"""What the dma-buf scenarios work with: cards under xe in a guest, and processes of the guest program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Self

from vfio_user_xe.device_models.xe.scenarios.card import PF, XeCard
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.scenarios.machine import Booted, Card, Machine, Shell
from vfio_user_xe.emulator.scenarios.run import Run

MIB = 1 << 20
BAR2 = 256 * MIB
"""Of every VF."""
SCATTERED = 206 * MIB
"""A quota that no single block of the driver's allocator holds."""
SMALL_SHARE = 256 * MIB
"""What series from 7.0 on give each of two VFs of a card with 2 GiB. Those before give 888 MiB, and clearing them takes a slow card
more than 5 s: xe gives a reset up then, and the VF is never served again (`xe_gt_sriov_pf_control.c:pf_exit_vf_flr_reset_config`);
it does the same when VFs are disabled, so they must never have had that much."""
HUNG_SECONDS = 5
_BUSY = 900.0
"""Seconds: searching all symbols takes one on an idle host, and minutes in a guest among many without KVM."""

_INTERCONNECT_SYMBOLS = (
    "dma_buf_map_interconnect|dma_buf_match_interconnects|dma_buf_match_mapping|dma_buf_mapping_attach"
)
_KASAN_SYMBOL = "kasan_report"
_EXPORT_SYMBOL = "vfio_pci_core_feature_dma_buf"


class XeMachine(Machine):
    """xe on the PF, two VFs on vfio-pci."""

    card: XeCard
    others: Sequence[XeCard]

    zero_copy: bool
    """Whether the kernel knows how to map dma-bufs by device address."""
    exports_dma_bufs: bool
    """Whether this kernel's vfio-pci has the feature that exports memory as a dma-buf."""
    kasan: bool
    """Whether the kernel finds uses after free."""
    translating: bool
    """Whether the PF's DMA goes through a translating IOMMU domain."""
    quota: int
    """VRAM in bytes that xe gave each of two VFs."""
    visible: int
    """Bytes of it that a VF's BAR2 shows."""

    def __init__(
        self, shell: Shell, card: Card, others: Sequence[Card] = (), pf: str = PF, share: int | None = None
    ) -> None:
        """Load the drivers and enable VFs: two of the first card, one of each other.

        `share`: bytes of VRAM for each VF where the driver would give them all there is.

        Raises:
            GuestError: a driver does not load, or VFs do not come.
            LookupError: VF 1 has no VRAM.
        """
        super().__init__(shell, card, others)
        self._numbers = itertools.count()
        self.card = XeCard(shell, card, pf)
        self.card.load_drivers()
        self.watch_for_hung_tasks()
        self.run(
            "echo -1 > /proc/sys/kernel/hung_task_warnings;"
            " echo 1 > /proc/sys/kernel/sysrq; echo 2 > /sys/module/drm/parameters/debug"
        )
        # Drivers that take shares back to share out anew by themselves give small ones.
        if share is not None and not self.card.share_evenly():
            for number in (1, 2):
                self.card.set_quota(number, share)
        self.card.enable_vfs(2)
        self.others = [
            XeCard(shell, other, its_pf) for other, its_pf in zip(others, self.card.other_pfs(), strict=True)
        ]
        for other in self.others:
            other.enable_vfs(1)
        looked = self.run(
            f"grep -owE '{_INTERCONNECT_SYMBOLS}|{_KASAN_SYMBOL}|{_EXPORT_SYMBOL}' /proc/kallsyms | sort -u",
            timeout=_BUSY,
        )
        symbols = set(looked.stdout.split())
        self.kasan = _KASAN_SYMBOL in symbols
        self.exports_dma_bufs = _EXPORT_SYMBOL in symbols
        self.zero_copy = bool(symbols - {_KASAN_SYMBOL, _EXPORT_SYMBOL})
        self.translating = self.sh(f"cat {self.card.sysfs}/iommu_group/type 2>/dev/null || echo none").startswith("DMA")
        self.quota = sum(block["size"] for block in self.card.lmtt(1))
        if not self.quota:
            raise LookupError("xe gave VF 1 no VRAM: is its provisioning broken, or the card too small?")
        self.visible = min(self.quota, BAR2)

    @classmethod
    def of_small_shares(cls, booted: Booted) -> Self:
        """The machine of a guest whose card is slow at clearing memory: no VF has more than `SMALL_SHARE`.

        Raises:
            GuestError: as the constructor.
            LookupError: as the constructor, or this driver takes no quotas.
        """
        return cls(booted.guest, booted.card, booted.others, share=SMALL_SHARE)

    @classmethod
    def on_the_root_bus(cls, booted: Booted) -> Self:
        """The machine of a guest whose card has no root port."""
        return cls(booted.guest, booted.card, booted.others, pf="0000:00:05.0")

    def watch_for_hung_tasks(self, seconds: int = HUNG_SECONDS) -> None:
        """Let the kernel report tasks that sleep uninterruptibly for so long, where it can."""
        self.run(f"echo {seconds} > /proc/sys/kernel/hung_task_timeout_secs; true")

    def start(self, observer: Callable[[Step], None]) -> Program:
        """A new process of the guest program; its caller ends it.

        Raises:
            ProgramError: it does not start.
        """
        made = Program(self.shell, f"c{next(self._numbers)}", observer)
        made.start()
        return made

    def reprovision(self, quota: int) -> None:
        """VF 1 with another quota in bytes, alone.

        Raises:
            GuestError: the driver does not give it.
        """
        self.card.disable_vfs()
        self.card.set_quota(1, quota)
        self.card.enable_vfs(1)

    def restore_quotas(self, run: Run) -> None:
        """Two VFs, with what they had in the beginning; a driver that lost VRAM cannot, and the guest is given up."""
        try:
            self.card.disable_vfs()
            if not self.card.share_evenly():
                for number in (1, 2):
                    self.card.set_quota(number, self.quota)
            self.card.enable_vfs(2)
        except GuestError as error:
            run.give_up(f"the VFs do not get their VRAM back: {str(error).splitlines()[0]}")


def account(machine: XeMachine) -> dict[str, int]:
    """VRAM that xe on the PF has given away, VFs' shares and buffers."""
    return {"VRAM in use": machine.card.vram_used()}
