"""Guests: fetch QEMU and a kernel, boot in seconds, run commands inside, and leave nothing behind."""
