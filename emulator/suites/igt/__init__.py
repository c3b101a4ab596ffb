"""IGT, the test suite of the kernel's graphics drivers."""
