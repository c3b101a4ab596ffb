"""The control plane: commands that a served card answers by name, with JSON arguments and results."""
