"""Drivers in Python for the xe device model, and what they drive: a card in this process, a served card, a GPU without a card."""
