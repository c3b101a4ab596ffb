"""Lifetimes of dma-bufs, explored: a model of VFs, processes, descriptors and imports, and who plays it in a guest."""
