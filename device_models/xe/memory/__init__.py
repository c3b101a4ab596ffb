"""GGTT, PPGTT, LMTT and VRAM, the address spaces made of them, and the windows through which VFs see their part."""
