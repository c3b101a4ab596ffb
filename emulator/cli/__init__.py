"""The command `vfio-user-xe`: one module for each group of commands, over shared sets of options."""
