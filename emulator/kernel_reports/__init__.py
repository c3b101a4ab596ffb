"""What a guest's kernel says of itself: its log, the reports in it, which of its reporters are at work, and what it counts."""

from __future__ import annotations

from vfio_user_xe.emulator.kernel_reports.examples import Example, examples
from vfio_user_xe.emulator.kernel_reports.forms import Kind
from vfio_user_xe.emulator.kernel_reports.lines import Line, parse
from vfio_user_xe.emulator.kernel_reports.log import KernelLog, LogLost
from vfio_user_xe.emulator.kernel_reports.recognise import KernelReport, reports

__all__ = ["Example", "KernelLog", "KernelReport", "Kind", "Line", "LogLost", "examples", "parse", "reports"]
