"""Kernels from a seed: statements over four variables of one type, as OpenCL C and as what numpy makes of them.

    program = Program(TYPES["int"], seed=3)
    program.source                    # a kernel `generated(a, b, c, out)`
    program.expected(a, b, c)         # four rows, one a variable

Control flow diverges between work items (if, loops with counts of their own), and at the top level items of a group exchange
values through local memory.  Every operation has one right result: where OpenCL leaves one open it is not generated.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

GROUP = 64
ITEMS = 32 * GROUP
VARIABLES = 4
_TRIPS = 8
_DEPTH = 2
_STATEMENTS = 6
"""A compiler under emulation needs a minute for twice as much."""

Array = Any
"""An array of numpy; its element type is the program's."""


@dataclass(frozen=True)
class Type:
    """A scalar type of OpenCL C."""

    name: str
    dtype: Any
    extension: str = ""

    @property
    def is_float(self) -> bool:
        return bool(np.issubdtype(self.dtype, np.floating))

    @property
    def bits(self) -> int:
        return 8 * int(np.dtype(self.dtype).itemsize)

    @property
    def unsigned(self) -> str:
        """The unsigned type of the same size."""
        return self.name if self.name.startswith("u") else f"u{self.name}"

    def wrapped(self, values: Array) -> Array:
        """Exact integers, brought into the type's range as C does it."""
        low = np.array([int(value) & (1 << self.bits) - 1 for value in values], f"u{self.bits // 8}")
        return low.view(self.dtype)

    def saturated(self, values: Array) -> Array:
        """Exact integers, the nearest that the type has."""
        range_ = np.iinfo(self.dtype)
        return np.array([min(max(int(value), int(range_.min)), int(range_.max)) for value in values], self.dtype)

    def as_unsigned(self, values: Array) -> Array:
        """The same bits."""
        return values.view(f"u{self.bits // 8}")


TYPES = {
    kind.name: kind
    for kind in (
        Type("char", np.int8),
        Type("uchar", np.uint8),
        Type("short", np.int16),
        Type("ushort", np.uint16),
        Type("int", np.int32),
        Type("uint", np.uint32),
        Type("long", np.int64),
        Type("ulong", np.uint64),
        Type("float", np.float32),
        Type("double", np.float64, "cl_khr_fp64"),
        Type("half", np.float16, "cl_khr_fp16"),
    )
}


@dataclass(frozen=True)
class Operation:
    """`text` is C with {0}, {1} ... for operands; `of` takes the type and the operands' arrays."""

    text: str
    operands: int
    of: Callable[..., Array]


def _exact(values: Array) -> Array:
    return values.astype(object)


def _rotated(kind: Type, value: Array, count: Array) -> Array:
    bits = kind.bits
    pairs = zip(kind.as_unsigned(value), kind.as_unsigned(count), strict=True)
    return kind.wrapped([int(v) << int(n) % bits | int(v) >> (bits - int(n) % bits) for v, n in pairs])


def _amount(kind: Type, count: Array) -> Array:
    return count & kind.dtype(kind.bits - 1)


_ANY = (
    Operation("((W){0} + (W){1})", 2, lambda kind, a, b: a + b),
    Operation("((W){0} - (W){1})", 2, lambda kind, a, b: a - b),
    Operation("((W){0} * (W){1})", 2, lambda kind, a, b: a * b),
    Operation("({0} < {1} ? {2} : {3})", 4, lambda kind, a, b, c, d: np.where(a < b, c, d)),
    Operation("({0} == {1} ? {2} : {3})", 4, lambda kind, a, b, c, d: np.where(a == b, c, d)),
)
_INTEGERS = (
    *_ANY,
    Operation("(~{0})", 1, lambda kind, a: ~a),
    Operation("({0} & {1})", 2, lambda kind, a, b: a & b),
    Operation("({0} | {1})", 2, lambda kind, a, b: a | b),
    Operation("({0} ^ {1})", 2, lambda kind, a, b: a ^ b),
    Operation("((W){0} << ({1} & M))", 2, lambda kind, a, n: a << _amount(kind, n)),
    Operation("({0} >> ({1} & M))", 2, lambda kind, a, n: a >> _amount(kind, n)),
    Operation("min({0}, {1})", 2, lambda kind, a, b: np.minimum(a, b)),
    Operation("max({0}, {1})", 2, lambda kind, a, b: np.maximum(a, b)),
    Operation("add_sat({0}, {1})", 2, lambda kind, a, b: kind.saturated(_exact(a) + _exact(b))),
    Operation("sub_sat({0}, {1})", 2, lambda kind, a, b: kind.saturated(_exact(a) - _exact(b))),
    Operation("hadd({0}, {1})", 2, lambda kind, a, b: kind.wrapped(_exact(a) + _exact(b) >> 1)),
    Operation("rhadd({0}, {1})", 2, lambda kind, a, b: kind.wrapped(_exact(a) + _exact(b) + 1 >> 1)),
    Operation("mul_hi({0}, {1})", 2, lambda kind, a, b: kind.wrapped(_exact(a) * _exact(b) >> kind.bits)),
    Operation("abs_diff({0}, {1})", 2, lambda kind, a, b: kind.wrapped(abs(_exact(a) - _exact(b)))),
    Operation("rotate({0}, {1})", 2, _rotated),
    Operation("popcount({0})", 1, lambda kind, a: np.bitwise_count(kind.as_unsigned(a)).astype(kind.dtype)),
    Operation("clz({0})", 1, lambda kind, a: kind.wrapped([kind.bits - int(v).bit_length() for v in kind.as_unsigned(a)])),
    Operation(
        "((U){0} / (U)((U){1} | 1))", 2, lambda kind, a, b: (kind.as_unsigned(a) // (kind.as_unsigned(b) | 1)).view(kind.dtype)
    ),
    Operation(
        "((U){0} % (U)((U){1} | 1))", 2, lambda kind, a, b: (kind.as_unsigned(a) % (kind.as_unsigned(b) | 1)).view(kind.dtype)
    ),
)  # fmt: skip
_FLOATS = (
    *_ANY,
    Operation("(-{0})", 1, lambda kind, a: -a),
    Operation("fabs({0})", 1, lambda kind, a: np.abs(a)),
    Operation("fmin({0}, {1})", 2, lambda kind, a, b: np.fmin(a, b)),
    Operation("fmax({0}, {1})", 2, lambda kind, a, b: np.fmax(a, b)),
    Operation("floor({0})", 1, lambda kind, a: np.floor(a)),
    Operation("ceil({0})", 1, lambda kind, a: np.ceil(a)),
    Operation("trunc({0})", 1, lambda kind, a: np.trunc(a)),
    Operation("rint({0})", 1, lambda kind, a: np.rint(a)),
)
# Correctly rounded in double, and in float where the program is built so; OpenCL allows errors in half.
_ROUNDED = (
    Operation("({0} / {1})", 2, lambda kind, a, b: a / b),
    Operation("sqrt(fabs({0}))", 1, lambda kind, a: np.sqrt(np.abs(a))),
)


class Program:
    """One kernel. `seed` decides what it does."""

    def __init__(self, kind: Type, seed: int) -> None:
        self.kind = kind
        self._random = random.Random(f"{kind.name} {seed}")
        operations = _FLOATS if kind.is_float else _INTEGERS
        self._operations = (*operations, *_ROUNDED) if kind.name in ("float", "double") else operations
        self._statements = [self._statement(0) for _ in range(_STATEMENTS)]

    # Making.

    def _statement(self, depth: int) -> tuple[Any, ...]:
        choice = self._random.random()
        if depth == 0 and choice < 0.15:
            return ("exchange", self._variable(), self._variable(), self._random.randrange(1, GROUP))
        if depth < 2 and choice < 0.35:
            return ("if", self._expression(1), self._expression(1), self._block(depth), self._block(depth))
        if depth < 2 and choice < 0.5:
            return ("loop", self._random.randrange(1, 1 << 16, 2), self._block(depth))
        return ("set", self._variable(), self._expression(0))

    def _block(self, depth: int) -> list[tuple[Any, ...]]:
        return [self._statement(depth + 1) for _ in range(self._random.randrange(1, 3))]

    def _variable(self) -> int:
        return self._random.randrange(VARIABLES)

    def _expression(self, depth: int) -> Any:
        if depth == _DEPTH or self._random.random() < 0.15:
            return self._variable() if self._random.random() < 0.8 else ("constant", self._random.randrange(1, 100))
        operation = self._random.choice(self._operations)
        return (operation, *(self._expression(depth + 1) for _ in range(operation.operands)))

    # OpenCL C.

    @property
    def source(self) -> str:
        """The kernel: four outputs for each item, a variable after the other."""
        name = self.kind.name
        lines = [f"#pragma OPENCL EXTENSION {self.kind.extension} : enable"] if self.kind.extension else []
        lines += [
            "#pragma OPENCL FP_CONTRACT OFF",
            f"#define M {self.kind.bits - 1}",
            f"#define U {self.kind.unsigned}",
            f"#define T {name}",
            # Where overflow is defined: arithmetic of smaller types is done in int, whose overflow is not.
            f"#define W {name if self.kind.is_float else 'ulong' if self.kind.bits == 64 else 'uint'}",
            f"kernel __attribute__((reqd_work_group_size({GROUP}, 1, 1)))",
            "void generated(global const T *a, global const T *b, global const T *c, global T *out) {",
            f"local T shared[{GROUP}];",
            "uint i = get_global_id(0), n = get_global_size(0), l = get_local_id(0);",
            "T v0 = a[i], v1 = b[i], v2 = c[i], v3 = (T)3;",
            *self._text(self._statements, 0),
            *(f"out[{number} * n + i] = v{number};" for number in range(VARIABLES)),
            "}",
        ]
        return "\n".join(lines)

    def _text(self, statements: list[tuple[Any, ...]], depth: int) -> list[str]:
        lines = []
        for statement in statements:
            match statement:
                case ("set", variable, expression):
                    lines.append(f"v{variable} = {self._c(expression)};")
                case ("exchange", to, source, distance):
                    lines += [
                        f"shared[l] = v{source};",
                        "barrier(CLK_LOCAL_MEM_FENCE);",
                        f"v{to} = shared[(l + {distance}) & {GROUP - 1}];",
                        "barrier(CLK_LOCAL_MEM_FENCE);",
                    ]
                case ("if", left, right, then, otherwise):
                    lines += [f"if ({self._c(left)} < {self._c(right)}) {{", *self._text(then, depth + 1)]
                    lines += ["} else {", *self._text(otherwise, depth + 1), "}"]
                case ("loop", factor, body):
                    count = f"k{depth}"
                    lines.append(f"for (uint {count} = 0; {count} < (i * {factor}u >> 5 & {_TRIPS - 1}); {count}++) {{")
                    lines += [*self._text(body, depth + 1), "}"]
        return lines

    def _c(self, expression: Any) -> str:
        if isinstance(expression, int):
            return f"v{expression}"
        if expression[0] == "constant":
            return f"((T){expression[1]})"
        operation, *operands = expression
        # The cast ends what C promotes to int.
        return f"(T){operation.text.format(*(self._c(operand) for operand in operands))}"

    # numpy.

    def expected(self, *inputs: Array) -> Array:
        """The kernel's output for these three inputs."""
        variables = [np.array(values) for values in (*inputs, np.full(ITEMS, 3, self.kind.dtype))]
        with np.errstate(all="ignore"):
            self._run(self._statements, variables, np.ones(ITEMS, bool))
        return np.concatenate(variables)

    def _run(self, statements: list[tuple[Any, ...]], variables: list[Array], active: Array) -> None:
        for statement in statements:
            match statement:
                case ("set", variable, expression):
                    variables[variable] = np.where(active, self._value(expression, variables), variables[variable])
                case ("exchange", to, source, distance):
                    variables[to] = np.roll(variables[source].reshape(-1, GROUP), -distance, axis=1).reshape(-1)
                case ("if", left, right, then, otherwise):
                    holds = self._value(left, variables) < self._value(right, variables)
                    self._run(then, variables, active & holds)
                    self._run(otherwise, variables, active & ~holds)
                case ("loop", factor, body):
                    trips = np.arange(ITEMS, dtype=np.uint32) * np.uint32(factor) >> np.uint32(5) & np.uint32(
                        _TRIPS - 1
                    )
                    for trip in range(_TRIPS):
                        self._run(body, variables, active & (trip < trips))

    def _value(self, expression: Any, variables: list[Array]) -> Array:
        if isinstance(expression, int):
            return variables[expression]
        if expression[0] == "constant":
            return np.full(ITEMS, expression[1], self.kind.dtype)
        operation, *operands = expression
        return operation.of(self.kind, *(self._value(operand, variables) for operand in operands))


def inputs(kind: Type, seed: int) -> list[Array]:
    """Three inputs, with the values where things go wrong among them."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(3):
        if kind.is_float:
            scale = 2.0 ** generator.integers(-4, 5, ITEMS)
            values = (generator.standard_normal(ITEMS) * scale).astype(kind.dtype)
            special = np.array([0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan], kind.dtype)
        else:
            range_ = np.iinfo(kind.dtype)
            values = generator.integers(range_.min, range_.max, ITEMS, dtype=kind.dtype, endpoint=True)
            special = np.array([0, 1, 2, range_.max, range_.max - 1, range_.min, range_.min + 1], kind.dtype)
        places = generator.integers(0, ITEMS, ITEMS // 8)
        values[places] = generator.choice(special, len(places))
        made.append(values)
    return made
