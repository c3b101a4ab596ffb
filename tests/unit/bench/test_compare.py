"""The comparison of two commits: how figures are named, and what stands beside what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.compare import figures, table, tree


def test_figures_of_a_list_are_named_with_their_unit() -> None:
    assert figures([{"name": "MEM_COPY", "value": 6.5, "unit": "GB/s", "note": "90 %"}]) == {"MEM_COPY, GB/s": 6.5}


def test_figures_of_the_benchmark_are_ours_by_the_client_that_made_the_load() -> None:
    samples = [{"rate": rate, "cpu": cpu} for rate, cpu in ((1.0, 7.0), (3.0, 5.0), (2.0, 6.0))]
    row = {"name": "read 4 B", "samples": {"ours": samples, "python": []}, "bytes": 0}
    assert figures({"rows": [row], "python_client": [row]}) == {
        "read 4 B, /s": 2.0,
        "read 4 B, µs of processor time": 6.0,
        "read 4 B (client in Python), /s": 2.0,
        "read 4 B (client in Python), µs of processor time": 6.0,
    }


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    # The second round fell into a busy moment: it hit both.
    before = [{"copy, GB/s": 2.0}, {"copy, GB/s": 0.2}, {"copy, GB/s": 2.0}]
    after = [{"copy, GB/s": 4.0}, {"copy, GB/s": 0.4}, {"copy, GB/s": 5.0}]
    assert table(before, after).splitlines()[1].split() == ["copy,", "GB/s", "2.00", "4.00", "2.00"]


def test_only_figures_that_both_have_are_compared() -> None:
    assert (
        len(
            table([{"old": 1.0, "both": 1.0, "nothing": 0.0}], [{"new": 1.0, "both": 1.0, "nothing": 1.0}]).splitlines()
        )
        == 2
    )


def test_a_commit_that_git_does_not_know_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="compare: no-such-commit: "), tree("no-such-commit", tmp_path):
        pass
