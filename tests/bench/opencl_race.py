"""Runs in the guest: the same kernels on two OpenCL devices, a line of JSON for each. `python3 opencl_race.py PLATFORM...`."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pyopencl as cl

ITEMS, LOCAL = 1 << 20, 256
SIZE, TILE = 512, 16
SECONDS, MOST = 4.0, 20
"""A kernel is run for so long, but at most so often and at least twice; the fastest run counts."""
SOURCE = """
kernel void reduce(global const float *in, global float *out, local float *part) {
    int i = get_local_id(0);
    part[i] = in[get_global_id(0)];
    for (int n = get_local_size(0) / 2; n; n /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (i < n) part[i] += part[i + n];
    }
    if (!i) out[get_group_id(0)] = part[0];
}

kernel void product(global const float *a, global const float *b, global float *c) {
    local float left[TILE][TILE], right[TILE][TILE];
    int x = get_local_id(0), y = get_local_id(1), column = get_global_id(0), row = get_global_id(1);
    float sum = 0;
    for (int k = 0; k < SIZE; k += TILE) {
        left[y][x] = a[row * SIZE + k + x];
        right[y][x] = b[(k + y) * SIZE + column];
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < TILE; i++) sum += left[y][i] * right[i][x];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    c[row * SIZE + column] = sum;
}
"""


def fastest(queue, kernel, sizes, local, arguments):
    """Seconds from the enqueue until the queue is empty."""
    times = []
    end = time.perf_counter() + SECONDS
    while len(times) < 2 or (time.perf_counter() < end and len(times) < MOST):
        start = time.perf_counter()
        kernel(queue, sizes, local, *arguments)
        queue.finish()
        times.append(time.perf_counter() - start)
    return min(times)


def race(platform):
    """Times of one device, whose results are compared with numpy's."""
    found = [device for each in cl.get_platforms() if platform in each.name for device in each.get_devices()]
    context = cl.Context([found[0]])
    queue = cl.CommandQueue(context)
    program = cl.Program(context, SOURCE).build([f"-DSIZE={SIZE}", f"-DTILE={TILE}"])
    random = np.random.default_rng(1)
    # Whole numbers: sums are exact in any order.
    data = random.integers(0, 16, ITEMS).astype(np.float32)
    a, b = (random.integers(-8, 8, (SIZE, SIZE)).astype(np.float32) for _ in range(2))
    flags = cl.mem_flags

    def buffer(values):
        return cl.Buffer(context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=values)

    sums, result = np.zeros(ITEMS // LOCAL, np.float32), np.zeros((SIZE, SIZE), np.float32)
    kept, wanted = buffer(sums), buffer(result)
    times = {
        "reduction": fastest(
            queue, cl.Kernel(program, "reduce"), (ITEMS,), (LOCAL,), (buffer(data), kept, cl.LocalMemory(4 * LOCAL))
        ),
        "product": fastest(
            queue, cl.Kernel(program, "product"), (SIZE, SIZE), (TILE, TILE), (buffer(a), buffer(b), wanted)
        ),
    }
    cl.enqueue_copy(queue, sums, kept)
    cl.enqueue_copy(queue, result, wanted)
    right = np.array_equal(sums, data.reshape(-1, LOCAL).sum(axis=1)) and np.array_equal(result, a @ b)
    return {"platform": platform, "device": found[0].name, "right": bool(right), "seconds": times}


for name in sys.argv[1:]:
    print(json.dumps(race(name)), flush=True)
