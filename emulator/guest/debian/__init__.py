"""Debian's packages for the guest: which archive they come from, and two ways to them, apt's and Python's own."""
