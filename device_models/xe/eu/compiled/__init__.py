"""The compiled back end: handlers in C, built once for this machine, and kernels as arrays of ops that name them."""
