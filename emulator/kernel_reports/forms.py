"""Every form in which a Linux kernel reports something wrong with itself, by kind; in brackets where the kernel prints it.

The forms are those of the sources and of the strings in kernels 6.1 to 7.3: both generations of WARNING, of lockdep's headings
("[ INFO: ... ]" before 4.10) and of oopses are there. Order matters: the first form that fits a line names its kind, so
BUG and WARNING, which every reporter may begin its line with, come last.

Not reports: what a busy host does to a guest (clock sources marked unstable, "hogged CPU", NMI handlers that took long), what
firmware is blamed for ("Firmware Bug"), and what fault injection says it does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a report is about, by its reporter."""

    PANIC = "panic"
    KASAN = "KASAN"
    KFENCE = "KFENCE"
    KMSAN = "KMSAN"
    KCSAN = "KCSAN"
    UBSAN = "UBSAN"
    HARDENING = "hardening"
    """User copies, fortified string functions, stack protector, control flow integrity."""
    LOCKDEP = "lockdep"
    RCU_USAGE = "RCU usage"
    LOCK_DEBUG = "lock debugging"
    """Spinlocks, reader-writer locks, mutexes and wait/wound mutexes that are misused."""
    ATOMIC = "sleeping in atomic context"
    RCU_STALL = "RCU stall"
    HUNG_TASK = "hung task"
    SOFT_LOCKUP = "soft lockup"
    HARD_LOCKUP = "hard lockup"
    WORKQUEUE = "workqueue"
    SLAB = "slab"
    PAGES = "page state"
    KMEMLEAK = "kmemleak"
    ALLOCATION = "allocation failure"
    OUT_OF_MEMORY = "out of memory"
    LIST = "list corruption"
    REFCOUNT = "refcount"
    REF_TRACKER = "ref_tracker"
    DEBUG_OBJECTS = "debug objects"
    KOBJECT = "kobject"
    DMA_DEBUG = "DMA debugging"
    IOMMU = "IOMMU fault"
    PCI = "PCI error"
    INTERRUPT = "interrupt"
    HARDWARE = "hardware error"
    GPU_HANG = "GPU hang"
    DEVICE_LOST = "device lost"
    DRM = "DRM error"
    OOPS = "oops"
    BUG = "BUG"
    WARNING = "WARNING"
    UNKNOWN = "unknown"
    """The kernel began a report ("cut here"), and what followed is none of these."""


@dataclass(frozen=True, slots=True)
class Form:
    """A line that begins a report."""

    kind: Kind
    pattern: re.Pattern[str]


def _forms(kind: Kind, *patterns: str) -> list[Form]:
    return [Form(kind, re.compile(pattern)) for pattern in patterns]


_INFO_OR_WARNING = r"(^|\[ )(INFO|WARNING|BUG): "

FORMS: tuple[Form, ...] = (
    *_forms(
        Kind.PANIC,  # kernel/panic.c, arch/x86/kernel/traps.c
        r"Kernel panic - not syncing",
        r"^PANIC: ",
        r"Fixing recursive fault but reboot is needed",
        r"Aiee, killing interrupt handler",
    ),
    *_forms(Kind.KASAN, r"\bKASAN: "),  # mm/kasan/report.c
    *_forms(Kind.KFENCE, r"BUG: KFENCE: "),  # mm/kfence/report.c
    *_forms(Kind.KMSAN, r"BUG: KMSAN: "),  # mm/kmsan/report.c
    *_forms(Kind.KCSAN, r"BUG: KCSAN: "),  # kernel/kcsan/report.c
    *_forms(Kind.UBSAN, r"\bUBSAN: "),  # lib/ubsan.c
    *_forms(
        Kind.HARDENING,
        r"usercopy: Kernel memory \w+ attempt detected",  # mm/usercopy.c
        r"detected buffer overflow",  # lib/string_helpers.c:__fortify_report
        r"detected field-spanning write",  # include/linux/fortify-string.h
        r"stack-protector: Kernel stack is corrupted in",  # kernel/panic.c
        r"corrupted stack end detected",  # kernel/sched/core.c
        r"stack guard page was hit at",  # arch/x86/kernel/dumpstack.c
        r"kernel stack overflow",
        r"\bCFI failure at",  # kernel/cfi.c
        r"Missing ENDBR",  # arch/x86/kernel/cet.c
        r"Found insecure W\+X mapping|Checked W\+X mappings: FAILED",  # arch/x86/mm/dump_pagetables.c
    ),
    *_forms(
        Kind.RCU_USAGE,  # kernel/locking/lockdep.c:lockdep_rcu_suspicious, kernel/rcu/update.c
        _INFO_OR_WARNING + r"suspicious RCU usage",
        r"suspicious rcu_\w+\(\) usage",
        r"Illegal context switch in RCU|Voluntary context switch within RCU",
    ),
    *_forms(
        Kind.LOCKDEP,  # kernel/locking/lockdep.c, rtmutex.c
        _INFO_OR_WARNING + r"possible (circular locking|recursive locking|irq lock inversion|deadlock)",
        _INFO_OR_WARNING + r"\S+-(READ-)?safe -> \S+-(READ-)?unsafe lock order detected",
        _INFO_OR_WARNING + r"inconsistent lock state",
        _INFO_OR_WARNING + r"bad (unlock balance|contention) detected",
        _INFO_OR_WARNING + r"held lock freed",
        _INFO_OR_WARNING + r"lock held (when returning to user space|at task exit)",
        _INFO_OR_WARNING + r"\S+ still has locks held|^(WARNING: )?\S+/\d+ still has locks held",
        _INFO_OR_WARNING + r"Nested lock was not taken",
        _INFO_OR_WARNING + r"chain_key collision",
        _INFO_OR_WARNING + r"circular locking deadlock detected",
        r"BUG: Invalid wait context",
        r"BUG: (MAX_LOCK\w+|MAX_STACK_TRACE_ENTRIES) too (low|small)",
        r"BUG: looking up invalid subclass",
        r"BUG: key \S+ (has not been registered|not in \.data)",
        r"INFO: trying to register non-static key",
        r"\blockdep bfs error:",
    ),
    *_forms(
        Kind.LOCK_DEBUG,  # kernel/locking/spinlock_debug.c, mutex-debug.c, mutex.c, ww_mutex.h
        r"BUG: (spinlock|rwlock|rwlock-\w+|write-lock|read-lock|raw_spinlock)\b",
        r"DEBUG_LOCKS_WARN_ON\(",
        r"DEBUG_RWSEMS_WARN_ON\(",
    ),
    *_forms(
        Kind.ATOMIC,  # kernel/sched/core.c, lib/smp_processor_id.c, kernel/softirq.c
        r"BUG: sleeping function called from invalid context",
        r"BUG: assuming (atomic|non migratable) context",
        r"scheduling while atomic",
        r"BUG: using \S+ in preemptible",
        r"bad: scheduling from the idle thread",
        r"huh, entered softirq .* with preempt_count",
        r"preempt leak: ",
        r"returned with (preemption imbalance|disabled interrupts|interrupts disabled)",
    ),
    *_forms(
        Kind.RCU_STALL,  # kernel/rcu/tree_stall.h, tree_exp.h, tasks.h
        r"INFO: rcu\w*:? ?(self-)?detected (expedited )?stalls?",
        r"INFO: \S+ (self-detected stall on CPU|detected (expedited )?stalls on)",
        r"rcu: \S+ kthread (starved for|timer wakeup didn't happen)",
        r"rcu: Possible timer handling issue",
    ),
    *_forms(
        Kind.HUNG_TASK,  # kernel/hung_task.c, fs/fs-writeback.c
        r"INFO: task \S.*:\d+ blocked.* for more than \d+ seconds",
        r"INFO: The task \S.*:\d+ has been waiting for writeback completion",
    ),
    *_forms(Kind.SOFT_LOCKUP, r"BUG: soft lockup"),  # kernel/watchdog.c
    *_forms(Kind.HARD_LOCKUP, r"Watchdog detected hard LOCKUP|BUG: hard lockup"),
    *_forms(
        Kind.WORKQUEUE,  # kernel/workqueue.c
        r"BUG: workqueue (lockup|leaked)",
        r"workqueue: PF_MEMALLOC task .* is flushing !WQ_MEM_RECLAIM",
        r"workqueue: WQ_MEM_RECLAIM .* is flushing !WQ_MEM_RECLAIM",
    ),
    *_forms(
        Kind.SLAB,  # mm/slub.c, mm/slab_common.c
        r"^BUG \S.* \((Not tainted|Tainted: [^)]*|[A-Z ]+)\): ",
        r"^FIX \S+: ",
        r"Slab cache still has objects",
        r"Wrong slab cache\. \S+ but object is from",
        r"no slab for object",
        r"BUG: mempool element poison mismatch",
    ),
    *_forms(
        Kind.PAGES,  # mm/page_alloc.c, mm/memory.c, kernel/fork.c, mm/page_poison.c, mm/pgtable-generic.c
        r"BUG: Bad (page|rss-counter)",
        r"BUG: non-zero \w+ on freeing mm",
        r"\bpagealloc: (memory corruption|single bit error)",
        r": bad (pgd|p4d|pud|pmd|pte)\b",
        r"^page: ?\S+ .*dumped because|page dumped because",
        r"BUG: Dentry .* still in use|VFS: Busy inodes after unmount",
        r"Bad swap (file|offset) entry",
    ),
    *_forms(
        Kind.KMEMLEAK,  # mm/kmemleak.c
        r"kmemleak: \d+ new suspected memory leaks",
        r"kmemleak: Kernel memory leak detector disabled",
        r"kmemleak: (Cannot insert|Trying to color|Freeing unknown|Partially freeing unknown|Found object by alias|Updating unknown)",
    ),
    *_forms(
        Kind.ALLOCATION,  # mm/page_alloc.c:warn_alloc, mm/slub.c:slab_out_of_memory, kernel/dma/swiotlb.c
        r"page allocation (failure|stall)",
        r"SLUB: Unable to allocate memory on",
        r"vmalloc error: size",
        r"swiotlb buffer is full",
    ),
    *_forms(Kind.OUT_OF_MEMORY, r"invoked oom-killer", r"Out of memory: Killed|Out of memory and no killable"),
    *_forms(Kind.LIST, r"\b(list|hlist)_(add|del)\S* (corruption|double add)"),  # lib/list_debug.c
    *_forms(Kind.REFCOUNT, r"refcount_t: "),  # lib/refcount.c
    *_forms(Kind.REF_TRACKER, r"ref_tracker: (reference already released|.* has (\d+/)?\d+ users|leaked)"),
    *_forms(Kind.DEBUG_OBJECTS, r"\bODEBUG: "),  # lib/debugobjects.c
    *_forms(
        Kind.KOBJECT,  # lib/kobject.c, fs/sysfs/dir.c, drivers/base/core.c, fs/proc/generic.c
        r"kobject_add_internal failed for",
        r"kobject: .*(tried to init an initialized object|is not initialized, yet kobject_)",
        r"sysfs: cannot create duplicate filename",
        r"sysfs group '\S+' not found for kobject",
        r"does not have a release\(\) function, it is broken",
        r"proc_dir_entry '\S+' already registered",
    ),
    *_forms(
        Kind.DMA_DEBUG, r"DMA-API: (?!preallocated|debugging (enabled|disabled)|(enable|disable) driver filter)"
    ),  # kernel/dma/debug.c
    *_forms(
        Kind.IOMMU,  # drivers/iommu: dmar.c, amd/iommu.c, arm-smmu*.c, iommu.c:report_iommu_fault
        r"DMAR: DRHD: handling fault status",
        r"DMAR: \[(DMA|INTR-REMAP)[^\]]*\].*[Ff]ault",
        r"DMAR: ERROR: ",
        r"DMAR: VT-d detected",
        r"DMAR: .*(Invalidation (Queue|Time-out|Completion) Error|Invalidation Time-out)",
        r"AMD-Vi: (Event logged|Completion-Wait loop timed out)",
        r"arm-smmu\S* .*(Unhandled (context|global) fault|event 0x|unexpected global fault)",
        r"io-page-fault|iommu: .*\b[Ff]ault\b",
    ),
    *_forms(
        Kind.PCI,  # drivers/pci/pcie/aer.c, dpc.c, pci.c
        r"PCIe Bus Error: severity=",
        r"AER: (.*Uncorrect|.*[Cc]orrected error|Multiple|device recovery failed)",
        r"DPC: containment event|DPC: .*error",
        r"not ready \d+ms after .*; giving up",
        r"can't change power state from \S+ to \S+ \(config space inaccessible\)",
    ),
    *_forms(
        Kind.INTERRUPT,  # kernel/irq/spurious.c, manage.c, arch/x86/kernel/irq.c
        r"irq \d+: nobody cared",
        r"genirq: Flags mismatch irq",
        r"No irq handler for vector",
        r"unchecked MSR access error",
    ),
    *_forms(Kind.HARDWARE, r"\[Hardware Error\]|Machine check events logged|EDAC \S+: \d+ (CE|UE)"),
    *_forms(
        Kind.DEVICE_LOST,  # drivers/gpu/drm/drm_drv.c:drm_dev_wedged_event, and drivers before they call it
        r"\bdeclared device .* as wedged",
        r"device wedged",
        r"GPU .*wedged|wedged the device",
    ),
    *_forms(
        Kind.GPU_HANG,  # drivers under drivers/gpu/drm: jobs that time out, resets of engines, faults, coredumps
        r"GPU HANG",
        r"device coredump has been created",
        r"Timedout job|[Jj]ob timed out",
        r"Engine reset: ",
        r"(Engine memory )?CAT error|CAT_ERR",
        r"\bGT reset failed",
        r"Fault response: Unsuccess",
        r"TLB invalidation .*(time|fail)",
    ),
    *_forms(Kind.DRM, r"\*ERROR\*", r"\[drm\] Assertion `"),  # include/drm/drm_print.h; assertions of drivers
    *_forms(
        Kind.OOPS,  # arch/*/mm/fault.c, arch/x86/kernel/traps.c, dumpstack.c
        r"BUG: kernel NULL pointer dereference|BUG: unable to handle|Unable to handle kernel",
        r"^Oops\b|Internal error: ",
        r"general protection fault(,|:)",
        r"^(traps: )?(invalid opcode|divide error|double fault|stack segment|int3|alignment check|bounds): 0000 \[#",
        r"kernel BUG at ",
        r"jump_label: Fatal kernel bug",
        r"kernel tried to execute NX-protected page",
        r"BUG: invalid or fatal FRED event",
    ),
    *_forms(Kind.BUG, r"\bBUG: ", r"\bBUG in \w+", r"^PAGETABLE BUG"),
    *_forms(
        Kind.WARNING,  # kernel/panic.c:__warn; kernels since 6.18 put the place first
        r"^WARNING: (CPU: \d+ PID: \d+ )?at ",
        r"^WARNING: \S+:\d+ at ",
        r"^WARNING: (?!Flushing system-wide|'bootconfig'|BIOS bug|fbcon|.*deprecated|Unprivileged)",
        r"\buse-after-free\b",
    ),
)
"""The first that fits a line names the report's kind."""

CUT = "------------[ cut here ]------------"
"""Begins what a WARN, a BUG or a refcount reports (include/linux/bug.h: CUT_HERE)."""
END_TRACE = "---[ end trace"

NO_REPORT = re.compile(
    r"\[Firmware (Bug|Warn|Info)\]|debugging enabled by kernel config|FAULT_INJECTION: |"
    r"^(Command line|Kernel command line|Unknown kernel command line)|suppressed \(rcu_cpu_stall_suppress\)"
    r"|BIOS bug|RCU CPU stall warnings|(?<!BUG: )KASAN: .*shadow|KASAN: (KernelAddressSanitizer|sanitizer) initialized|KernelAddressSanitizer"
    r"|ODEBUG: (selftest passed|\d+ of \d+ active objects)|\[BIOS BUG\]|x86/mm: Checked W\+X mappings: passed"
)
"""Lines that have the words and report nothing."""


def kind_of(text: str) -> Kind | None:
    """The kind of report that a line (without level, time and caller) begins; None: it begins none."""
    if NO_REPORT.search(text):
        return None
    return next((form.kind for form in FORMS if form.pattern.search(text)), None)
