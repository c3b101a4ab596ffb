"""Each page-table format once: encode, decode, levels. Pure functions; walkers, provisioning, inspection and tests use them."""
