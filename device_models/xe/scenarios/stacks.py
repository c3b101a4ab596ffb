"""Parts of regular expressions for stacks of calls: in a kernel's report, and in /proc/PID/stack."""

from __future__ import annotations

GUESSES = r"(?:[ ]*\? [^\n]*\n)*"
"""Frames of which the kernel is not sure that they were called."""
OF_PCI_IOV = "(?:sriov|pci)_(?:enable|disable|add_vfs|del_vfs|enable_sriov|disable_sriov)"
"""Where VFs are added and deleted (drivers/pci/iov.c)."""
OF_XE = r"(?:xe|pf)_\w+"
OF_UNBINDING = r"(?:pci_device_remove|device_remove|__device_release_driver|device_release_driver\w*|pci_stop_\w+)"
"""Between a file in sysfs and a driver's remove()."""


def frame(name: str) -> str:
    """The beginning of a frame of a function named so, which the compiler may have given a suffix (`.isra.0`)."""
    return rf"[ ]*(?:\[<\w+>\] )?{name}(?:\.\w+)*\+"


def frames(name: str, least: int, most: int) -> str:
    """So many whole frames, one after the other, of functions named so."""
    return rf"(?:{frame(name)}[^\n]*\n{GUESSES}){{{least},{most}}}"
