"""SLPC and GuC RC: frequencies and render C-states, managed by the firmware (`xe_guc_pc.c`, `xe_guc_rc.c`).

The host gives a page of shared data with SLPC RESET; the firmware reports its state there, and with
QUERY_TASK_STATE the limits it uses. PARAMETER_SET overrides defaults: the limits (in MHz) are the ones with effect.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.freq import RP0, RPE, RPN, Frequency, to_units
from vfio_user_xe.device_models.xe.guc import actions
from vfio_user_xe.device_models.xe.guc.errors import INVALID_PARAMS, INVALID_STATE, GucError
from vfio_user_xe.device_models.xe.guc.formats.slpc import HEADER, OVERRIDES, SHARED_DATA, TASK_STATE
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.emulator.model.layout import offset_of

RESET, SHUTDOWN, QUERY_TASK_STATE, PARAMETER_SET, PARAMETER_UNSET = 0, 1, 5, 6, 7

NOT_RUNNING, RUNNING = 0, 3
_GLOBAL_STATE = offset_of(SHARED_DATA, "header") + offset_of(HEADER, "global_state")
_TASK_STATE = offset_of(SHARED_DATA, "task_state")
_OVERRIDES = offset_of(SHARED_DATA, "overrides")
MAX_PARAMETER = 32

MINIMUM, MAXIMUM, IGNORE_EFFICIENT = 6, 7, 28


class Slpc:
    """SLPC of one GT. `parameters` are the overrides that the host set."""

    def __init__(self, guc: Guc, frequency: Frequency) -> None:
        self._guc = guc
        self._frequency = frequency
        self._shared = 0
        self.running = False
        self.parameters: dict[int, int] = {}
        guc.handle(actions.SLPC_REQUEST, self._request)
        guc.handle(actions.SETUP_PC_GUCRC, self._setup_rc)
        guc.on_reset.append(self._reset)

    def _reset(self) -> None:
        self._shared = 0
        self.running = False
        self.parameters.clear()
        self._frequency.reset()

    def _request(self, host: Host, message: Message) -> int:
        event = message.payload[0] >> 8 & 0xFF
        arguments = message.payload[1 : 1 + (message.payload[0] & 0xFF)]
        needed = {RESET: 2, QUERY_TASK_STATE: 2, PARAMETER_SET: 2, PARAMETER_UNSET: 1}.get(event, 0)
        if len(arguments) < needed:
            raise GucError(INVALID_PARAMS, f"SLPC event {event} has {len(arguments)} arguments")
        if event == RESET:
            self._start(host, arguments[0])
        elif event == SHUTDOWN:
            self._stop(host)
        elif event == QUERY_TASK_STATE:
            if not self.running:
                raise GucError(INVALID_STATE, "SLPC is not running")
            self._report(host)
        elif event in (PARAMETER_SET, PARAMETER_UNSET):
            self._set(arguments[0], arguments[1] if event == PARAMETER_SET else None)
        return 0

    def _setup_rc(self, host: Host, message: Message) -> int:
        mode = message.payload[0]
        if mode > 1:
            raise GucError(INVALID_PARAMS, f"GuC RC mode {mode}")
        self._frequency.allow_rc6(mode == 1)
        return 0

    def _start(self, host: Host, shared: int) -> None:
        self._shared = shared
        space = host.space
        self.parameters.clear()
        overrides = OVERRIDES.parse(space.read(shared + _OVERRIDES, OVERRIDES.sizeof()))
        for index in range(MAX_PARAMETER):
            if overrides.set[index // 32] >> (index % 32) & 1:
                self.parameters[index] = overrides["values"][index]
        self._apply()
        self.running = True
        self._report(host)
        space.write32(shared + _GLOBAL_STATE, RUNNING)

    def _stop(self, host: Host) -> None:
        self.running = False
        if self._shared:
            host.space.write32(self._shared + _GLOBAL_STATE, NOT_RUNNING)

    def _set(self, parameter: int, value: int | None) -> None:
        if parameter >= MAX_PARAMETER:
            raise GucError(INVALID_PARAMS, f"SLPC parameter {parameter}")
        if value is None:
            self.parameters.pop(parameter, None)
        else:
            self.parameters[parameter] = value
        self._apply()

    def _apply(self) -> None:
        """The limits that follow from the overrides. Without one, the floor is the efficient frequency."""
        floor = RPN if self.parameters.get(IGNORE_EFFICIENT) else RPE
        minimum = to_units(self.parameters[MINIMUM]) if MINIMUM in self.parameters else floor
        maximum = to_units(self.parameters[MAXIMUM]) if MAXIMUM in self.parameters else RP0
        self._frequency.set_limits(min(max(minimum, RPN), RP0), min(max(maximum, RPN), RP0))

    def _report(self, host: Host) -> None:
        low, high = self._frequency.minimum, self._frequency.maximum
        state = TASK_STATE.build(
            {
                "status": {"gtperf_task_enabled": 1},
                "frequency": {"max_unslice": high, "min_unslice": low, "max_slice": high, "min_slice": low},
            }
        )
        host.space.write(self._shared + _TASK_STATE, state)
