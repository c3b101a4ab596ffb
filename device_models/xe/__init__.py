"""The device model "xe": an Intel Arc Battlemage graphics card."""

from vfio_user_xe.device_models.xe.card import Battlemage

__all__ = ["Battlemage"]
