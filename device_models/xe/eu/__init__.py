"""Intel Xe2 execution units: instructions, their intermediate form, messages, and the reference back end.

Nothing here reaches memory: what a `send` asks for goes out by a `MessagePort`, which the executor side serves.
"""
