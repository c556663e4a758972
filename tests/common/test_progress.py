import io

import pytest

from common import progress
from common.progress import progress_bar


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    monkeypatch.setattr(progress._Lines, "last", clock.now)
    return clock


def test_a_file_gets_whole_lines_ten_seconds_apart(clock, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    for name in ("first", "second"):  # the bars of a process share the ten seconds
        bar = progress_bar(total=20, desc=name)
        for _ in range(20):
            clock.now += 1.0
            bar.update()
            bar.refresh()
        bar.close()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue() and len(lines) == 4
    assert lines[0].startswith("first:  50%") and lines[2].startswith("second:  50%")


def test_quick_work_writes_nothing_to_a_file(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress_bar([1, 2, 3], desc="quick")) == [1, 2, 3]
    assert stream.getvalue() == ""


def test_without_a_standard_error_there_is_no_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert list(progress_bar([1, 2])) == [1, 2]
