"""DMA_READ and DMA_WRITE: the commands that a server sends, and what clients may do to it in return.

All of these provoke DMA through the conformance device, to memory that came without a descriptor.
"""
