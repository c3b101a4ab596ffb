"""Reports of kernels, as they say them of known defects."""

from __future__ import annotations

STALE = """BUG: KASAN: slab-use-after-free in __get_file_rcu+0x3a/0x89
Write of size 8 at addr ffff88800a484bd0 by task xe-dmabuf/252
Call Trace:
 <TASK>
 ? __get_file_rcu+0x3a/0x89
 __get_file_rcu+0x3a/0x89
 get_file_active+0x7f/0x9a
 ? made_up+0x1/0x2
 vfio_pci_dma_buf_move+0xef/0x3f0 [vfio_pci_core]
 vfio_pci_core_ioctl+0xcfb/0xe6e [vfio_pci_core]
 </TASK>
Allocated by task 252:
 alloc_empty_file+0x1/0x2
Freed by task 299:
 fput_close_sync+0x127/0x141
The buggy address belongs to the object at ffff88800a484a80
 which belongs to the cache filp of size 344
"""
"""KASAN's of 7.3.4, shortened: a file that is gone, looked at by a revocation."""
