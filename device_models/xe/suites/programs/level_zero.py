"""Level Zero from Python: each command of this program uses the loader's C interface (ze_api.h) and checks what came of it.

It runs in a guest whose Python has the standard library and numpy.  Its kernel is SPIR-V, written here word by word, so that
no compiler for it is needed.  All but `arithmetic` do without running it.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from ctypes import byref, c_char, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p

import numpy as np
from numpy.typing import NDArray

ITEMS, GROUP = 4096, 64
_SUCCESS, _NOT_READY = 0, 1
_ERRORS = 0x7000_0000
_FOREVER = (1 << 64) - 1


class Description(ctypes.Structure):
    """What all descriptions begin with (`stype`, `pNext`), and up to five words behind it."""

    _fields_ = (("stype", c_uint32), ("next", c_void_p), ("words", c_uint32 * 5))


class ModuleDescription(ctypes.Structure):
    """`ze_module_desc_t`."""

    _fields_ = (
        ("stype", c_uint32),
        ("next", c_void_p),
        ("format", c_uint32),
        ("size", c_size_t),
        ("input", c_char_p),
        ("flags", c_char_p),
        ("constants", c_void_p),
    )


class KernelDescription(ctypes.Structure):
    """`ze_kernel_desc_t`."""

    _fields_ = (("stype", c_uint32), ("next", c_void_p), ("flags", c_uint32), ("name", c_char_p))


class MemoryDescription(ctypes.Structure):
    """`ze_device_mem_alloc_desc_t`."""

    _fields_ = (("stype", c_uint32), ("next", c_void_p), ("flags", c_uint32), ("ordinal", c_uint32))


class DeviceProperties(ctypes.Structure):
    """`ze_device_properties_t`."""

    _fields_ = (
        ("stype", c_uint32),
        ("next", c_void_p),
        ("type", c_uint32),
        ("vendor", c_uint32),
        ("device", c_uint32),
        ("flags", c_uint32),
        ("subdevice", c_uint32),
        ("clock", c_uint32),
        ("largest", c_uint64),
        ("contexts", c_uint32),
        ("priority", c_uint32),
        ("threads", c_uint32),
        ("lanes", c_uint32),
        ("units", c_uint32),
        ("subslices", c_uint32),
        ("slices", c_uint32),
        ("resolution", c_uint64),
        ("bits", c_uint32),
        ("kernel_bits", c_uint32),
        ("uuid", c_char * 16),
        ("name", c_char * 256),
    )


def spirv() -> bytes:
    """A kernel `combine(a, b, c)`: c[i] = a[i] * b[i] + i, of 32-bit integers (SPIR-V specification, Kernel and Physical64)."""
    words: list[int] = []

    def put(opcode: int, *operands: int) -> None:
        words.extend((len(operands) + 1 << 16 | opcode, *operands))

    def text(string: str) -> tuple[int, ...]:
        data = string.encode() + b"\0"
        data += bytes(-len(data) % 4)
        return struct.unpack(f"<{len(data) // 4}I", data)

    names = iter(range(1, 100))
    nothing, uint, ulong, vector, in_vector, in_buffer, function, place, kernel, a, b, c, label = (
        next(names) for _ in range(13)
    )
    position, index, number, product, result = (next(names) for _ in range(5))
    for capability in (4, 5, 6, 11):  # Addresses, Linkage, Kernel, Int64
        put(17, capability)
    put(14, 2, 2)  # OpMemoryModel Physical64 OpenCL
    put(15, 6, kernel, *text("combine"), place)  # OpEntryPoint Kernel
    put(71, place, 11, 28)  # OpDecorate BuiltIn GlobalInvocationId
    put(71, place, 22)  # OpDecorate Constant
    put(71, place, 41, *text("__spirv_BuiltInGlobalInvocationId"), 1)  # OpDecorate LinkageAttributes Import
    put(19, nothing)
    put(21, uint, 32, 0)
    put(21, ulong, 64, 0)
    put(23, vector, ulong, 3)
    put(32, in_vector, 1, vector)  # OpTypePointer Input
    put(32, in_buffer, 5, uint)  # OpTypePointer CrossWorkgroup
    put(33, function, nothing, in_buffer, in_buffer, in_buffer)
    put(59, in_vector, place, 1)  # OpVariable Input
    put(54, nothing, kernel, 0, function)
    for parameter in (a, b, c):
        put(55, in_buffer, parameter)
    put(248, label)
    put(61, vector, position, place, 2, 32)  # OpLoad Aligned
    put(81, ulong, index, position, 0)  # OpCompositeExtract
    put(113, uint, number, index)  # OpUConvert
    values = []
    for parameter in (a, b):
        element, value = next(names), next(names)
        put(70, in_buffer, element, parameter, index)  # OpInBoundsPtrAccessChain
        put(61, uint, value, element, 2, 4)
        values.append(value)
    put(132, uint, product, *values)
    put(128, uint, result, product, number)
    element = next(names)
    put(70, in_buffer, element, c, index)
    put(62, element, result, 2, 4)  # OpStore Aligned
    put(253)
    put(56)
    header = (0x0723_0203, 0x0001_0000, 0, next(names), 0)
    return struct.pack(f"<{len(header) + len(words)}I", *header, *words)


class LevelZero:
    """A context on the first device, with a queue and a command list."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libze_loader.so.1")
        self.call("zeInit", c_uint32(0))
        self.driver, self.device, self.context, self.queue, self.list = (c_void_p() for _ in range(5))
        one = c_uint32(1)
        self.call("zeDriverGet", byref(one), byref(self.driver))
        one = c_uint32(1)
        self.call("zeDeviceGet", self.driver, byref(one), byref(self.device))
        self.call("zeContextCreate", self.driver, byref(Description(0xD)), byref(self.context))
        self.call("zeCommandQueueCreate", self.context, self.device, byref(Description(0xE)), byref(self.queue))
        self.call("zeCommandListCreate", self.context, self.device, byref(Description(0xF)), byref(self.list))

    def result(self, name: str, *arguments: object) -> int:
        """What a function answers (`ze_result_t`)."""
        function = getattr(self.library, name)
        function.restype = c_int
        return int(function(*arguments)) & 0xFFFF_FFFF

    def call(self, name: str, *arguments: object) -> None:
        """Call a function that must succeed."""
        result = self.result(name, *arguments)
        if result != _SUCCESS:
            raise SystemExit(f"{name}: {result:#x}")

    def memory(self, size: int, *, on_device: bool) -> c_void_p:
        """Memory of the device, or of the host, in bytes."""
        made = c_void_p()
        device, host = MemoryDescription(0x15), MemoryDescription(0x16)
        if on_device:
            self.call(
                "zeMemAllocDevice", self.context, byref(device), c_size_t(size), c_size_t(64), self.device, byref(made)
            )
        else:
            self.call("zeMemAllocHost", self.context, byref(host), c_size_t(size), c_size_t(64), byref(made))
        return made

    def module(self, code: bytes) -> c_void_p:
        """A module of SPIR-V; when it does not compile the program ends with the compiler's words."""
        module, log = c_void_p(), c_void_p()
        described = ModuleDescription(0x1B, None, 0, len(code), code, b"", None)
        result = self.result("zeModuleCreate", self.context, self.device, byref(described), byref(module), byref(log))
        if result != _SUCCESS:
            size = c_size_t()
            self.call("zeModuleBuildLogGetString", log, byref(size), None)
            said = ctypes.create_string_buffer(size.value)
            self.call("zeModuleBuildLogGetString", log, byref(size), said)
            raise SystemExit(f"zeModuleCreate: {result:#x}: {said.value.decode(errors='replace')}")
        return module

    def kernel(self) -> c_void_p:
        """The kernel of `spirv`, for groups of `GROUP`."""
        module, kernel = self.module(spirv()), c_void_p()
        self.call("zeKernelCreate", module, byref(KernelDescription(0x1D, None, 0, b"combine")), byref(kernel))
        self.call("zeKernelSetGroupSize", kernel, c_uint32(GROUP), c_uint32(1), c_uint32(1))
        return kernel

    def copy(self, to: c_void_p, source: c_void_p, size: int) -> None:
        """Append a copy and a barrier to the list."""
        self.call("zeCommandListAppendMemoryCopy", self.list, to, source, c_size_t(size), None, 0, None)
        self.call("zeCommandListAppendBarrier", self.list, None, 0, None)

    def execute(self) -> None:
        """Execute the list, and wait."""
        self.call("zeCommandListClose", self.list)
        self.call("zeCommandQueueExecuteCommandLists", self.queue, c_uint32(1), byref(self.list), None)
        self.call("zeCommandQueueSynchronize", self.queue, c_uint64(_FOREVER))
        self.call("zeCommandListReset", self.list)


def array_at(memory: c_void_p, items: int) -> NDArray[np.uint32]:
    """Memory of the host as 32-bit integers."""
    assert memory.value is not None
    return np.ctypeslib.as_array((c_uint32 * items).from_address(memory.value))


def check(condition: object, otherwise: str) -> None:
    """End the program unless `condition`."""
    if not condition:
        raise SystemExit(otherwise)


def properties(zero: LevelZero) -> None:
    """The device is an Intel GPU, and all its execution units are there."""
    found = DeviceProperties(3)
    zero.call("zeDeviceGetProperties", zero.device, byref(found))
    units = found.units * found.subslices * found.slices
    print(found.name.decode(), f"{found.vendor:04x}:{found.device:04x}", units, "units of", found.lanes, "lanes")
    check(found.vendor == 0x8086 and found.type == 1, "this is no GPU of Intel")
    check(units > 0 and found.threads > 0 and found.largest > 0, "it has no units, threads or memory")
    copies(zero)


def arithmetic(zero: LevelZero) -> None:
    """A kernel's results are numpy's, from device memory and from host memory."""
    size, random = 4 * ITEMS, np.random.default_rng(11)
    kernel = zero.kernel()
    hosts = [zero.memory(size, on_device=False) for _ in range(3)]
    devices = [zero.memory(size, on_device=True) for _ in range(3)]
    a, b, c = (array_at(memory, ITEMS) for memory in hosts)
    for round_ in range(2):
        a[:], b[:] = random.integers(0, 1 << 32, (2, ITEMS), dtype=np.uint32)
        c[:] = 0
        places = (devices, hosts)[round_]
        if places is devices:
            for host, device in zip(hosts[:2], devices[:2], strict=True):
                zero.copy(device, host, size)
        for number, place in enumerate(places):
            zero.call("zeKernelSetArgumentValue", kernel, c_uint32(number), c_size_t(8), byref(place))
        groups = (c_uint32 * 3)(ITEMS // GROUP, 1, 1)
        zero.call("zeCommandListAppendLaunchKernel", zero.list, kernel, byref(groups), None, 0, None)
        zero.call("zeCommandListAppendBarrier", zero.list, None, 0, None)
        if places is devices:
            zero.copy(hosts[2], devices[2], size)
        zero.execute()
        wanted = a * b + np.arange(ITEMS, dtype=np.uint32)
        where = "device" if places is devices else "host"
        check(np.array_equal(c, wanted), f"{where} memory: {np.count_nonzero(c != wanted)} of {ITEMS} items are wrong")


def copies(zero: LevelZero) -> None:
    """Bytes come back from the device's memory; a fill is everywhere."""
    items = 1 << 18
    there, back = (zero.memory(4 * items, on_device=False) for _ in range(2))
    device = zero.memory(4 * items, on_device=True)
    array_at(there, items)[:] = np.random.default_rng(5).integers(0, 1 << 32, items, dtype=np.uint32)
    zero.copy(device, there, 4 * items)
    zero.copy(back, device, 4 * items)
    zero.execute()
    check(np.array_equal(array_at(there, items), array_at(back, items)), "the copy differs")
    value = c_uint32(0xC0FFEE)
    zero.call(
        "zeCommandListAppendMemoryFill",
        zero.list,
        device,
        byref(value),
        c_size_t(4),
        c_size_t(4 * items),
        None,
        0,
        None,
    )
    zero.call("zeCommandListAppendBarrier", zero.list, None, 0, None)
    zero.copy(back, device, 4 * items)
    zero.execute()
    check(np.all(array_at(back, items) == value.value), "the fill is not everywhere")


def events(zero: LevelZero) -> None:
    """An event that a list signals is seen by the host, and the list waits for one that the host signals."""
    pool, first, second = c_void_p(), c_void_p(), c_void_p()
    visible, host = 1, 4  # ZE_EVENT_POOL_FLAG_HOST_VISIBLE, ZE_EVENT_SCOPE_FLAG_HOST
    described = Description(0x10, None, (visible, 2, 0, 0, 0))
    zero.call("zeEventPoolCreate", zero.context, byref(described), c_uint32(0), None, byref(pool))
    for index, event in enumerate((first, second)):
        zero.call("zeEventCreate", pool, byref(Description(0x11, None, (index, host, host, 0, 0))), byref(event))
    zero.call("zeCommandListAppendWaitOnEvents", zero.list, c_uint32(1), byref(first))
    zero.call("zeCommandListAppendSignalEvent", zero.list, second)
    zero.call("zeCommandListClose", zero.list)
    zero.call("zeCommandQueueExecuteCommandLists", zero.queue, c_uint32(1), byref(zero.list), None)
    check(zero.result("zeEventQueryStatus", second) == _NOT_READY, "signalled before its turn")
    zero.call("zeEventHostSignal", first)
    zero.call("zeEventHostSynchronize", second, c_uint64(_FOREVER))
    zero.call("zeCommandQueueSynchronize", zero.queue, c_uint64(_FOREVER))
    check(zero.result("zeEventQueryStatus", second) == _SUCCESS, "not signalled")


def refusals(zero: LevelZero) -> None:
    """What is wrong is refused, and what is right goes on afterwards."""
    module, kernel, made = zero.module(spirv()), c_void_p(), c_void_p()
    unknown = KernelDescription(0x1D, None, 0, b"no_such_kernel")
    result = zero.result("zeKernelCreate", module, byref(unknown), byref(kernel))
    check(result >= _ERRORS, f"a kernel that is not in the module: {result:#x}")
    huge = c_size_t(1 << 46)
    result = zero.result(
        "zeMemAllocDevice", zero.context, byref(MemoryDescription(0x15)), huge, c_size_t(64), zero.device, byref(made)
    )
    check(result >= _ERRORS, f"64 TiB of memory: {result:#x}")
    copies(zero)


COMMANDS: dict[str, Callable[[LevelZero], None]] = {
    "properties": properties,
    "arithmetic": arithmetic,
    "copies": copies,
    "events": events,
    "refusals": refusals,
}


def main() -> None:
    """Run the command that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        raise SystemExit(f"usage: level_zero.py {'|'.join(COMMANDS)}")
    COMMANDS[sys.argv[1]](LevelZero())
    print("ok")


if __name__ == "__main__":
    main()
