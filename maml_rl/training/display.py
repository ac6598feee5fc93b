"""Display of progress on stderr: a live table on a terminal, one plain line per iteration elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

NUM_ROWS = 8  # of the live table
REDRAWS_PER_SECOND = 1.0


class Display(Protocol):
    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def phase(self, name: str) -> None:
        """Show what the run is doing from now on."""

    def show(self, row: Mapping[str, float], evaluation: Mapping[str, float]) -> None:
        """Show a finished iteration; `row` has its "iteration", and `evaluation` is empty in most of them."""

    def say(self, text: str) -> None:
        """Print a line."""


def make_display(progress: Progress, title: str, headline: Sequence[str]) -> Display:
    """A live table on a terminal, plain lines elsewhere.

    Args:
        title: names the run, above the table.
        headline: names of the columns to show; those that a row lacks are left out.
    """
    console = Console(stderr=True)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return LiveDisplay(console, progress, title, headline)
    return PlainDisplay(progress, headline)


class Progress:
    """The progress of a run: how far it is, how long it has taken, and how long it will still take at its mean pace.

    The pace is that of this process. Earlier parts of a resumed run count in `elapsed` and in `max_seconds`, neither of
    which rich.progress has; its bar is used.
    """

    def __init__(self, iteration: int, num_iterations: int, seconds: float, max_seconds: float | None):
        """
        Args:
            seconds: taken by earlier parts.
            max_seconds: after which no iteration begins.
        """
        self.iteration, self.num_iterations, self.max_seconds = iteration, num_iterations, max_seconds
        self._begun, self._first, self._before = time.perf_counter(), iteration, seconds

    def advance(self, iteration: int) -> None:
        self.iteration = iteration

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._begun

    @property
    def elapsed(self) -> str:
        return _duration(self.seconds)

    @property
    def remaining(self) -> str:
        limits = [] if self.max_seconds is None else [max(0.0, self.max_seconds - self.seconds)]
        done = self.iteration - self._first
        if done:
            pace = (time.perf_counter() - self._begun) / done
            limits.append(pace * (self.num_iterations - self.iteration))
        return _duration(min(limits)) if limits else "?"


class PlainDisplay:
    """One line per iteration, for files and pipes."""

    def __init__(self, progress: Progress, headline: Sequence[str]):
        self._progress, self._headline = progress, headline

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def phase(self, name: str) -> None:
        pass

    def show(self, row: Mapping[str, float], evaluation: Mapping[str, float]) -> None:
        self._progress.advance(int(row["iteration"]))
        numbers = {name: row[name] for name in self._headline if name in row} | dict(evaluation)
        parts = [
            f"iteration {self._progress.iteration}/{self._progress.num_iterations}",
            *(f"{name} {_short(value)}" for name, value in numbers.items()),
            f"left {self._progress.remaining}",
        ]
        self.say("  ".join(parts))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class LiveDisplay:
    """A table of the last iterations that is redrawn in place; evaluations stay above it."""

    def __init__(self, console: Console, progress: Progress, title: str, headline: Sequence[str]):
        self._console, self._progress, self._title, self._headline = console, progress, title, headline
        self._phase = "start"
        self._rows: deque[Mapping[str, float]] = deque(maxlen=NUM_ROWS)
        # A thread redraws once in a while, however quick iterations are. stdout is for machines: rich must not take it.
        self._live = Live(
            get_renderable=self._draw,
            console=console,
            refresh_per_second=REDRAWS_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveDisplay:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._phase = "ended"
        self._live.stop()

    def phase(self, name: str) -> None:
        self._phase = name

    def show(self, row: Mapping[str, float], evaluation: Mapping[str, float]) -> None:
        self._progress.advance(int(row["iteration"]))
        if evaluation:
            numbers = "  ".join(f"{name} {_short(value)}" for name, value in evaluation.items())
            self.say(f"evaluation after {self._progress.iteration}: {numbers}")
        self._rows.append(dict(row))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> Group:
        progress = self._progress
        head = Table.grid(padding=(0, 2))
        limit = "" if progress.max_seconds is None else f" of {_duration(progress.max_seconds)}"
        head.add_row(
            f"iteration {progress.iteration}/{progress.num_iterations}",
            ProgressBar(total=max(1, progress.num_iterations), completed=progress.iteration, width=16),
            f"elapsed {progress.elapsed}{limit}",
            f"left {progress.remaining}",
        )
        rows = list(self._rows)  # the thread that trains may append meanwhile
        names = [name for name in self._headline if any(name in row for row in rows)]
        numbers = Table.grid(padding=(0, 2))
        for _ in ("iteration", *names):
            numbers.add_column(justify="right")
        if rows:
            numbers.add_row("iteration", *names, style="dim")
        for row in rows:
            cells = [_short(row[name]) if name in row else "" for name in names]
            numbers.add_row(f"{row['iteration']:.0f}", *cells)
        return Group(Text(f"{self._title}: {self._phase}", overflow="fold"), head, numbers)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
