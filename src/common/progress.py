"""Progress on the console: bars, durations in words, and an announcement of long waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from tqdm import tqdm

WORTH_SAYING = 60.0  # seconds; shorter work is not announced
SECONDS_PER_LINE = 10.0  # at most one line of progress in this time where output is no terminal

_shown = True  # set by ``hide_progress``


def hide_progress(hidden: bool) -> None:
    """Show no bars from now on, or show them again (``--quiet``)."""
    global _shown
    _shown = not hidden


class _Lines:
    """Text stream for tqdm where output is a file or a pipe: whole lines instead of a bar that is redrawn.

    All bars of a process share one clock, so that a line is written every ``SECONDS_PER_LINE`` at most, and
    none for work that is done sooner.
    """

    last = 0.0  # when the latest line was written

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.started = stream, time.monotonic()

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line and time.monotonic() - max(_Lines.last, self.started) >= SECONDS_PER_LINE:
            _Lines.last = time.monotonic()
            self.stream.write(line + "\n")

    def flush(self) -> None:
        self.stream.flush()


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """Return a ``tqdm`` bar on standard error; where that is no terminal, at most a line every 10 seconds."""
    stream = sys.stderr
    disable = options.pop("disable", False) or not _shown or stream is None
    if not disable and not stream.isatty():
        options |= {"file": _Lines(stream), "mininterval": SECONDS_PER_LINE, "ascii": True, "ncols": 100}
    return tqdm(items, disable=disable, **options)


def duration_in_words(seconds: float) -> str:
    """Say a duration: "2 h 10 min", "35 min", "50 s"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


class Announcement:
    """Announces once, some seconds into a loop over ``to_go`` of ``unit``, how long the loop will take.

    ``hint`` says what would shorten it, or makes that sentence of the seconds of one ``unit``. A loop that
    takes less than a minute is not announced. The clock starts after ``warm_up`` calls of ``after``, which
    may be slower than the others.
    """

    AFTER = 5.0  # seconds

    def __init__(
        self, to_go: int, unit: str, hint: str | Callable[[float], str], say: Callable[[str], object], warm_up: int = 0
    ) -> None:
        self.to_go, self.unit, self.hint, self.say, self.warm_up = to_go, unit, hint, say, warm_up
        self.done, self.started, self.pending = 0, time.monotonic(), True

    def after(self, count: int = 1) -> None:
        """Note that ``count`` more are done."""
        if self.warm_up > 0:
            self.warm_up -= 1
            self.started = time.monotonic()
            return
        self.done += count
        elapsed = time.monotonic() - self.started
        if not self.pending or elapsed < self.AFTER:
            return
        self.pending = False
        seconds = elapsed / self.done * self.to_go
        if seconds > WORTH_SAYING:
            hint = self.hint if isinstance(self.hint, str) else self.hint(elapsed / self.done)
            text = f"about {duration_in_words(seconds)} for {self.to_go:,} {self.unit}"
            self.say(f"{text}; {hint}" if hint else text)
