"""The card against the guest's own processor: `python -m tests.bench.bench_opencl [--driver NAME] [--json FILE]`.

The same OpenCL kernels in the same guest, on the card by NEO (or another driver) and on the guest's processor by PoCL. Without
KVM the processor is emulated, and so slow that the card wins; with KVM it need not. Wants the userland `suites`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tests.bench.bench_engines import Figure
from vfio_user_xe.emulator.testing.lab import open_lab

POCL = "Portable"
NAMES = {"reduction": "reduction in SLM, 2^20 floats", "product": "product of 512 x 512 floats"}


def compare(driver: str, timeout: float) -> list[Figure]:
    """Times on both, and how many times faster the card is.

    Raises:
        RuntimeError: one of them computes something wrong.
    """
    files = {"/root/race.py": (Path(__file__).parent / "opencl_race.py").read_bytes()}
    with open_lab(["--vfs", "0"], modules=["xe"], userland="suites", memory=4096, files=files) as lab:
        lab.guest.run("modprobe xe", check=True, timeout=timeout)
        command = f"RUSTICL_ENABLE=iris python3 /root/race.py '{driver}' '{POCL}'"
        lines = lab.guest.run(command, check=True, timeout=timeout).stdout.splitlines()
    card, processor = (json.loads(line) for line in lines if line.startswith("{"))
    for one in (card, processor):
        if not one["right"]:
            raise RuntimeError(f"{one['device']} does not compute what numpy does")
    figures = []
    for key, name in NAMES.items():
        ours, theirs = card["seconds"][key], processor["seconds"][key]
        figures += [
            Figure(name, ours * 1000, "ms", card["device"]),
            Figure(name, theirs * 1000, "ms", processor["device"]),
            Figure(name, theirs / ours, "times", "the card against the processor; 5 are wanted"),
        ]
    return figures


def main() -> None:
    """Print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", default="Intel(R) OpenCL", help="part of its platform's name")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that the guest may take")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = compare(arguments.driver, arguments.timeout)
    for figure in figures:
        print(f"{figure.name:36} {figure.value:10.2f} {figure.unit:6} {figure.note}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))


if __name__ == "__main__":
    main()
