"""What the scenarios of virtual machines are written with: a machine that draws, its VMM's part, and a compositor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step, StepFailed
from vfio_user_xe.device_models.xe.scenarios.machine import MIB
from vfio_user_xe.device_models.xe.scenarios.vm.machine import COMPOSITOR, Host, VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.setups import ONE
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import Vmm
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Setup

Body: TypeAlias = Callable[[Run, Host], None]

SCENARIOS: list[Scenario[Host]] = []

WIDTH, HEIGHT = 640, 400
FRAME = WIDTH * HEIGHT * 4
"""Bytes of a frame of XR24: 250 pages, not a multiple of the pages of 64 KiB that VRAM is given out in."""
SOURCES = 0x1000_0000
TARGET = 0x8000_0000
PAGE = 4096
DRAWN, SURFACE = 0x1000_0000, 0x2000_0000
"""Virtual addresses: of imports and of what is composed, in the host; of what is drawn and of the surface, in a machine."""
_PORTS = "/sys/class/virtio-ports"
_WAIT_MS = 60_000
_WAIT = 2 * _WAIT_MS / 1000
"""Seconds: more than anything here takes on a busy machine that works."""


def scenario(
    number: str, title: str, expected: str, setup: Setup[Host] = ONE, *, groups: tuple[str, ...] = ()
) -> Callable[[Body], Body]:
    """Register the function below as the scenario of its name."""

    def register(function: Body) -> Body:
        name = function.__name__.replace("_", "-")
        SCENARIOS.append(Scenario(number, name, title, expected, setup, s.while_served(function), groups=groups))
        return function

    return register


def note(run: Run, who: str) -> Callable[[Step], None]:
    """Writes the steps of one party down."""
    return lambda step: run.note(f"{who}: {step}", step.seconds, step.ok, step.ago)


@dataclass
class Compositor:
    """A process on the PF that takes surfaces, and composes them by copies: what it has drawn can be compared."""

    program: Program
    explain: Callable[[VirtualMachine, str, StepFailed], None]
    """Ends the run as a known defect where that is why the machine's frame, whose ranges are given, is wrong."""
    sources: int = 0

    def connected(self, source: str) -> None:
        """Wait for a source of this name."""
        self.program.step(f"accept listener {source} {_WAIT_MS}", timeout=_WAIT)
        hello = self.receive(source)
        if hello.values != {"said": "hello", "version": "1", "name": source}:
            raise AssertionError(f"the source begins with {hello}")

    def receive(self, source: str, dmabuf: str = "-") -> Step:
        """The source's next message; its dma-buf gets the name."""
        return self.program.step(f"receive {source} {_WAIT_MS} {dmabuf}", timeout=_WAIT)

    def expect(self, source: str, verb: str, **values: str) -> Step:
        """The source's next message, which must be this one."""
        got = self.receive(source, f"d-{source}" if verb == "create" else "-")
        wanted = {"said": verb, **values}
        if {key: got.values.get(key) for key in wanted} != wanted:
            raise AssertionError(f"{source} says {got} instead of {wanted}")
        return got

    def imported(self, source: str, number: int = 1) -> None:
        """Import the dma-buf of the source and bind it."""
        self.program.do(f"import g d-{source} i-{source}", f"bind i-{source} {self.address(number):#x}")

    def dropped(self, source: str, number: int = 1) -> None:
        """Nothing of the source's buffer is left."""
        self.program.do(f"unbind g {self.address(number):#x} {FRAME:#x}", f"gem-close i-{source}", f"close d-{source}")

    def compose(self, number: int = 1) -> None:
        """Copy the frame of the source's surface to its window."""
        self.program.step(f"copy g {TARGET + number * MIB:#x} {self.address(number):#x} {FRAME:#x}")

    def shows(self, seed: int, number: int = 1) -> None:
        """The window has this frame, in every byte."""
        self.program.step(f"verify target {number * MIB:#x} 0 {FRAME:#x} {seed}")

    def done(self, source: str, frame: int) -> None:
        """Tell the source that its frame was composed."""
        self.program.step(f"tell {source} done resource=1 frame={frame} composed={frame}")

    def released(self, source: str) -> None:
        """Answer the source's revocation."""
        self.program.step(f"tell {source} released")

    def hung_up(self, source: str) -> None:
        """The source is gone without a word."""
        self.program.step(f"expect EPIPE receive {source} {_WAIT_MS} -", timeout=_WAIT)

    def refused(self, number: int = 1) -> None:
        """No frame of the machine's surface is to be had any more."""
        self.program.step(f"expect ENODEV copy g {TARGET + number * MIB:#x} {self.address(number):#x} {FRAME:#x}")

    @staticmethod
    def address(number: int) -> int:
        """Where the surface of machine `number` is bound."""
        return SOURCES + number * 16 * MIB


@dataclass
class Renderer:
    """A process in a machine that draws into a surface in the VF's VRAM, and names it."""

    vm: VirtualMachine
    program: Program
    ranges: str = ""
    unheard: Vmm | None = None
    """The machine's VMM, where what it says does not reach the machine: then its log tells of frames that were composed."""
    _told: int = 0

    def surface(self) -> None:
        """Make the surface, and what is drawn is made in."""
        self.program.do(
            f"gpu g {self.vm.address}",
            f"buffer g drawn {DRAWN:#x} {MIB:#x}",
            f"buffer g surface {SURFACE:#x} {FRAME:#x} vram",
            f"port {self.vm.name}",
        )
        self.ranges = self.program.step(f"pages surface {self.vm.address}", timeout=120).values["ranges"]

    def announce(self) -> None:
        """Name the surface to the VMM."""
        port = self.vm.name
        scanout = (
            f"scanout resource=1 width={WIDTH} height={HEIGHT} format=XR24 modifier=0x0 stride={4 * WIDTH} offset=0"
        )
        self.program.do(f"tell {port} create resource=1 size={FRAME:#x} ranges={self.ranges}", f"tell {port} {scanout}")

    def draw(self, seed: int) -> None:
        """Draw a frame: the copy engine of the VF writes it."""
        self.program.do(f"paint drawn 0 0 {FRAME:#x} {seed}", f"copy g {SURFACE:#x} {DRAWN:#x} {FRAME:#x}")

    def attempt(self, seed: int) -> str:
        """As `draw`, and it may fail: its error's name, "0" for none."""
        self.program.step(f"paint drawn 0 0 {FRAME:#x} {seed}")
        return self.program.step(f"try copy g {SURFACE:#x} {DRAWN:#x} {FRAME:#x}", timeout=_WAIT).errno

    def unref(self) -> None:
        """Tell the VMM that the surface is needed no more."""
        self.program.step(f"tell {self.vm.name} unref resource=1")

    def flush(self, frame: int) -> None:
        """The surface has this frame."""
        if self.unheard:
            self._told = sum(_done(frame) in line for line in self.unheard.log())
        self.program.step(f"tell {self.vm.name} flush resource=1 frame={frame}")

    def refused(self, words: str) -> None:
        """Say this to the VMM, which must refuse it."""
        self.program.step(f"tell {self.vm.name} {words}")
        heard = self.program.step(f"hear {self.vm.name} {_WAIT_MS}", timeout=_WAIT)
        if heard.values.get("said") != "error":
            raise AssertionError(f"{words!r} is answered with {heard}")

    def lost(self) -> None:
        """The machine was reset, and this process with it: its number may be another's now."""
        self.program.pid = 0

    def told(self, frame: int) -> None:
        """Wait for the news that it was composed."""
        if self.unheard:
            self.unheard.wait_for(_done(frame), self._told + 1)
            return
        heard = self.program.step(f"hear {self.vm.name} {_WAIT_MS}", timeout=_WAIT)
        if (heard.values.get("said"), heard.values.get("frame")) != ("done", str(frame)):
            raise AssertionError(f"{self.vm.name} hears {heard} and not of frame {frame}")


def _done(frame: int) -> str:
    """What a VMM's log has of a frame that was composed."""
    return f"done resource=1 frame={frame} "


@contextlib.contextmanager
def compositor(run: Run, host: Host) -> Iterator[Compositor]:
    """A compositor that listens; gone afterwards."""
    made = host.start(note(run, "compositor"))
    try:
        made.do(f"listen listener {COMPOSITOR}", f"gpu g {host.card.pf}", f"buffer g target {TARGET:#x} {4 * MIB:#x}")
        yield Compositor(made, lambda vm, ranges, failed: known_defect(run, host, vm, ranges, failed))
    finally:
        if not made.end(10):
            run.give_up(f"the compositor, process {made.pid}, cannot be killed")


def known_defect(run: Run, host: Host, vm: VirtualMachine, ranges: str, failed: StepFailed) -> None:
    """Of the first series with mappings by device address, which goes wrong where ranges are more than one, and scattered.

    What it reads is then another page of the machine's VF; whatever else fails has another cause.
    """
    if not host.zero_copy or failed.step.errno != "EILSEQ":
        return
    pages = [int(piece.partition("+")[2], 0) // PAGE for piece in ranges.split(",")]
    if any(count & (count - 1) for count in pages[:-1]):
        run.known("D3", f"pieces of {pages} pages; {failed.step}")
    if len(host.card.lmtt(vm.vfid)) > 1:
        run.known("D2", f"a quota that is scattered in VRAM; {failed.step}")


@contextlib.contextmanager
def running(run: Run, host: Host, vm: VirtualMachine, *, by_device: bool = False) -> Iterator[Vmm]:
    """The machine with its VF: its VMM's part has opened the VF, and the machine's driver has it. Gone afterwards."""
    if host.run(f"grep -qx {vm.name} {_PORTS}/*/name 2>/dev/null").returncode:
        options = "CONFIG_VIRTIO_PCI, CONFIG_VIRTIO_CONSOLE"
        run.not_applicable(f"this kernel has no port to its virtual machine ({vm.name} in {_PORTS}; {options})")
    vmm = host.vmm(vm, by_device=by_device)
    vmm.start()
    try:
        run.check(host.state(vm, "open"), f"the VF is {host.passed_on(vm)} although its VMM has it open")
        settled(run, host, vm)
        with run.step(f"{vm.name}: the VF is plugged in"):
            vm.plug()
        yield vmm
    except BaseException:
        run.note(f"{vm.name}'s VMM: {'; '.join(vmm.log()[-6:])}")
        raise
    finally:
        _end(run, host, vm, vmm)


def settled(run: Run, host: Host, vm: VirtualMachine) -> None:
    """Wait until the PF's driver has finished the reset of the machine's VF."""
    try:
        host.card.settle(vm.vfid)
    except TimeoutError:
        if lost := s.lost_reset(run, host):
            run.known(defects.RESET_LOST, lost)
        raise


def _end(run: Run, host: Host, vm: VirtualMachine, vmm: Vmm) -> None:
    run.fact(f"{vm.name}'s VMM", vmm.log())
    try:
        if vm.plugged:
            vm.unplug()
    except (TimeoutError, GuestError) as error:
        run.give_up(str(error))
    vmm.kill()
    if not vmm.gone():
        run.give_up(f"{vm.name}'s VMM, process {vmm.pid}, cannot be killed")
        return
    try:
        host.card.settle(vm.vfid)
    except TimeoutError as error:
        run.give_up(str(error))


@contextlib.contextmanager
def renderer(run: Run, vm: VirtualMachine) -> Iterator[Renderer]:
    """A process in the machine that has a surface; gone afterwards."""
    made = vm.program(note(run, vm.name))
    try:
        drawing = Renderer(vm, made)
        drawing.surface()
        yield drawing
    finally:
        made.end(10)


def first_frame(host: Host, drawing: Renderer, composing: Compositor, seed: int = 1) -> None:
    """The VMM connects, the surface is named and imported, and its first frame is composed."""
    composing.connected(drawing.vm.name)
    again(host, drawing, composing, seed)


def second_frame(drawing: Renderer, composing: Compositor) -> None:
    """A second frame of the first surface is on its way: flushed, and not composed."""
    drawing.draw(2)
    drawing.flush(2)
    composing.expect(drawing.vm.name, "flush", resource="1", frame="2")


def let_go(composing: Compositor, vm: VirtualMachine, reason: str) -> None:
    """The compositor is told that the machine's frames are revoked, drops them, and says so."""
    composing.expect(vm.name, "revoke", reason=reason)
    composing.dropped(vm.name)
    composing.released(vm.name)


def again(host: Host, drawing: Renderer, composing: Compositor, seed: int) -> None:
    """A surface of a machine whose VMM is connected is named and imported, and its first frame is composed."""
    name, number = drawing.vm.name, drawing.vm.vfid
    drawing.draw(seed)
    drawing.announce()
    composing.expect(name, "create", resource="1", size=f"{FRAME:#x}", kind="dma-buf")
    composing.imported(name, number)
    composing.expect(name, "scanout", resource="1", format="XR24")
    host.card.call("ledger", clear=True)
    frame(drawing, composing, 1, seed)


def frame(drawing: Renderer, composing: Compositor, count: int, seed: int) -> None:
    """Frame `count`, which is drawn already, gets into its window."""
    name, number = drawing.vm.name, drawing.vm.vfid
    drawing.flush(count)
    composing.expect(name, "flush", resource="1", frame=str(count))
    composing.compose(number)
    try:
        composing.shows(seed, number)
    except StepFailed as failed:
        composing.explain(drawing.vm, drawing.ranges, failed)
        raise
    composing.done(name, count)
    drawing.told(count)


def check_frames_path(run: Run, host: Host, number: int = 1, frames: int = 1) -> None:
    """Every byte of the frames came by the path that this kernel should take, and the processor copied none."""
    start = Compositor.address(number)
    s.check_path(run, host, owner=f"vf{number}", start=start, length=FRAME)
    entries = [e for e in host.card.call("ledger") if e["initiator"] == "pf" and e["owner"] == f"vf{number}"]
    read = run.evidence(
        f"bytes that the PF read of VF {number}",
        {f"{e['interconnect']}, {e['kind']}": e["bytes_read"] for e in entries},
    )
    run.check(sum(e["bytes_read"] for e in entries) >= frames * FRAME, f"less than {frames} frames: {read}")


def check_machine(run: Run, vm: VirtualMachine, *ignore: Kind) -> None:
    """The machine's kernel has reported nothing of itself but of the kinds that the scenario provokes."""
    found = run.fact(f"reports of {vm.name}'s kernel", [(report.kind, report.headline) for report in vm.reports()])
    wrong = [headline for kind, headline in found if kind not in ignore]
    run.check(not wrong, f"{vm.name}'s kernel reports: {wrong}")
