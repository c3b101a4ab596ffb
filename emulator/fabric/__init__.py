"""Paths to memory: interconnects, the ledger that counts accesses, leases, peers, and dma-bufs of the host."""
