"""What code that is not ours may raise: a device model, an interconnect, a command of a plug-in."""

from __future__ import annotations

MISTAKES = (Exception, SystemExit)
"""Whoever calls a plug-in and must go on catches these: `sys.exit()` in it would end the caller's thread without a word."""
