"""Pages of windows that are copied together."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from vfio_user_xe.emulator.fabric.ledger import LedgerEntry
from vfio_user_xe.emulator.fabric.pages import PAGE, Pages, WindowPages, copy_pages
from vfio_user_xe.emulator.fabric.span import Window


def window(view: memoryview | None, owner: str = "vf1") -> Window:
    return Window(0, len(view) if view is not None else PAGE, view, owner, LedgerEntry("pf", owner, "iov", "vram"))


def memory(pages: int) -> memoryview:
    return memoryview(mmap.mmap(-1, pages * PAGE))


def chosen(windows: list[WindowPages], *places: tuple[int, int]) -> Pages:
    """Pages by (index of a window, page of it)."""
    numbers = np.array([windows[which].first + page for which, page in places], np.intp)
    which = np.array([which for which, _ in places], np.intp)
    return Pages(numbers, windows, which, [found.view for found in windows])


def counted(pages: WindowPages) -> tuple[int, int, int, int]:
    entry = pages.window.entry
    return entry.reads, entry.bytes_read, entry.writes, entry.bytes_written


def test_pages_are_copied_in_their_order_and_counted_for_the_window_of_each() -> None:
    views = [memory(300), memory(2), memory(200), memory(300)]
    for number, view in enumerate(views[:2]):
        for page in range(len(view) // PAGE):
            view[page * PAGE : (page + 1) * PAGE] = (1000 * number + page).to_bytes(4, "little") * (PAGE // 4)
    source = [WindowPages(window(view), write=False) for view in views[:2]]
    target = [WindowPages(window(view), write=True) for view in views[2:]]
    taken = [(0, page) for page in range(299, 0, -1)] + [(1, 1)]
    given = [(page % 2, 199 - page // 2) for page in range(300)]
    copy_pages(chosen(source, *taken), chosen(target, *given))
    for (from_window, from_page), (to_window, to_page) in zip(taken, given, strict=True):
        stored = bytes(views[2 + to_window][to_page * PAGE : (to_page + 1) * PAGE])
        assert stored == bytes(views[from_window][from_page * PAGE : (from_page + 1) * PAGE])
    assert [counted(pages) for pages in source] == [(299, 299 * PAGE, 0, 0), (1, PAGE, 0, 0)]
    assert [counted(pages) for pages in target] == [(0, 0, 150, 150 * PAGE)] * 2


def test_the_first_of_pages_count_alone() -> None:
    found = [WindowPages(window(memory(4)), write=False)]
    first = chosen(found, (0, 0), (0, 2), (0, 3)).first(2)
    assert len(first) == 2
    assert [count for _, count in first.shares()] == [2]


def test_as_many_pages_must_be_given_as_taken() -> None:
    found = [WindowPages(window(memory(4)), write=True)]
    with pytest.raises(ValueError, match="2 pages to 1"):
        copy_pages(chosen(found, (0, 0), (0, 1)), chosen(found, (0, 2)))
    assert counted(found[0]) == (0, 0, 0, 0)


def test_windows_have_no_pages_where_they_cannot_be_reached_in_whole_pages_in_place() -> None:
    view = memory(2)
    assert WindowPages(window(None), write=False).count == 0
    assert WindowPages(window(view[16:]), write=False).count == 0
    assert WindowPages(window(view[:0]), write=False).count == 0
    assert WindowPages(window(view.toreadonly()), write=True).count == 0
    assert WindowPages(window(view.toreadonly()), write=False).count == 2
    assert WindowPages(window(view[: PAGE + 16]), write=True).count == 1


def test_a_revoked_window_is_not_valid_and_its_pages_that_are_in_use_stay_mapped() -> None:
    source, target = (WindowPages(window(memory(1)), write=True) for _ in range(2))
    pages = chosen([source], (0, 0)), chosen([target], (0, 0))
    for found in (source, target):
        found.window.revoke()
        assert not found.valid
    copy_pages(*pages)
