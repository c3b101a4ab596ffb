"""Reading what IGT writes. The texts have the form that IGT 2.4 prints."""

from __future__ import annotations

import json

import pytest

from vfio_user_xe.emulator.results import Outcome
from vfio_user_xe.emulator.suites.igt.results import read_result, read_subtests
from vfio_user_xe.emulator.suites.subtest import KernelLog, SubtestResult, attach_kernel_log

PASSED = """IGT-Version: 2.4-NO-GIT (x86_64) (Linux: 7.3.4 x86_64)
Opened device: /dev/dri/card0
Starting subtest: query-engines
Subtest query-engines: SUCCESS (0.004s)
"""

SKIPPED = """Starting subtest: query-pxp
Test requirement not met in function check, file ../tests/intel/xe_query.c:77:
Test requirement: has_pxp
The device has no PXP
Last errno: 19, No such device
Subtest query-pxp: SKIP (0.000s)
"""

FAILED = """Starting subtest: store
(xe_exec_store:212) CRITICAL: Test assertion failure function run, file ../tests/intel/xe_exec_store.c:120:
(xe_exec_store:212) CRITICAL: Failed assertion: data->data == 0xc0ffee
(xe_exec_store:212) CRITICAL: error: 0x0 != 0xc0ffee
Stack trace:
  #0 ../lib/igt_core.c:2101 __igt_fail_assert()
Subtest store failed.
**** DEBUG ****
(xe_exec_store:212) DEBUG: Test requirement passed: true
****  END  ****
\x1b[1mSubtest store: FAIL (1.218s)\x1b[0m
"""

DYNAMIC = """Starting subtest: linear
Starting dynamic subtest: a-b
Dynamic subtest a-b: SUCCESS (0.1s)
Starting dynamic subtest: a-c
Dynamic subtest a-c: FAIL (0.1s)
Subtest linear: FAIL (0.210s)
"""


def test_a_success_with_exit_code_0_passes_and_keeps_no_output() -> None:
    result = read_result("xe_query", "query-engines", 0, PASSED)
    assert (result.outcome, result.output, result.name) == (Outcome.PASS, "", "xe_query@query-engines")


def test_exit_code_0_without_a_result_line_is_no_pass() -> None:
    result = read_result("xe_query", "query-engines", 0, "IGT-Version: 2.4\n")
    assert result.outcome == Outcome.FAIL
    assert "no result" in result.reason


def test_exit_code_0_with_the_result_of_another_subtest_is_no_pass() -> None:
    assert read_result("xe_query", "query-config", 0, PASSED).outcome == Outcome.FAIL


def test_a_skip_tells_the_requirement() -> None:
    result = read_result("xe_query", "query-pxp", 77, SKIPPED)
    assert result.outcome == Outcome.SKIP
    assert "has_pxp The device has no PXP" in result.reason
    assert "SKIP" not in result.reason


def test_a_failure_tells_the_assertion_without_log_prefixes_stack_or_debug_log() -> None:
    result = read_result("xe_exec_store", "store", 98, FAILED)
    assert result.outcome == Outcome.FAIL
    assert "Failed assertion: data->data == 0xc0ffee error: 0x0 != 0xc0ffee" in result.reason
    assert "Stack" not in result.reason
    assert "DEBUG" in result.output


def test_dynamic_subtests_are_listed_with_their_results() -> None:
    result = read_result("xe_copy_basic", "linear", 98, DYNAMIC)
    assert result.dynamic == {"a-b": "success", "a-c": "fail"}


def test_an_unknown_subtest_is_a_failure_that_says_so() -> None:
    result = read_result("xe_query", "nonsense", 79, "Unknown subtest: nonsense\n")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "the test says that it has no such subtest")


def test_a_signal_is_a_crash() -> None:
    result = read_result("xe_exec_reset", "many", 139, "Starting subtest: many\nReceived signal SIGSEGV.\n")
    assert (result.outcome, result.reason) == (Outcome.CRASH, "Received signal SIGSEGV.")
    assert read_result("xe_exec_reset", "many", 137, "").reason == "killed by signal 9"


@pytest.mark.parametrize(
    ("code", "line", "outcome"), [(0, "SUCCESS", Outcome.PASS), (77, "SKIP", Outcome.SKIP), (98, "FAIL", Outcome.FAIL)]
)
def test_a_test_without_subtests_is_judged_by_its_only_result(code: int, line: str, outcome: Outcome) -> None:
    result = read_result("drm_mm", "", code, f"IGT-Version: 2.4\n{line} (0.001s)\n")
    assert (result.outcome, result.name) == (outcome, "drm_mm")


def test_subtest_lists_hold_names_only() -> None:
    assert read_subtests("bind-once\nmmap_style-2\n\nsome message of a library\n") == ["bind-once", "mmap_style-2"]


def test_results_survive_json() -> None:
    result = read_result("xe_copy_basic", "linear", 98, DYNAMIC)
    result.activity = 12
    assert SubtestResult.from_dict(json.loads(json.dumps(result.as_dict()))) == result


@pytest.mark.parametrize("data", [{}, {"test": "a", "subtest": "b", "outcome": "fine"}, {"test": "a", "more": 1}, []])
def test_json_of_something_else_is_refused(data: object) -> None:
    with pytest.raises(ValueError):
        SubtestResult.from_dict(data)  # type: ignore[arg-type]


RULES = KernelLog.compiled([r"\*ERROR\*", "WARNING: "], [r"\*ERROR\* harmless"], ["wedged"])


def test_a_complaint_of_the_kernel_turns_a_pass_into_a_warning_and_keeps_the_log() -> None:
    result = SubtestResult("t", "s", Outcome.PASS)
    attach_kernel_log(result, "[1.0] [IGT] t: starting\n[1.1] xe: [drm] *ERROR* GT0: lost\n", RULES)
    assert result.outcome == Outcome.WARN
    assert result.reason == "[1.1] xe: [drm] *ERROR* GT0: lost"
    assert "[IGT]" not in result.kernel_log


def test_an_allowed_complaint_is_none() -> None:
    result = SubtestResult("t", "s", Outcome.PASS)
    attach_kernel_log(result, "[1.1] xe: [drm] *ERROR* harmless\n", RULES)
    assert (result.outcome, result.kernel_log) == (Outcome.PASS, "")


def test_a_failure_stays_a_failure_and_keeps_the_log() -> None:
    result = SubtestResult("t", "s", Outcome.FAIL, reason="assertion")
    attach_kernel_log(result, "[1.1] WARNING: here\n", RULES)
    assert (result.outcome, result.reason, result.kernel_log) == (Outcome.FAIL, "assertion", "[1.1] WARNING: here")


def test_a_log_that_says_wedged_is_recognised() -> None:
    assert RULES.says_wedged("[2] xe declared wedged")
    assert not RULES.says_wedged("[2] fine")
