"""Blocks of a GT: forcewake, MCR, reset, fuses, MOCS, PAT, frequency, the reference clock."""
