"""The card's PF with the kernel's stub driver, which enables VFs and does nothing else."""

from __future__ import annotations

PF = "0000:01:00.0"
STUB = f"""
echo pci-pf-stub > /sys/bus/pci/devices/{PF}/driver_override
modprobe pci-pf-stub
echo {PF} > /sys/bus/pci/drivers/pci-pf-stub/bind 2>/dev/null
test "$(readlink -f /sys/bus/pci/devices/{PF}/driver)" = /sys/bus/pci/drivers/pci-pf-stub
"""
