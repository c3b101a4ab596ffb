"""The PF's requests to the GuC about functions: their configuration, policies, and control of VFs.

`xe_gt_sriov_pf_config.c` (UPDATE_VF_CFG), `xe_gt_sriov_pf_policy.c` (UPDATE_VGT_POLICY), `xe_gt_sriov_pf_control.c`
(VF_CONTROL and the events that answer it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vfio_user_xe.device_models.xe.guc import actions, klv
from vfio_user_xe.device_models.xe.guc.errors import (
    INVALID_KLV_DATA,
    INVALID_PARAMS,
    INVALID_VFID,
    GucError,
)
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import FLR, PAUSED, RESFIX, RUNNING, STOPPED, Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.guc.limits import ALL_CONTEXTS, GGTT_TOP
from vfio_user_xe.device_models.xe.memory.ggtt_sharing import GgttSharing
from vfio_user_xe.device_models.xe.profiles.profile import EngineInfo

PAUSE, RESUME, STOP, FLR_START, FLR_FINISH = 1, 2, 3, 4, 5
EVENT_FLR, EVENT_FLR_DONE, EVENT_PAUSE_DONE = 1, 2, 3

_MAX_BUFFER_DWORDS = 4096
_QUANTUM_MAX_MS = 100_000
_TIMEOUT_MAX_US = 100_000_000

_GGTT_START_MINIMUM = 8 << 20
"""Below is WOPCM (`xe_gt_sriov_pf_config.c`, `xe_ggtt_init_early`)."""
_LMEM_GRANULE = 2 << 20
_PRIORITIES = 3
_EITHER = (
    (klv.EXEC_QUANTUM, klv.ENGINE_GROUP_EXEC_QUANTUM),
    (klv.PREEMPT_TIMEOUT, klv.ENGINE_GROUP_PREEMPT_TIMEOUT),
)
"""Keys of all engines and keys by scheduling group that say the same thing."""


@dataclass(slots=True)
class FunctionConfig:
    """The PF's configuration of a function, as numbers by KLV key. A missing key is not provisioned."""

    values: dict[int, int] = field(default_factory=dict)

    def get(self, key: int) -> int:
        """The value of `key`, 0 when it was not set."""
        return self.values.get(key, 0)


class Sriov:
    """Configurations by VFID, policies, and control of VFs, for one GT."""

    def __init__(self, guc: Guc, sharing: GgttSharing | None) -> None:
        """`sharing` is the GGTT's; None on the media GT, whose GuC is told the ranges and does nothing with them."""
        self._guc = guc
        self._sharing = sharing
        self.configs: dict[int, FunctionConfig] = {}
        self.policies: dict[int, int] = {}
        self.groups: tuple[tuple[int, ...], ...] = ()
        """Engine scheduling groups: masks of logical instances by the GuC's engine class; none: they are off."""
        self._events: dict[tuple[int, int], tuple[float, int]] = {}
        self.on_resume: Callable[[Host], bool] | None = None
        """Asked when a VF is resumed; True when it must be fixed up before it runs."""
        self.on_scheduling: list[Callable[[], None]] = []
        """Called when a function's share of the engines has changed."""
        guc.handle(actions.UPDATE_VGT_POLICY, self._update_policy)
        guc.handle(actions.UPDATE_VF_CFG, self._update_config)
        guc.handle(actions.VF_CONTROL, self._control)
        guc.on_reset.append(self._reset)
        guc.on_host_reset.append(self._host_reset)
        guc.served = lambda host, seconds: self.adverse_time(host.vfid, klv.THRESHOLD_H2G_STORM, seconds)

    def config(self, vfid: int) -> FunctionConfig:
        """The configuration of a function."""
        return self.configs.setdefault(vfid, FunctionConfig())

    def contexts_of(self, vfid: int) -> int:
        """How many guc_ids a function may use."""
        return self.config(vfid).get(klv.NUM_CONTEXTS) if vfid else ALL_CONTEXTS

    def quantum(self, vfid: int, info: EngineInfo) -> int:
        """A function's execution quantum on an engine in milliseconds; 0: unlimited."""
        return self._quanta(vfid)[self._group(info) or 0]

    def set_groups(self, groups: tuple[tuple[int, ...], ...]) -> None:
        """Have these engine scheduling groups; none: turn them off."""
        if groups == self.groups:
            return
        self.groups = groups
        found = {info.name: self._group(info) for info in self._guc.gt.infos}
        named = {name: group for name, group in found.items() if group is not None}
        self._guc.engines.scheduling_groups(named if groups else None)

    def _group(self, info: EngineInfo) -> int | None:
        masks = [group[info.guc_class] >> info.logical & 1 for group in self.groups]
        return 0 if not masks else masks.index(1) if 1 in masks else None

    def _quanta(self, vfid: int) -> tuple[int, ...]:
        return self._by_group(vfid, klv.EXEC_QUANTUM, klv.ENGINE_GROUP_EXEC_QUANTUM, _QUANTUM_MAX_MS)

    def _by_group(self, vfid: int, key: int, group_key: int, largest: int) -> tuple[int, ...]:
        """One number for each scheduling group; the key that came last counts."""
        config = self.config(vfid)
        if group_key in config.values:
            numbers = [config.get(group_key) >> 32 * n & 0xFFFFFFFF for n in range(klv.MAX_SCHED_GROUPS)]
        else:
            numbers = [config.get(key)] * klv.MAX_SCHED_GROUPS
        return tuple(min(number, largest) for number in numbers)

    def function_level_reset(self, vfid: int) -> None:
        """A PCI FLR of VF `vfid` happened: stop serving it until the PF has cleaned up (FLR_FINISH)."""
        host = self._guc.hosts[vfid]
        self._guc.reset_host(host)
        if self._guc.boot.running and self._guc.pf.listening:
            host.becomes(FLR)
            self._note_reset(host, began=True)
            self._guc.pf.event(actions.VF_STATE_NOTIFY, vfid, EVENT_FLR)

    def adverse_time(self, vfid: int, threshold: int, seconds: float) -> None:
        """As `adverse_event` for storms, whose thresholds are microseconds that are spent on them."""
        self.adverse_event(vfid, threshold, int(seconds * 1e6))

    def adverse_event(self, vfid: int, threshold: int, amount: int = 1) -> None:
        """Count an event of VF `vfid`; tell the PF when a threshold is reached within a sampling period.

        `abi/guc_klvs_abi.h:GUC_KLV_VF_CFG_THRESHOLD_*`, `xe_gt_sriov_pf_monitor.c`.
        """
        if not vfid:
            return
        limit = self.config(vfid).get(threshold)
        period = self.policies.get(klv.ADVERSE_SAMPLE_PERIOD, 0)
        if not limit or not period:
            return
        now = self._guc.gt.gpu.card.clock.seconds()
        since, count = self._events.get((vfid, threshold), (now, 0))
        if (now - since) * 1000 > period:
            since, count = now, 0
        if count < limit <= count + amount:
            self._guc.pf.event(actions.ADVERSE_EVENT, vfid, threshold)
        self._events[vfid, threshold] = (since, count + amount)

    def _reset(self) -> None:
        for host in self._guc.hosts[1:]:
            self._note_reset(host, began=False)
        # Not the GGTT's ranges: whose entries are whose is written in the GGTT, which a GT reset leaves alone.
        self.configs.clear()
        self.policies.clear()
        self.set_groups(())
        self._events.clear()

    def _host_reset(self, host: Host) -> None:
        memirq = self._guc.interrupts.memirqs.get(host.vfid)
        if memirq is not None:
            memirq.reset(self._guc.gt.index)

    # UPDATE_VGT_POLICY

    def _update_policy(self, host: Host, message: Message) -> int:
        found = self._klvs(host, message.address(0), message.payload[2], klv.VGT_POLICY)
        for key, value in found:
            self.policies[key] = value[0] if value else 0
            if key == klv.ENGINE_GROUP_CONFIG:
                self._set_group_config(value)
            if key == klv.SCHED_IF_IDLE:
                # From 70.12 on it sets every function's priority at once, to low or to normal.
                for vfid in range(len(self._guc.hosts)):
                    self.config(vfid).values[klv.SCHED_PRIORITY] = min(value[0], 1)
                    self._apply_scheduling(vfid)
        return len(found)

    def _set_group_config(self, value: tuple[int, ...]) -> None:
        size = klv.MAX_ENGINE_CLASSES
        if len(value) % size:
            raise GucError(INVALID_KLV_DATA, f"{len(value)} masks of engines, not a multiple of {size}")
        self.set_groups(tuple(value[at : at + size] for at in range(0, len(value), size)))

    # UPDATE_VF_CFG

    def _update_config(self, host: Host, message: Message) -> int:
        vfid, address, size = message.payload[0], message.address(1), message.payload[3]
        if vfid >= len(self._guc.hosts):
            raise GucError(INVALID_VFID, str(vfid))
        if not address and not size:
            self.configs.pop(vfid, None)
            self._apply_ggtt(vfid)
            self._apply_scheduling(vfid)
            return 0
        found = self._klvs(host, address, size, klv.VF_CONFIG)
        for key, value in found:
            self._check(key, klv.number(value))
        values = self.config(vfid).values | {key: klv.number(value) for key, value in found}
        if vfid:
            self._check_range(values.get(klv.GGTT_START, 0), values.get(klv.GGTT_SIZE, 0))
        self.configs[vfid] = FunctionConfig(values)
        keys = {key for key, _ in found}
        for one, other in _EITHER:
            if other in keys:
                values.pop(one, None)
            elif one in keys:
                values.pop(other, None)
        if keys & {klv.GGTT_START, klv.GGTT_SIZE}:
            self._apply_ggtt(vfid)
        if keys & {
            klv.EXEC_QUANTUM,
            klv.PREEMPT_TIMEOUT,
            klv.SCHED_PRIORITY,
            klv.ENGINE_GROUP_EXEC_QUANTUM,
            klv.ENGINE_GROUP_PREEMPT_TIMEOUT,
        }:
            self._apply_scheduling(vfid)
        return len(found)

    @staticmethod
    def _check(key: int, value: int) -> None:
        wrong = {
            klv.GGTT_START: value % 4096,
            klv.GGTT_SIZE: value % 4096,
            klv.LMEM_SIZE: value % _LMEM_GRANULE,
            klv.SCHED_PRIORITY: value >= _PRIORITIES,
        }
        if wrong.get(key):
            raise GucError(INVALID_KLV_DATA, f"{klv.name_of(key)} {value:#x}")

    @staticmethod
    def _check_range(start: int, size: int) -> None:
        if size and not (start >= _GGTT_START_MINIMUM and start + size <= GGTT_TOP):
            raise GucError(INVALID_KLV_DATA, f"GGTT [{start:#x}, {start + size:#x})")

    def _apply_ggtt(self, vfid: int) -> None:
        if not vfid:
            return
        config = self.config(vfid)
        start, size = config.get(klv.GGTT_START), config.get(klv.GGTT_SIZE)
        if self._sharing is not None:
            self._sharing.provision(vfid, start if size else 0, size)

    def _apply_scheduling(self, vfid: int) -> None:
        timeouts = self._by_group(vfid, klv.PREEMPT_TIMEOUT, klv.ENGINE_GROUP_PREEMPT_TIMEOUT, _TIMEOUT_MAX_US)
        self._guc.engines.function_policy(
            vfid,
            quantum_us=tuple(1000 * quantum for quantum in self._quanta(vfid)),
            preempt_us=timeouts,
            priority=self.config(vfid).get(klv.SCHED_PRIORITY),
        )
        for callback in self.on_scheduling:
            callback()

    def _klvs(self, host: Host, address: int, size: int, allowed: frozenset[int]) -> list[tuple[int, tuple[int, ...]]]:
        if not 0 < size <= _MAX_BUFFER_DWORDS:
            raise GucError(INVALID_PARAMS, f"a buffer of {size} dwords")
        return klv.parse(host.read_dwords(address, size), allowed)

    # VF_CONTROL

    def _control(self, host: Host, message: Message) -> int:
        vfid, command = message.payload[:2]
        if not 0 < vfid < len(self._guc.hosts):
            raise GucError(INVALID_VFID, str(vfid))
        target = self._guc.hosts[vfid]
        if command == PAUSE:
            self._pause(target)
        elif command == RESUME:
            self._resume(target)
        elif command == STOP:
            target.becomes(STOPPED)
            self._guc.engines.pause_function(vfid, lambda: None)
        elif command == FLR_START:
            target.becomes(FLR)
            self._note_reset(target, began=True)
            self._guc.reset_host(target)
            if self._sharing is not None:
                self._sharing.show(vfid)
            self._guc.pf.event(actions.VF_STATE_NOTIFY, vfid, EVENT_FLR_DONE)
        elif command == FLR_FINISH:
            self._finish_flr(target)
        else:
            raise GucError(INVALID_PARAMS, f"VF control command {command}")
        return 0

    def _pause(self, target: Host) -> None:
        target.becomes(PAUSED)
        target.mailbox.give_back()
        vfid = target.vfid
        self._guc.engines.pause_function(vfid, lambda: self._paused(target))

    def _paused(self, target: Host) -> None:
        if target.state == PAUSED:
            if self._sharing is not None:
                self._sharing.show(target.vfid)
            self._guc.pf.event(actions.VF_STATE_NOTIFY, target.vfid, EVENT_PAUSE_DONE)

    def _resume(self, target: Host) -> None:
        target.needs(PAUSED, RUNNING, RESFIX)
        if self._sharing is not None:
            self._sharing.take(target.vfid)
        if self.on_resume is None or not self.on_resume(target):
            target.becomes(RUNNING)
            self._guc.engines.resume_function(target.vfid)
        target.serve()

    def _finish_flr(self, target: Host) -> None:
        # Running: the GuC was reset in between, and there is nothing left to finish.
        target.needs(FLR, RUNNING)
        if self._sharing is not None:
            self._sharing.take(target.vfid)
        target.mailbox.clear_by_flr()
        target.becomes(RUNNING)
        self._note_reset(target, began=False)
        self._guc.engines.resume_function(target.vfid)
        target.serve()

    def _note_reset(self, target: Host, *, began: bool) -> None:
        """The ledger watches who uses a VF's memory while the PF is cleaning it."""
        ownership = self._guc.gt.gpu.fabric.ledger.ownership
        if self._guc.gt.index == 0:
            ownership.reset_began(target.name) if began else ownership.reset_ended(target.name)
