"""Test suites that others wrote: run in a guest, and judged against what is expected of them."""
