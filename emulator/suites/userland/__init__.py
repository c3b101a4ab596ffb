"""Tests of a guest's user space on a card: programs, Piglit and folders of pytest tests, run in a userland."""
