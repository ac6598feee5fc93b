"""Callbacks: objects that follow a run while it trains, and may end it.

The trainer itself writes metrics.csv and the checkpoints, before it calls anything here, so no callback can change what
is learned, what is saved, or what a resumed run computes.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from maml_rl.sampling.failures import said
from maml_rl.storage.events import Film
from maml_rl.storage.log import Row


class StopTraining(Exception):
    """Raised by a callback to end the run, as by returning False: after this iteration, with its checkpoint saved."""


class TrainingResult(NamedTuple):
    """The end of a run, or of this part of it."""

    iteration: int  # completed in total
    interrupted_by: int | None  # the signal's number
    metrics: dict[str, float]  # the last row of metrics.csv


class Start(NamedTuple):
    """A run, or a part of it, that is about to begin."""

    folder: Path
    settings: Mapping[str, Any]  # those of config.json
    iteration: int  # completed before; 0 in a new run
    num_iterations: int  # in total
    rows: Callable[[], Sequence[Row]]  # the rows of metrics.csv by now, without the iteration's number


class IterationReport(NamedTuple):
    """An iteration that is done and written."""

    iteration: int  # from 1
    metrics: Row  # of its training tasks: equal for equal seeds
    evaluation: Row  # scores on held-out tasks; empty in iterations without an evaluation
    clock: Row  # seconds and rates
    film: Film | None  # where one was due

    @property
    def row(self) -> Row:
        """The row of metrics.csv, without the iteration's number."""
        return {**self.metrics, **self.evaluation, **self.clock}

    @property
    def held_out_score(self) -> float | None:
        """The mean score on held-out tasks after the last adaptation; None in iterations without an evaluation."""
        names = [name for name in self.evaluation if not name.endswith("_ci95")]
        if not names:
            return None
        metric = names[0].rpartition("_")[0]  # eval_return of eval_return_0; other scores come behind it
        return self.evaluation[[name for name in names if name.rpartition("_")[0] == metric][-1]]


@runtime_checkable
class Callback(Protocol):
    """Base class of callbacks: override what you need. The iteration is on disk when `on_iteration` is called.

    `on_iteration` and `on_evaluation` end the run cleanly by returning False or raising StopTraining. Any other error
    is shown as one warning, and training goes on without the callback.
    """

    def on_start(self, start: Start) -> None:
        """A run, or its next part, begins."""

    def on_iteration(self, report: IterationReport) -> bool | None:
        """An iteration is done."""
        return None

    def on_evaluation(self, report: IterationReport) -> bool | None:
        """An iteration with an evaluation on held-out tasks is done; called after its `on_iteration`."""
        return None

    def on_end(self, result: TrainingResult | None) -> None:
        """The run, or its part, has ended; `result` is None if an error ended it."""


class Callbacks:
    """All callbacks of a run; one that fails is left out from then on."""

    def __init__(self, callbacks: Iterable[Callback]):
        self._callbacks = list(callbacks)
        self._started: list[Callback] = []
        self.stopped_by: str | None = None  # the callback that has ended the run
        self._say: Callable[[str], None] = print

    def start(self, start: Start, say: Callable[[str], None]) -> None:
        """
        Args:
            say: shows a line.
        """
        self._say = say
        for callback in tuple(self._callbacks):
            self._started.append(callback)
            self._tell(callback, "on_start", start)

    def iteration(self, report: IterationReport) -> None:
        for callback in tuple(self._callbacks):
            self._tell(callback, "on_iteration", report)
        for callback in tuple(self._callbacks) if report.evaluation else ():
            self._tell(callback, "on_evaluation", report)

    def end(self, result: TrainingResult | None) -> None:
        """Tell those that were told of the start."""
        for callback in tuple(self._callbacks):
            if callback in self._started:
                self._tell(callback, "on_end", result)

    def _tell(self, callback: Callback, method: str, subject: Any) -> None:
        name = type(callback).__name__
        try:
            goes_on = getattr(callback, method)(subject) is not False
        except StopTraining:
            goes_on = False
        except Exception as error:
            self._callbacks.remove(callback)
            self._say(
                f"warning: callback {name} failed in {method} and is left out from now on; training goes on: "
                f"{said(error)} ({_place(error)})"
            )
            return
        if not goes_on:
            self.stopped_by = self.stopped_by or name


def _place(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{where.filename}, line {where.lineno}"


def require_callbacks(callbacks: Iterable[object]) -> None:
    """
    Raises:
        ValueError: if one of them cannot be told anything.
    """
    for each in callbacks:
        if isinstance(each, type) or not isinstance(each, Callback):
            raise ValueError(
                f"callbacks must be objects of classes derived from maml_rl.Callback, got {each!r}: derive a class and "
                "pass an object of it"
            )
