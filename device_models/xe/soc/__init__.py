"""Blocks of the device outside of its GTs: PCODE, telemetry, interrupts, identity."""
