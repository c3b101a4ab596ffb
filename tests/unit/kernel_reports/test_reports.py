"""Every form in which a kernel reports itself is recognised, however its log was read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vfio_user_xe.emulator.kernel_reports import Example, Kind, Line, examples, parse, reports
from vfio_user_xe.emulator.kernel_reports.lines import records

FORMATS: dict[str, Callable[[str], str]] = {
    "bare": lambda text: text,
    "time": lambda text: f"[   12.345678] {text}",
    "time-and-caller": lambda text: f"[   12.345678][  T123] {text}",
    "caller": lambda text: f"[    C1] {text}",
    "level": lambda text: f"<4>{text}",
    "level-time-caller": lambda text: f"<4>[   12.345678][  T123] {text}",
    "decoded": lambda text: f"kern  :warn  : [   12.345678] {text}",
}


def read(lines: list[str]) -> list[Line]:
    return parse("\n".join(lines))


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
@pytest.mark.parametrize("form", FORMATS)
def test_a_report_is_recognised_in_every_form_of_a_log(example: Example, form: str) -> None:
    healthy = "made-up 0000:01:00.0: all is well"
    lines = [FORMATS[form](text) for text in (healthy, *example.lines, healthy)]
    (report,) = reports(read(lines))
    assert report.kind is example.kind
    assert report.place == example.function


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_a_report_is_recognised_in_the_kernel_s_own_records(example: Example) -> None:
    text = "\n".join(f"4,{100 + at},12345678,-,caller=T123;{line}" for at, line in enumerate(example.lines))
    (report,) = reports(records(text))
    assert (report.kind, report.place) == (example.kind, example.function)


def test_every_kind_has_an_example() -> None:
    assert {example.kind for example in examples()} == set(Kind)


def test_reports_that_follow_each_other_are_told_apart() -> None:
    lines = [line for example in examples() for line in example.lines]
    assert [report.kind for report in reports(read(lines))] == [example.kind for example in examples()]


@pytest.mark.parametrize(
    "line",
    [
        "Command line: console=ttyS0 kasan_multi_shot bug=BUG: x",
        "DMAR: [Firmware Bug]: No DRHD structure found in DMAR table",
        "DMA-API: preallocated 65536 debug entries",
        "DMA-API: debugging enabled by kernel config",
        "DMA-API: debugging disabled on kernel command line",
        "ODEBUG: selftest passed",
        "<7>[   12.345678] made-up 0000:01:00.0: [drm:made_up] Timedout job: what a driver tells while it debugs",
        "iommu: Default domain type: Passthrough (set via kernel command line)",
        "ACPI BIOS Error (bug): Could not resolve symbol, AE_NOT_FOUND",
        "pcieport 0000:00:01.0: AER: enabled with IRQ 24",
        "mce: CPU0: Thermal monitoring enabled (TM1)",
        "kmemleak: Kernel memory leak detector initialized (mem pool available: 15000)",
        "lkdtm: Performing direct entry WARNING",
        "kasan: KernelAddressSanitizer initialized (generic)",
        "x86/mm: Checked W+X mappings: passed, no W+X pages found.",
        "FAULT_INJECTION: forcing a failure.",
        "\tRCU CPU stall warnings timeout set to 60 (rcu_cpu_stall_timeout).",
        "workqueue: made_up_work hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
        "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable",
        "perf: interrupt took too long (2501 > 2500), lowering kernel.perf_event_max_sample_rate to 79750",
        "xe 0000:01:00.0: [drm] PF: Tile0: GT0: VF1 FLR",
        "rcu: Preemptible hierarchical RCU implementation.",
    ],
)
def test_lines_with_the_words_that_report_nothing_are_none(line: str) -> None:
    assert reports(parse(line)) == []


def test_a_report_ends_where_the_kernel_ends_it() -> None:
    example = next(example for example in examples() if example.name == "hung-task")
    (report,) = reports(read([*example.lines, " later_function+0x1/0x2"]))
    assert "later_function" not in report.functions
    assert report.functions[0] == "made_up_wait"
    assert "dma_fence_default_wait" in report.functions


def test_functions_that_the_kernel_is_not_sure_of_are_not_named() -> None:
    (report,) = reports(read(["BUG: Bad page state in process sh  pfn:1", " ? guessed+0x1/0x2", " sure+0x1/0x2"]))
    assert report.functions == ["sure"]


def test_a_report_as_text_names_its_place() -> None:
    refcount, circular = (
        reports(read(list(example.lines)))[0] for example in examples() if example.name in ("refcount", "recursive")
    )
    texts = sorted((str(refcount), str(circular)))
    assert texts == [
        "WARNING: possible recursive locking detected",
        "refcount_t: addition on 0; use-after-free. (in made_up_get)",
    ]


def test_a_message_of_several_lines_and_a_device_s_properties_are_told_apart() -> None:
    (first, second, third) = records(
        "6,7,1500000,-;one\\x0atwo\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n12,8,1600000,c,caller=C1;a;b \\x5cx"
    )
    assert (first.text, second.text, first.sequence, second.sequence) == ("one", "two", 7, 7)
    assert third == Line("a;b \\x", 1.6, 4, "C1", 8)
    assert str(third) == "[    1.600000] a;b \\x"


def test_the_page_that_kasan_dumps_is_part_of_its_report() -> None:
    found = reports(
        read(
            [
                "==================================================================",
                "BUG: KASAN: slab-use-after-free in made_up_get+0x3a/0x89",
                "Read of size 8 at addr ff11000012345678 by task made-up/1",
                "The buggy address belongs to the physical page:",
                "page: refcount:0 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x12345",
                "page dumped because: kasan: bad access detected",
                "Memory state around the buggy address:",
                "==================================================================",
                "page dumped because: made up",
            ]
        )
    )
    assert [report.kind for report in found] == [Kind.KASAN, Kind.PAGES]
    assert "Memory state" in found[0].text


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("BUG: KASAN: slab-use-after-free in made_up_get+0x3a/0x89", Kind.KASAN),
        ("WARNING: possible circular locking dependency detected", Kind.LOCKDEP),
        ("INFO: task made-up:12 blocked for more than 5 seconds.", Kind.HUNG_TASK),
        ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [made-up:12]", Kind.SOFT_LOCKUP),
        ("made_up 0000:01:00.0: [drm] *ERROR* something else failed", Kind.DRM),
    ],
)
def test_what_another_processor_reports_within_a_warning_is_a_report_of_its_own(line: str, kind: Kind) -> None:
    warning = [
        "------------[ cut here ]------------",
        "WARNING: drivers/made/up.c:12 at made_up_init+0x1/0x2, CPU#0: sh/12",
        "Call Trace:",
        line,
        " made_up_probe+0x1/0x2",
        "---[ end trace 0000000000000000 ]---",
    ]
    found = reports(read(warning))
    assert [report.kind for report in found] == [Kind.WARNING, kind]
    assert ("made_up_probe" in found[0].text) is (kind is Kind.DRM), "what has one line cuts nothing off"


def test_what_a_driver_warns_with_is_one_report_whatever_it_says() -> None:
    lines = [
        "------------[ cut here ]------------",
        "made_up 0000:01:00.0: [drm] *ERROR* something failed",
        "WARNING: drivers/made/up.c:12 at made_up_init+0x1/0x2, CPU#0: sh/12",
        "---[ end trace 0000000000000000 ]---",
    ]
    assert len(reports(read(lines))) == 1


def test_kasan_s_reports_of_functions_with_a_shadow_are_reports() -> None:
    assert [report.kind for report in reports(parse("BUG: KASAN: slab-use-after-free in made_shadow_up+0x1/0x2"))] == [
        Kind.KASAN
    ]
    assert reports(parse("KASAN: made up text about its shadow")) == []
