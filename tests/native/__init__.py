"""Programs of a userland on the card's engines without a guest: their driver runs on the host's processor, not on an emulated one."""
