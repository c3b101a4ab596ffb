"""Engine activity: how long each function kept each engine busy (`xe_guc_engine_activity.c`).

The host gives two buffers, one for itself or one slot for each function: metadata (16 bytes: clock in Hz, latency,
a change number) and records [class][logical instance] of 16 bytes (change number, quanta ratio, last update tick, 64
bits of active ticks). A reader adds "now - last update tick" while that is not zero, and looks at a record only when
the change numbers moved; so records are brought up to date whenever activity can have changed, on a timer. The quanta
ratio is the part of all time that a function's execution quantum gives it: the reader's "total ticks" grow by so much
(`xe_guc_engine_activity.c:get_engine_total_ticks`).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from vfio_user_xe.device_models.xe.gt.clock import REFERENCE_CLOCK, ticks
from vfio_user_xe.device_models.xe.guc import actions
from vfio_user_xe.device_models.xe.guc.errors import INVALID_PARAMS, GucError
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.profiles.profile import EngineInfo
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO

MISC_STATUS_0 = 0xA500
MISC_STATUS_1 = 0xA504

# Precompiled, not construct: up to a record for each engine and function is written every 5 ms while engines compute.
_METADATA = Struct("<4I")
_RECORD = Struct("<HHIQ")
_INSTANCES = 32
_CLASSES = 16
_SLOT = _CLASSES * _INSTANCES * _RECORD.size
_TOTAL_QUANTA = 0x8000
_PERIOD = 0.005
_IDLE_PERIODS = 4


class _Buffers:
    """Where the records of `functions` functions are; `changes` counts updates, never 0."""

    def __init__(self, functions: int, metadata: int, data: int) -> None:
        self.functions = functions
        self.metadata = metadata
        self.data = data
        self.changes = 0


class EngineActivity:
    """Activity records of one GT's engines."""

    def __init__(self, guc: Guc, registers: RegisterFile, quantum: Callable[[int, EngineInfo], int]) -> None:
        """`quantum` gives the execution quantum of a function, by VFID, on an engine; 0: unlimited."""
        self._guc = guc
        self._quantum = quantum
        self._device: _Buffers | None = None
        self._functions: _Buffers | None = None
        self.on_tick: list[Callable[[], None]] = []
        """Called every few milliseconds while there is work, and a few times after it."""
        self._ticking = False
        self._idle = 0
        self._last: dict[tuple[int, str, int], tuple[int, int]] = {}
        gt, clock = guc.gt, guc.gt.gpu.card.clock
        registers.add(
            [
                gt.register("MISC_STATUS_0", MISC_STATUS_0, access=RO, read=lambda: ticks(clock.ns()) & 0xFFFFFFFF),
                gt.register("MISC_STATUS_1", MISC_STATUS_1, access=RO, read=lambda: ticks(clock.ns()) >> 32),
            ]
        )
        guc.handle(actions.SET_DEVICE_ENGINE_ACTIVITY, self._set_device)
        guc.handle(actions.SET_FUNCTION_ENGINE_ACTIVITY, self._set_functions)
        guc.on_reset.append(self._reset)

    def _reset(self) -> None:
        self._device = self._functions = None

    def _set_device(self, host: Host, message: Message) -> int:
        metadata, data = message.address(0), message.address(2)
        self._device = _Buffers(1, metadata, data) if data else None
        self._start()
        return 0

    def _set_functions(self, host: Host, message: Message) -> int:
        functions = message.payload[0]
        if functions > len(self._guc.hosts):
            raise GucError(INVALID_PARAMS, f"{functions} functions of {len(self._guc.hosts)}")
        self._functions = _Buffers(functions, message.address(1), message.address(3)) if functions else None
        self._start()
        return 0

    def wake(self) -> None:
        """There is work: keep the records up to date until it is done."""
        self._idle = 0
        if not self._ticking and (self._device or self._functions):
            self._ticking = True
            self._guc.gt.gpu.executor.call_later(_PERIOD, self._tick)

    def _start(self) -> None:
        self._update()
        self.wake()

    def _tick(self) -> None:
        self._ticking = False
        for callback in self.on_tick:
            callback()
        if not self._guc.boot.running:
            return
        # Who waits for a turn has not changed anything for as long as others' turns take.
        idle = 0 if self._update() or self._guc.engines.has_work() else self._idle + 1
        if idle < _IDLE_PERIODS:
            self.wake()
        self._idle = idle

    def _update(self) -> bool:
        """Bring the records up to date; whether anything had changed."""
        with self._guc.gt.gpu.card.clock.telling():
            return self._measure()

    def _measure(self) -> bool:
        activity = self._guc.engines.activity()
        changed = False
        for buffers in (self._device, self._functions):
            if buffers is None or not buffers.functions:
                continue
            try:
                changed = self._write(buffers, activity) or changed
            except (TranslationFault, AccessFault):
                # The host has unmapped the buffer: it does not read there any more.
                buffers.functions = 0
        return changed

    def _write(self, buffers: _Buffers, activity: dict[tuple[str, int], int]) -> bool:
        space = self._guc.pf.space
        changed = buffers.changes == 0
        whole_card = buffers is self._device
        for info in self._guc.gt.infos:
            quanta = [0 if whole_card else self._quantum(vfid, info) for vfid in range(buffers.functions)]
            for vfid, quantum in enumerate(quanta):
                ratio = _TOTAL_QUANTA * quantum // sum(quanta) if quantum else _TOTAL_QUANTA
                nanoseconds = sum(
                    time
                    for (name, owner), time in activity.items()
                    if name.lower() == info.name and (whole_card or owner == vfid)
                )
                key = (id(buffers), info.name, vfid)
                if self._last.get(key) == (nanoseconds, ratio) and buffers.changes:
                    continue
                self._last[key] = nanoseconds, ratio
                changed = True
                address = buffers.data + vfid * _SLOT
                address += (info.guc_class * _INSTANCES + info.logical) * _RECORD.size
                change = (buffers.changes + 1) & 0xFFFF or 1
                active = nanoseconds * REFERENCE_CLOCK // 1_000_000_000
                space.write(address, _RECORD.pack(change, ratio, 0, active))
        if changed:
            buffers.changes = (buffers.changes + 1) & 0xFFFFFFFF or 1
            for vfid in range(buffers.functions):
                metadata = _METADATA.pack(REFERENCE_CLOCK, 0, buffers.changes, 0)
                space.write(buffers.metadata + vfid * _METADATA.size, metadata)
        return changed
