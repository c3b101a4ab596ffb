"""PCI Express and its link as a function shows them. Layouts: PCI Express base specification, chapter 7.

There is no link: what a driver sets here it reads back, and nothing follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.config_space import ConfigRegister

ASPM_L0S, ASPM_L1 = 1, 2
_ANY_LATENCY = 7 << 6 | 7 << 9
"""Acceptable latencies of L0s and L1 in Device Capabilities: "no limit"."""


class PciExpress(Capability):
    """PCIe endpoint, version 2. Initiate FLR is bit 15 of Device Control, at `offset + 8`."""

    id = 0x10
    name = "PCIe"

    def __init__(
        self,
        offset: int | None = None,
        *,
        flr: bool = True,
        link_speed: int = 4,
        link_width: int = 8,
        max_payload: int = 256,
        aspm: int = ASPM_L1,
        aspm_optional: bool = False,
        any_latency: bool = False,
        completion_timeouts: int = 0xF,
        ltr: bool = False,
        tags_10_bit: bool = False,
    ) -> None:
        """`link_speed` is the PCIe generation 1..6, `link_width` lanes, `max_payload` bytes (128..4096).

        `aspm` are `ASPM_L0S` and `ASPM_L1`; `aspm_optional` is ASPM Optionality Compliance. `any_latency`: the endpoint accepts
        every exit latency, not the shortest only. `completion_timeouts` are bits 3:0 of Device Capabilities 2 (ranges A to D).

        Raises:
            ValueError: `max_payload` is none of these, or an offset that may not be.

        While the card is made, before it starts.
        """
        super().__init__(offset)
        if max_payload not in (128, 256, 512, 1024, 2048, 4096):
            raise ValueError(f"capability PCIe: max_payload {max_payload}, allowed are 128 to 4096, powers of two")
        self.flr = flr
        self.link_speed = link_speed
        self.link_width = link_width
        self.max_payload = max_payload
        self.aspm = aspm
        self.aspm_optional = aspm_optional
        self.any_latency = any_latency
        self.completion_timeouts = completion_timeouts
        self.ltr = ltr
        self.tags_10_bit = tags_10_bit

    def registers(self) -> Sequence[ConfigRegister]:
        is_vf = self.function is not None and self.function.is_vf
        payload = self.max_payload.bit_length() - 8
        link = self.link_speed | self.link_width << 4
        speeds = ((1 << self.link_speed) - 1) << 1
        # Extended tags, role based error reporting, FLR.
        capabilities = payload | self.any_latency * _ANY_LATENCY | 1 << 5 | 1 << 15 | self.flr << 28
        # Completion timeout disable, LTR, 10-bit tags as completer and requester.
        capabilities_2 = self.completion_timeouts | 1 << 4 | self.ltr << 11 | self.tags_10_bit * (3 << 16)
        return [
            # Version 2, type 0 (PCIe endpoint).
            ConfigRegister("PCIE_CAPABILITIES", 2, 2, reset=0x0002),
            ConfigRegister("DEVICE_CAPABILITIES", 4, 4, reset=capabilities),
            # A VF has only Initiate FLR here; the rest is its PF's (SR-IOV spec, "Device Control Register Changes").
            ConfigRegister(
                "DEVICE_CONTROL",
                8,
                2,
                reset=0 if is_vf else 0x2810,
                writable=0 if is_vf else 0x7FFF,
                write=self._control_written,
            ),
            ConfigRegister("DEVICE_STATUS", 10, 2, w1c=0x000F),
            # Exit latencies below 64 ns and 1 µs, clock power management absent.
            ConfigRegister("LINK_CAPABILITIES", 12, 4, reset=link | self.aspm << 10 | self.aspm_optional << 22),
            ConfigRegister("LINK_CONTROL", 16, 2, writable=0 if is_vf else 0x0FC3),
            ConfigRegister("LINK_STATUS", 18, 2, reset=0 if is_vf else link),
            ConfigRegister("SLOT", 20, 8),
            ConfigRegister("ROOT", 28, 8),
            ConfigRegister("DEVICE_CAPABILITIES_2", 36, 4, reset=capabilities_2),
            ConfigRegister(
                "DEVICE_CONTROL_2", 40, 2, writable=0 if is_vf else 0x001F | self.ltr << 10 | self.tags_10_bit << 12
            ),
            ConfigRegister("DEVICE_STATUS_2", 42, 2),
            ConfigRegister("LINK_CAPABILITIES_2", 44, 4, reset=speeds),
            ConfigRegister("LINK_CONTROL_2", 48, 2, reset=0 if is_vf else self.link_speed, writable=0x000F),
            ConfigRegister("LINK_STATUS_2", 50, 2),
            ConfigRegister("SLOT_2", 52, 8),
        ]

    def _control_written(self, old: int, written: int) -> None:
        if self.flr and written & 0x8000:
            assert self.function is not None
            self.function.function_level_reset()


class LatencyTolerance(Capability):
    """LTR: the largest latencies, with and without snooping, that a driver lets the device report; a link has them, or none."""

    id = 0x0018
    name = "LTR"
    extended = True

    def registers(self) -> Sequence[ConfigRegister]:
        # A value of 10 bits and a scale of 3, each.
        return [
            ConfigRegister("MAX_SNOOP_LATENCY", 4, 2, writable=0x1FFF),
            ConfigRegister("MAX_NO_SNOOP_LATENCY", 6, 2, writable=0x1FFF),
        ]
