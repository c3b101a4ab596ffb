"""`python -m emulator` is `vfio-user-xe`."""

from emulator.cli import main

main()
