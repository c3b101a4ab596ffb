"""Scenarios: what a driver is put through in a guest, and a verdict on it that holds for any kernel.

A suite is found by its entry point (group `vfio_user_xe.scenarios`); `docs/dmabuf-scenarios.md` tells how to run and to write them.
"""
