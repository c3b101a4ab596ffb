"""One instruction, or a program, in both back ends on the same registers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.assembler import parse_instruction
from vfio_user_xe.device_models.xe.eu.compiled import build, layout, library
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel, compile_program
from vfio_user_xe.device_models.xe.eu.compiled.layout import Reason
from vfio_user_xe.device_models.xe.eu.compiled.memory import aligned
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import ENDED, LANES, Alu, Dpas, Program, Register, Send
from vfio_user_xe.device_models.xe.eu.messages.message import GatewayMessage, GatewayOp
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode, Sfid
from vfio_user_xe.device_models.xe.eu.reference.alu import AluStep
from vfio_user_xe.device_models.xe.eu.reference.systolic import DpasStep
from vfio_user_xe.device_models.xe.eu.registers import CR0, STORAGE_BYTES

Registers = NDArray[np.uint8]


def loaded() -> library.Library:
    """The handlers; a machine without a C compiler skips the tests."""
    try:
        return library.load()
    except build.NoCompiler as missing:
        pytest.skip(str(missing))


def end_of_thread(address: int) -> Send:
    null = Register(DataType.UD, 0, arf=True)
    return Send(
        address=address,
        opcode=Opcode.SEND,
        no_mask=True,
        sfid=Sfid.GTWY,
        destination=null,
        source0=Register(DataType.UD, 0),
        source1=null,
        end_of_thread=True,
        descriptor=0x0200_0010,
        message=GatewayMessage(op=GatewayOp.END_OF_THREAD),
    )


def kernel_of(instruction: Alu | Dpas) -> Kernel:
    program = Program((0,), (instruction, end_of_thread(16)), frozenset({0}))
    return compile_program(program, loaded())


def run_alone(kernel: Kernel, registers: Registers, active: int, budget: int = 1 << 20) -> tuple[Reason, Registers]:
    """Runs one thread; why it stopped, and its registers then."""
    storage = aligned(layout.THREAD_BYTES)
    storage[:STORAGE_BYTES] = registers
    lanes = active >> np.arange(LANES, dtype=np.uint32) & 1
    places = np.where(lanes, 0, ENDED).astype(np.int64)
    depths = np.zeros(LANES, dtype=np.int32)
    thread = layout.ThreadStruct(
        storage=storage.ctypes.data,
        places=places.ctypes.data,
        depths=depths.ctypes.data,
        kernel=kernel.address,
    )
    executed = ctypes.c_int64()
    reason = kernel.library.run_thread(ctypes.addressof(thread), budget, ctypes.byref(executed))
    return Reason(reason), storage[:STORAGE_BYTES].copy()


def run_reference(instruction: Alu | Dpas, registers: Registers, active: int) -> Registers:
    """What the interpreter makes of one instruction."""
    storage = registers.copy()[None]
    lanes = [instruction.no_mask or bool(active >> instruction.first_lane + k & 1) for k in range(instruction.width)]
    step = AluStep(instruction) if isinstance(instruction, Alu) else DpasStep(instruction)
    step(storage, np.array([0]), np.array([lanes]))
    return np.asarray(storage[0])


def registers_from(seed: int, cr0: int) -> Registers:
    """Random registers, of which some have numbers that matter: zeros, ones, NaN, infinities, denormals, ends of ranges."""
    random = np.random.default_rng(seed)
    registers = random.integers(0, 256, STORAGE_BYTES, dtype=np.uint8)
    single = np.array([0, -0.0, 1, 2.5, -3, 1e-40, -1e-42, np.nan, np.inf, 1e9, 65504, 6e-8], dtype=np.float32)
    numbers = np.array([0, 1, -1, 7, -100, 2**31 - 1, -(2**31)], dtype=np.int32)
    for number in range(8, 56):
        grf = registers[number * 64 : number * 64 + 64]
        match random.integers(0, 6):
            case 0:
                grf.view(np.float32)[:] = random.choice(single, 16)
            case 1:
                grf.view(np.float64)[:] = random.choice(single.astype(np.float64), 8) * random.choice([1, 1e-300, 1e30])
            case 2:
                with np.errstate(over="ignore"):
                    grf.view(np.float16)[:] = random.choice(single, 32)
            case 3:
                grf.view(np.int32)[:] = random.choice(numbers, 16)
    registers[CR0 : CR0 + 4] = np.frombuffer(cr0.to_bytes(4, "little"), dtype=np.uint8)
    return registers


def check_compiled(texts: str, cr0: int, floats: Callable[[Alu, int], NDArray[np.float32]]) -> None:
    """Compiled code takes each of these, and gives what the interpreter gives. `floats` by instruction and seed go to r12 and on."""
    for text in texts.strip().splitlines():
        instruction = parse_instruction(text)
        assert isinstance(instruction, Alu)
        kernel = kernel_of(instruction)
        for seed in range(20):
            registers = registers_from(seed, cr0)
            found = floats(instruction, seed).view(np.uint8)
            registers[12 * 64 : 12 * 64 + len(found)] = found
            reason, after = run_alone(kernel, registers, 0xFFFF_FFFF)
            assert reason is Reason.GONE, text
            assert np.array_equal(after, run_reference(instruction, registers, 0xFFFF_FFFF)), f"{text}, {seed}"
