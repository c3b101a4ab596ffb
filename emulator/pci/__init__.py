"""PCI functions: configuration space, capabilities, BARs, interrupts, SR-IOV."""
