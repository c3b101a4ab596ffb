"""Calls of xe, DRM and dma-bufs with arguments from a grammar, in any order: what no order of valid calls would try."""
