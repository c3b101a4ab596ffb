"""Sizes and places that every driver of the card knows."""

from __future__ import annotations

MIB = 1 << 20
BLOCK = 2 * MIB
"""What LMTT maps."""
GSM = 8 * MIB
"""GGTT entries in BAR 0."""
SRIOV = 0x320
"""The SR-IOV capability in configuration space."""
