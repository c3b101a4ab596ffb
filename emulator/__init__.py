"""The engine of vfio-user-xe: everything that is not about one device.

Plug-ins (device models and interconnects) state the `API_VERSION` that they were written for; see
`vfio_user_xe.emulator.model.plugin_loading`.
"""

API_VERSION = (2, 1)
"""Version of what plug-ins may rely on: the first number changes when a plug-in must change, the second when it may."""
