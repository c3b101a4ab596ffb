"""`python -m vfio_user_xe.emulator` is `vfio-user-xe`."""

from vfio_user_xe.emulator.cli.main import main

main()
