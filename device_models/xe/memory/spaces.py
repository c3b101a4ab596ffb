"""All address spaces of one card: shared by contexts that use the same one, and invalidated together."""

from __future__ import annotations

import threading
import weakref

from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, FunctionView
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace


class AddressSpaces:
    """The address spaces of one card. Made and used on the card's executor, invalidated from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spaces: weakref.WeakSet[AddressSpace] = weakref.WeakSet()
        self._ppgtts: weakref.WeakValueDictionary[tuple[int, int, int], PpgttSpace] = weakref.WeakValueDictionary()

    def add(self, space: AddressSpace, /) -> None:
        """Invalidate `space` too, as long as it lives."""
        with self._lock:
            self._spaces.add(space)

    def ppgtt(self, function: FunctionView, root: int, asid: int) -> PpgttSpace:
        """The PPGTT of `function` with that root descriptor and ASID, shared by all contexts that use it."""
        key = (function.vfid, asid, root)
        space = self._ppgtts.get(key)
        if space is None or space.function is not function:
            space = self._ppgtts[key] = PpgttSpace(function, root, asid)
        return space

    def invalidate(self, vfid: int, asid: int | None = None) -> None:
        """Forget the translations of a function: of one of its PPGTTs, or (`asid` None) of all it has."""
        for space in self.spaces():
            if space.function.vfid != vfid:
                continue
            if asid is None:
                space.flush()
            elif isinstance(space, PpgttSpace) and space.asid == asid:
                space.invalidated()

    def forget(self, vfid: int) -> None:
        """A function was reset: what it translated is gone, and an address space it makes anew shares nothing with those."""
        for space in self.spaces():
            if space.function.vfid == vfid:
                space.flush()
        for key in [key for key in self._ppgtts if key[0] == vfid]:
            self._ppgtts.pop(key, None)

    def spaces(self) -> list[AddressSpace]:
        """The spaces that are in use."""
        with self._lock:
            return list(self._spaces)
