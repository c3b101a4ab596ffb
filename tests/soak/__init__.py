"""Hours of guests, VFs, jobs, imports, resets, moves and killed processes on servers that live through all of it."""
