"""State of the compute pipeline: kept with the context as the dwords of the commands that set it (Mesa `gen200.xml`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.memory.formats.ppgtt import VA_MASK

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

STATE_BASE_ADDRESS = 0x6101
STATE_SIP = 0x6102
STATE_COMPUTE_MODE = 0x6105
CFE_STATE = 0x7200
BINDING_TABLE_POOL_ALLOC = 0x7919

_BASE_DWORDS = 21
# Of STATE_BASE_ADDRESS, indices without the header: addresses of two dwords and sizes of one, with "modify" in bit 0.
_ADDRESSES = (0, 3, 5, 7, 9, 15, 18)
_SIZES = (11, 12, 13, 14)
# Bindless sizes go with their addresses.
_BINDLESS = ((15, 17), (18, 20))
_MODIFY = 1
_NO_BASES = (0,) * _BASE_DWORDS
_PAGE = ~0xFFF


def keep(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """A command whose state replaces what was there."""
    streamer.lrc.state[words[index] >> 16] = words[index + 1 : index + length].tolist()
    return None


def state_base_address(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """STATE_BASE_ADDRESS: only what has its modify bit set is taken over."""
    new = words[index + 1 : index + length].tolist()
    new += [0] * (_BASE_DWORDS - len(new))
    kept = streamer.lrc.state.setdefault(STATE_BASE_ADDRESS, [0] * _BASE_DWORDS)
    for at in _ADDRESSES:
        if new[at] & _MODIFY:
            kept[at : at + 2] = new[at : at + 2]
    for at in _SIZES:
        if new[at] & _MODIFY:
            kept[at] = new[at]
    for at, size in _BINDLESS:
        if new[at] & _MODIFY:
            kept[size] = new[size]
    kept[2] = new[2]  # stateless MOCS
    return None


@dataclass(frozen=True, slots=True)
class ComputeState:
    """What a walker takes from the context: 48-bit addresses in its address space."""

    general: int
    """Indirect data and stateless messages start here."""
    surface: int
    dynamic: int
    instruction: int
    bindless_surface: int
    bindless_sampler: int
    binding_tables: int | None
    """Binding table pool; None: tables are at surface state base."""
    scratch: int
    """CFE_STATE's scratch pointer, in place (31:10): goes to r0.5."""
    system_routine: int
    """Offset from instruction base."""

    @classmethod
    def of(cls, lrc: Lrc) -> ComputeState:
        """The state that `lrc` has now; what was never set is zero."""
        kept = lrc.state
        return _state(
            tuple(kept.get(STATE_BASE_ADDRESS) or _NO_BASES),
            tuple(kept.get(BINDING_TABLE_POOL_ALLOC, ())),
            tuple(kept.get(CFE_STATE, ())),
            tuple(kept.get(STATE_SIP, ())),
        )


@lru_cache(maxsize=256)
def _state(
    bases: tuple[int, ...], pool: tuple[int, ...], scratch: tuple[int, ...], routine: tuple[int, ...]
) -> ComputeState:
    """What these commands' dwords say; most walkers have the state of the one before."""

    def base(at: int) -> int:
        return (bases[at] | bases[at + 1] << 32) & _PAGE & VA_MASK

    return ComputeState(
        general=base(0),
        surface=base(3),
        dynamic=base(5),
        instruction=base(9),
        bindless_surface=base(15),
        bindless_sampler=base(18),
        binding_tables=(pool[0] | pool[1] << 32) & _PAGE & VA_MASK if pool and len(pool) > 1 else None,
        scratch=scratch[0] & 0xFFFF_FC00 if scratch else 0,
        system_routine=(routine[0] | routine[1] << 32) & ~0xF & VA_MASK if routine and len(routine) > 1 else 0,
    )
