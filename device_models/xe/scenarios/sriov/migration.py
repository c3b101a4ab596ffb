"""Scenarios 30 to 34: a VF saved and restored by the PF's driver, as a migration does it (debugfs; the machine's memory stays)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.sriov import defects
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import CONFIGFS, SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.run import Run

MIB = 1 << 20
_QUOTA = 32 * MIB
"""Little, so that a state is small: it goes through a file of the guest."""
_DATA = 4 * MIB
_STATE = "/tmp/vf-state"
_TIME = 180.0
_GO_ON = "/tmp/vf-state-go-on"


class Migration:
    """The PF's files for VF 1, whose driver is xe, with little VRAM.

    Raises:
        NotApplicable: this driver does not migrate VFs.
        CommandFailed: VFs cannot be enabled.
    """

    def __init__(self, run: Run, machine: SriovMachine) -> None:
        self._run, self._machine = run, machine
        self.folder = f"{machine.card.debugfs}/sriov/vf1"
        if machine.run(f"test -e {self.folder}/migration_data").returncode:
            run.not_applicable(f"there is no {self.folder}/migration_data: this driver does not migrate VFs")
        # Unlike the files in debugfs, this one leaves the rest of a VF's provisioning to the driver.
        for number in (1, 2):
            machine.sh(f"echo {_QUOTA} > {machine.card.sysfs}/sriov_admin/vf{number}/profile/vram_quota")
        self.vfs = machine.enable(2)

    @contextlib.contextmanager
    def user(self) -> Iterator[Program]:
        """A process with data in VRAM and jobs on all engines of the VF, which go on when the block ends; data are compared.

        It is stopped meanwhile. The VF's driver is not, as it would be in a machine that moves: a job in flight would meet
        the driver's watchdog, which allows 10 s at most.
        """
        with s.program(self._run, self._machine) as made:
            made.do(f"gpu g {self.vfs[0]}", f"buffer g b 0x90000000 {_DATA:#x} vram", f"paint b 0 0 {_DATA:#x} 5")
            made.do(f"gpu h {self.vfs[0]}", "spawn work busy h", "sleep 500")
            self._machine.sh(f"kill -STOP {made.pid}; usleep 300000")
            try:
                yield made
            finally:
                self._machine.sh(f"kill -CONT {made.pid}")
            made.do("sleep 500", "stop work", "join work 40000", f"verify b 0 0 {_DATA:#x} 5", timeout=90)

    def save(self) -> int:
        """Pause and save; the size of the state in bytes."""
        with self._run.step("save"):
            size = self._machine.sh(
                f"cd {self.folder} && echo 1 > pause && echo 1 > save && cat migration_data > {_STATE} && cat save"
                f" && stat -c %s {_STATE}",
                timeout=_TIME,
            )
        return int(size.split()[-1])

    def wipe(self) -> None:
        """Reset the VF: what it had is gone."""
        with self._run.step("reset"):
            self._machine.sh(f"echo 1 > {self.folder}/reset", timeout=60)

    def restore(self, *, in_one_piece: bool = False) -> None:
        """Pause and restore. In one piece the end of the stream comes with the last of its data."""
        with self._run.step("restore"):
            self._machine.sh(f"cd {self.folder} && echo 1 > pause && echo 1 > restore")
            if in_one_piece:
                self._machine.sh(f"cd {self.folder} && cat {_STATE} > migration_data && cat restore", timeout=_TIME)
            else:
                self._restore_in_two()

    def _restore_in_two(self) -> None:
        """The end of the stream comes when VRAM has been written: otherwise the last of it is missed (docs/findings)."""
        vram = self._vram_written() + _QUOTA
        self._machine.sh(f"rm -f {_GO_ON}")
        # A header of 24 bytes ends the stream (xe_sriov_packet_types.h: struct xe_sriov_packet_hdr).
        feeding = Background(
            self._machine,
            f"cd {self.folder} && (head -c $(($(stat -c %s {_STATE}) - 24)) {_STATE}; until test -e {_GO_ON}; do sleep 0.1; done;"
            f" tail -c 24 {_STATE}) > migration_data && cat restore",
        )
        taken = self._machine.wait(lambda: self._vram_written() >= vram, _TIME)
        self._machine.sh(f"touch {_GO_ON}")
        missing = max(0, vram - self._vram_written())
        self._run.check(taken, f"{missing} bytes of the VF's VRAM are not restored after {_TIME:.0f} s")
        self._run.check(feeding.ended(_TIME), f"restoring does not end within {_TIME:.0f} s")
        self._run.check(feeding.code() == 0, f"restoring ended with code {feeding.code()}: {feeding.output()}")

    def _vram_written(self) -> int:
        """Bytes of the VF's VRAM that the PF's driver has written so far, by its engines."""
        rows = self._machine.card.call("ledger")
        return sum(row["bytes_written"] for row in rows if row["initiator"] == "pf" and row["owner"] == "vf1")

    def resume(self) -> None:
        """Let the VF run; its driver fixes its addresses up first."""
        with self._run.step("resume"):
            self._machine.sh(f"echo 1 > {self.folder}/resume", timeout=60)


@scenario(
    "30", "a VF with jobs on both GTs saved, reset, restored and resumed", "its jobs go on; data in VRAM as before"
)
def saved_and_restored(run: Run, machine: SriovMachine) -> None:
    migration = Migration(run, machine)
    with migration.user():
        run.evidence("bytes of state", migration.save())
        migration.wipe()
        migration.restore()
        migration.resume()
    s.work(run, machine, machine.card.pf, *migration.vfs)


@scenario(
    "30b",
    "a VF saved and restored that has a folder for its settings in configfs",
    "as 30; locks are taken in one order",
)
def moved_with_settings(run: Run, machine: SriovMachine) -> None:
    migration = Migration(run, machine)
    folder = f"{CONFIGFS}/{migration.vfs[0]}"
    if machine.run(f"mkdir {folder}").returncode:
        run.not_applicable(f"{folder} cannot be made: this driver has no settings there, or the kernel no configfs")
    try:
        with migration.user():
            migration.save()
            migration.wipe()
            migration.restore()
            migration.resume()
    finally:
        machine.run(f"rmdir {folder}")


@scenario(
    "31", "a VF moved a second time before its driver has finished with the first", "its jobs go on; data as before"
)
def moved_twice_before_resfix(run: Run, machine: SriovMachine) -> None:
    migration = Migration(run, machine)
    with migration.user():
        for _ in range(2):
            migration.save()
            migration.wipe()
            migration.restore()
            # The second time this comes at once: the driver has been told of the move, and its worker has hardly begun.
            migration.resume()
    s.work(run, machine, machine.card.pf, *migration.vfs)


@scenario(
    "32", "a VF reset while it is being saved", "saving ends, with the data or an error; the VF works when bound again"
)
def reset_while_saving(run: Run, machine: SriovMachine) -> None:
    migration = Migration(run, machine)
    run.excuse(Kind.DRM, "the save was interrupted on purpose", message="save is still in progress", count=2)
    machine.unbind(migration.vfs[0])
    folder = migration.folder
    saving = Background(machine, f"cd {folder}; echo 1 > pause; echo 1 > save; cat migration_data > {_STATE}; cat save")
    machine.sh("usleep 20000")
    s.reset(machine, 1)
    stack = ""
    if not saving.ended(20):
        stack = run.evidence("where reading migration_data waits", machine.sh("cat /proc/$(pidof cat)/stack"))
        machine.run("kill $(pidof cat)")
        if not saving.ended(10):
            s.stuck(run, machine, "saving a VF that was reset cannot be ended by a signal")
    run.evidence("saving ended with code", saving.code())
    machine.run(f"echo 1 > {folder}/reset", timeout=60)
    run.check(machine.card.served(1, 10), "the VF is not served after a reset")
    machine.bind(migration.vfs[0])
    s.work(run, machine, machine.card.pf, *migration.vfs)
    if "xe_sriov_pf_migration_save_consume" in stack:
        run.known(defects.SAVE_ABANDONED, "reading migration_data of a VF that was reset waits for ever")
    run.check(not stack, "saving a VF that was reset does not end")


@scenario("33", "a VF saved and restored 5 times in a row", "VRAM that the PF's driver has given away is as before")
def migration_leaks_nothing(run: Run, machine: SriovMachine) -> None:
    migration = Migration(run, machine)
    before = machine.card.vram_used()
    for _ in range(5):
        migration.save()
        migration.wipe()
        migration.restore()
        migration.resume()
        machine.sh("usleep 500000")
        s.work(run, machine, migration.vfs[0])
    back = machine.wait(lambda: machine.card.vram_used() <= before, 5)
    run.check(back, f"VRAM in use: {before:#x} before, {machine.card.vram_used():#x} afterwards")


@scenario(
    "34",
    "a state that comes with its end in one piece, restored into a VF without a driver 8 times",
    "all of VRAM is restored",
)
def restored_in_one_piece(run: Run, machine: SriovMachine) -> None:
    migration = Migration(run, machine)
    machine.unbind(migration.vfs[0])
    marks = range(MIB, _QUOTA, 3 * MIB)
    missed = []
    for turn in range(1, 9):
        for address in marks:
            machine.card.call("write", function="vf1", space="device", address=address, data=f"{turn:02x}" * 64)
        migration.save()
        migration.wipe()
        migration.restore(in_one_piece=True)
        machine.wait(lambda: False, 0.5)
        found = [
            machine.card.call("read", function="vf1", space="device", address=address, length=64) for address in marks
        ]
        if wrong := sum(data != f"{turn:02x}" * 64 for data in found):
            missed.append(f"restore {turn}: {wrong} of {len(found)} places")
        migration.wipe()
    if missed:
        run.known(defects.LOST_TAIL, "; ".join(missed))
