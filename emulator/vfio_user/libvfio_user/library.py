"""What is used of libvfio-user, declared here from its documented interface, and the library itself.

Its ABI changes under one name (`libvfio-user.so.0`) and there is no version to ask for. So each way in which the used part
of it has been is a *level*, called by the month since when it is so; `self_test` tries which one a library is of.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from vfio_user_xe.emulator.vfio_user.libvfio_user import BackendError

ENVIRONMENT: Final = "VFIO_USER_XE_LIBVFIO_USER"
"""The variable that names the library, where no option does."""
USUAL_NAMES: Final = ("libvfio-user.so.0", "libvfio-user.so")
LEVELS: Final = ("2026-03", "2022-05")
"""Newest first. 2026-03: `vfu_setup_device_dma` takes the largest number of regions. 2022-05: it does not.

(The flags of `vfu_sgl_read` and `vfu_sgl_write` came in 2026-04; an argument too many does no harm to what came before.)
"""

# Arguments of functions and layouts of structures: facts of the library's include/libvfio-user.h.
_DECLARATIONS = """
    typedef struct context context;
    typedef struct segment segment;
    struct span { void *start; size_t length; };
    struct dma_info {
        struct span addresses;
        void *mapped_at;
        struct span mapping;
        size_t page_size;
        uint32_t protection;
    };
    typedef void log_callback(context *, int level, const char *text);
    typedef ssize_t access_callback(context *, char *data, size_t count, int64_t offset, bool is_write);
    typedef int reset_callback(context *, int type);
    typedef int quiesce_callback(context *);
    typedef void dma_callback(context *, struct dma_info *);

    context *vfu_create_ctx(int transport, const char *path, int flags, void *private, int device_type);
    int vfu_realize_ctx(context *);
    int vfu_attach_ctx(context *);
    int vfu_get_poll_fd(context *);
    int vfu_run_ctx(context *);
    void vfu_destroy_ctx(context *);
    int vfu_setup_log(context *, log_callback *, int level);
    int vfu_pci_init(context *, int pci_type, int header_type, int revision);
    int vfu_setup_region(context *, int index, size_t size, access_callback *, int flags,
                         struct span *areas, uint32_t count, int fd, uint64_t offset);
    int vfu_setup_device_reset_cb(context *, reset_callback *);
    void vfu_setup_device_quiesce_cb(context *, quiesce_callback *);
    int vfu_setup_device_nr_irqs(context *, int index, uint32_t count);
    int vfu_irq_trigger(context *, uint32_t vector);
    size_t dma_sg_size(void);
    int vfu_addr_to_sgl(context *, void *address, size_t length, segment *, size_t most, int protection);
    int vfu_sgl_read(context *, segment *, size_t count, void *data, int flags);
    int vfu_sgl_write(context *, segment *, size_t count, void *data, int flags);
"""
_SETUP_DMA = {
    "2026-03": "int vfu_setup_device_dma(context *, size_t most, dma_callback *added, dma_callback *removed);",
    "2022-05": "int vfu_setup_device_dma(context *, dma_callback *added, dma_callback *removed);",
}
_SYSTEM = """
    void *mremap(void *address, size_t old_size, size_t new_size, int flags, ...);
    int munmap(void *address, size_t length);
"""
_SYMBOLS: Final = (
    *("vfu_create_ctx", "vfu_realize_ctx", "vfu_attach_ctx", "vfu_get_poll_fd", "vfu_run_ctx", "vfu_destroy_ctx"),
    *("vfu_setup_log", "vfu_pci_init", "vfu_setup_region", "vfu_setup_device_reset_cb"),
    *("vfu_setup_device_quiesce_cb", "vfu_setup_device_nr_irqs", "vfu_setup_device_dma", "vfu_irq_trigger"),
    *("dma_sg_size", "vfu_addr_to_sgl", "vfu_sgl_read", "vfu_sgl_write"),
)

TRANSPORT_SOCKET: Final = 0
DEVICE_PCI: Final = 0
PCI_EXPRESS: Final = 3
NON_BLOCKING: Final = 1
REGION_READ: Final = 1
REGION_WRITE: Final = 2
REGION_MEMORY: Final = 4
REGION_ALWAYS_CALLED: Final = 8
"""Of configuration space: the library keeps none of its own."""
RESET_DEVICE: Final = 0
LOG_ERROR, LOG_INFO = 3, 6


class Library:
    """libvfio-user, loaded; `ffi` makes and reads what its functions (`calls`) take."""

    def __init__(self, path: str, level: str) -> None:
        """Load the library at `path`, or that the loader finds by that name.

        Raises:
            BackendError: it cannot be loaded, lacks functions, or cffi is not installed.
        """
        try:
            from cffi import FFI
        except ImportError as exc:
            raise BackendError(
                f"the libvfio-user back end needs the Python package cffi ({exc}): pip install 'vfio-user-xe[libvfio-user]'"
            ) from None
        self.path = path
        self.level = level
        self.ffi: Any = FFI()
        self.ffi.cdef(_DECLARATIONS + _SETUP_DMA[level] + _SYSTEM)
        try:
            self.calls: Any = self.ffi.dlopen(path)
        except OSError as exc:
            raise BackendError(
                f"cannot load libvfio-user: {exc}. Name the library with --libvfio-user PATH or {ENVIRONMENT}"
            ) from None
        missing = [symbol for symbol in _SYMBOLS if not _has(self.calls, symbol)]
        if missing:
            more = ", ..." if len(missing) > 2 else ""
            raise BackendError(
                f"{path} is no libvfio-user that can be used: it lacks {', '.join(missing[:2])}{more}"
                " (want one of 2022-05 or later)"
            )
        self.system: Any = self.ffi.dlopen(None)

    def setup_dma(self, context: Any, most: int, added: Any, removed: Any) -> int:
        """`vfu_setup_device_dma`, as this level has it."""
        limit = (most,) if self.level == "2026-03" else ()
        return int(self.calls.vfu_setup_device_dma(context, *limit, added, removed))

    def error(self, call: str) -> BackendError:
        """What to raise when `call` has failed just now."""
        return BackendError(f"libvfio-user: {call} failed: {os.strerror(self.ffi.errno)}")


def named_library(option: Path | str | None) -> str:
    """Which library to load: the option's, the environment's, or the first usual name that the loader finds.

    Raises:
        BackendError: a file was named that is not there, or the loader finds none.
    """
    named = str(option) if option is not None else os.environ.get(ENVIRONMENT, "")
    if named:
        if "/" in named and not Path(named).exists():
            where = "--libvfio-user" if option is not None else ENVIRONMENT
            raise BackendError(f"{where} {named}: there is no such file")
        return named
    import ctypes

    for name in USUAL_NAMES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    raise BackendError(
        f"no libvfio-user is installed where the loader finds it ({', '.join(USUAL_NAMES)}): build one from its source, or"
        f" install a package that has it, and name it with --libvfio-user PATH or {ENVIRONMENT}"
    )


def _has(calls: Any, symbol: str) -> bool:
    try:
        getattr(calls, symbol)
    except AttributeError:
        return False
    return True
