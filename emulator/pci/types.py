"""What capabilities, ECAM and BAR programming need of a function, so that they do not import who imports them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.config_space import ConfigSpace
from vfio_user_xe.emulator.pci.transport import Transport


class FunctionView(Protocol):
    """A function as its parts see it; `function.Function` is one."""

    client_reset: Callable[[], None] | None
    """VFs: called inside the reset by which a client resets the VF, before its registers are; set by the PF's SR-IOV."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def index(self) -> int:
        """0 for a PF or a plain device, n for VF n."""
        ...

    @property
    def is_vf(self) -> bool:
        """Whether it is a VF."""
        ...

    @property
    def executor(self) -> Executor:
        """The card's."""
        ...

    @property
    def config(self) -> ConfigSpace:
        """Its configuration space."""
        ...

    @property
    def bars(self) -> Mapping[int, Bar]:
        """By number."""
        ...

    @property
    def transport(self) -> Transport | None:
        """While a client is attached."""
        ...

    def function_level_reset(self) -> None:
        """Reset this function only; a PF takes its VFs along."""
        ...

    def power_state_changed(self, old: int, new: int, *, reset: bool) -> None:
        """PMCSR went from `old` to `new`; `reset` when state is lost on the way back to D0."""
        ...

    def size_bar_register(self, index: int, size: int) -> None:
        """Make the register of BAR `index` answer sizing with `size` bytes."""
        ...

    def disabled(self) -> None:
        """VFs: the PF's VF Enable was cleared."""
        ...
