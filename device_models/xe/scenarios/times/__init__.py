"""How long scenarios took, by suite: files that `vfio-user-xe report times` wrote of results on the packaged kernel."""

from __future__ import annotations

from pathlib import Path

from vfio_user_xe.emulator.results.times import Times, load_times


def recorded(suite: str) -> Times:
    """Seconds by name of a scenario of the suite, on two busy cores without KVM.

    Raises:
        OSError: nothing is recorded of the suite.
    """
    return load_times(Path(__file__).with_name(f"{suite}.json"))
