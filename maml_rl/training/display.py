"""Progress for people, on stderr: a live table on a terminal, one plain line per iteration elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class Display(Protocol):
    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, row: Mapping[str, float], evaluation: Mapping[str, float]) -> None:
        """Show an iteration that is done; `row` has its "iteration", and `evaluation` is empty in most."""

    def say(self, text: str) -> None:
        """Print a line."""


def make_display(done: int, num_iterations: int, headline: Sequence[str]) -> Display:
    """A display for the iterations done + 1 .. num_iterations.

    Args:
        headline: names of the columns to show; those that a row lacks are left out.
    """
    console = Console(stderr=True)
    progress = _Progress(done, num_iterations)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return LiveDisplay(console, progress, headline)
    return PlainDisplay(progress, headline)


class _Progress:
    """How far, and how long still, by the mean pace of this process."""

    def __init__(self, done: int, num_iterations: int):
        self.iteration, self.num_iterations = done, num_iterations
        self._begun, self._first = time.perf_counter(), done

    def advance(self, iteration: int) -> None:
        self.iteration = iteration

    @property
    def remaining(self) -> str:
        done = self.iteration - self._first
        if not done:
            return "?"
        pace = (time.perf_counter() - self._begun) / done
        return str(timedelta(seconds=round(pace * (self.num_iterations - self.iteration))))


class PlainDisplay:
    """One line per iteration, for files and pipes."""

    def __init__(self, progress: _Progress, headline: Sequence[str]):
        self._progress, self._headline = progress, headline

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
    """A table that is redrawn in place; evaluations stay above it."""

    def __init__(self, console: Console, progress: _Progress, headline: Sequence[str]):
        self._console, self._progress, self._headline = console, progress, headline
        # stdout is for machines: rich must not take it over.
        self._live = Live(
            self._draw({}), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> LiveDisplay:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, row: Mapping[str, float], evaluation: Mapping[str, float]) -> None:
        self._progress.advance(int(row["iteration"]))
        if evaluation:
            numbers = "  ".join(f"{name} {_short(value)}" for name, value in evaluation.items())
            self.say(f"evaluation after {self._progress.iteration}: {numbers}")
        self._live.update(self._draw(row), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def _draw(self, row: Mapping[str, float]) -> Group:
        progress = self._progress
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"iteration {progress.iteration}/{progress.num_iterations}",
            ProgressBar(total=max(1, progress.num_iterations), completed=progress.iteration, width=30),
            f"left {progress.remaining}",
        )
        numbers = Table.grid(padding=(0, 2))
        for name in self._headline:
            if name in row:
                numbers.add_row(f"  {name}", Text(_short(row[name]), justify="right"))
        return Group(head, numbers)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
