"""DMA_MAP and DMA_UNMAP: which ranges there are, and what the device reaches through them."""
