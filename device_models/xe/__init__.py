"""The device model "xe": an Intel Arc Battlemage graphics card."""

from device_models.xe.battlemage import Battlemage

__all__ = ["Battlemage"]
