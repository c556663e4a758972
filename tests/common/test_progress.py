"""Progress bars in files, and announcements of long loops."""

import io
import re

import pytest

from common import progress
from common.progress import Announcement, progress_bar


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


def test_an_announcement_is_made_once_and_only_of_long_loops(monkeypatch):
    monkeypatch.setattr(Announcement, "AFTER", 0.0)
    said = []
    short = Announcement(3, "images", "fewer", said.append)
    short.after()
    assert not said
    monkeypatch.setattr(progress, "WORTH_SAYING", 0.0)
    long = Announcement(3, "images", "fewer help", said.append)
    for _ in range(3):
        long.after()
    assert len(said) == 1 and re.fullmatch(r"about 0 s for 3 images; fewer help", said[0])


def test_slow_first_calls_are_not_counted(monkeypatch):
    monkeypatch.setattr(Announcement, "AFTER", 0.0)
    clock = iter([0.0, 1000.0, 1002.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said = []
    announcement = Announcement(100, "steps", "", said.append, warm_up=1)
    announcement.after()  # compiles for 1,000 seconds
    announcement.after()
    assert said == ["about 3 min for 100 steps"]
