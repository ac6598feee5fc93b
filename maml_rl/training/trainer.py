"""The training loop: sample tasks, take a meta-step, log, save; a stopped run resumes as if it had never stopped."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maml_rl.core.contracts import Learner, State
from maml_rl.core.keys import INITIALISATION, TASKS, TRAINING, Key
from maml_rl.core.trees import from_names, named
from maml_rl.sampling.failures import said
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.storage import checkpoint as checkpoints
from maml_rl.storage.checkpoint import Checkpoint, CheckpointError
from maml_rl.storage.events import Film
from maml_rl.storage.log import MetricsLog, has_rows, require_rows
from maml_rl.storage.run_folder import RunFolder, RunFolderError
from maml_rl.training.callbacks import Callback, Callbacks, IterationReport, Start, TrainingResult
from maml_rl.training.display import Display, Progress, make_display
from maml_rl.training.interrupts import Interrupted, Interrupts

MANY_REJECTIONS = 10  # outer steps in a row


class TrainingError(RuntimeError):
    """Failure of training: a number is not finite, or the learner does not report what it must."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of how long to train, and what to keep."""

    num_iterations: int = 500  # Outer updates in total.
    num_tasks: int = 40  # Tasks in each outer update.
    evaluate_every: int = 10  # Iterations between evaluations; 0 for none.
    checkpoint_every: int = 1  # Iterations between checkpoints.
    keep_checkpoints: int = 5  # Number of latest checkpoints to keep; the best one is kept, too.
    max_minutes: float | None = None
    """Minutes after which no iteration begins, with evaluations and earlier parts of the run; by default no limit."""

    def __post_init__(self) -> None:
        least = {"num_iterations": 0, "num_tasks": 1, "evaluate_every": 0}
        for name, minimum in {**least, "checkpoint_every": 1, "keep_checkpoints": 1}.items():
            value = getattr(self, name)
            if value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {value}")
        if self.max_minutes is not None and not 0.0 < self.max_minutes < math.inf:
            raise ValueError(f"max_minutes must be positive and finite, got {self.max_minutes}")

    def is_over(self, reached: Checkpoint) -> bool:
        """Check whether a run that has reached this checkpoint is done."""
        late = self.max_minutes is not None and reached.counters["wall_seconds"] >= 60.0 * self.max_minutes
        return late or reached.iteration >= self.num_iterations

    def progress(self, reached: Checkpoint) -> Progress:
        """The progress to display for a run that continues from `reached`."""
        max_seconds = None if self.max_minutes is None else 60.0 * self.max_minutes
        return Progress(reached.iteration, self.num_iterations, reached.counters["wall_seconds"], max_seconds)


class Filming(NamedTuple):
    """Settings for a film at regular intervals."""

    shoot: Callable[[State, int], Film]  # (state, iteration) -> film
    every: int  # iterations
    close: Callable[[], None] = lambda: None


class _Step(NamedTuple):
    """An iteration that is computed but not yet written."""

    before: Checkpoint
    after: Checkpoint
    metrics: dict[str, float]
    evaluation: dict[str, float]
    clock: dict[str, float]
    film: Film | None
    warnings: Sequence[str]

    @property
    def report(self) -> IterationReport:
        metrics = {name: value for name, value in self.metrics.items() if name != "iteration"}
        return IterationReport(self.after.iteration, metrics, self.evaluation, self.clock, self.film)


class _Rejections:
    """A count of outer steps rejected in a row, which gives one warning when there are many."""

    def __init__(self) -> None:
        self._in_a_row, self._is_said = 0, False

    def remark(self, metrics: Mapping[str, float]) -> str | None:
        """The warning to show after an iteration with these metrics, if any."""
        self._in_a_row = self._in_a_row + 1 if metrics.get("accepted") == 0.0 else 0
        if self._is_said or self._in_a_row < MANY_REJECTIONS:
            return None
        self._is_said = True
        return (
            f"warning: no outer step was accepted in the last {MANY_REJECTIONS} iterations, so nothing is learned: no "
            "candidate lowered the loss within outer.trust_region.max_kl; take more --num-tasks or --episodes-per-task "
            "for a gradient with less noise, a smaller --inner.step-size, or check that rewards differ between tasks"
        )


class Trainer:
    """The loop that trains a learner in a run folder.

    Everything random in iteration i comes from Key(seed, TRAINING, i), and the state is handed on in the
    memory layout of a loaded one, so a resumed run computes what an uninterrupted one would. An iteration is
    written in this order: its row, `best`, its checkpoint, `latest`. What a kill leaves past `latest` is cut
    when the run is resumed.

    The score of an iteration was earned by the parameters from before its outer step, so `best` names their
    checkpoint: iteration-000122 if row 123 has the best score. Of equal scores the first counts.
    """

    def __init__(
        self,
        folder: RunFolder,
        learner: Learner,
        sample_tasks: Callable[[int, np.random.Generator], Sequence[Any]],
        config: TrainingConfig,
        seed: int,
        best_metric: str,
        higher_is_better: bool,
        evaluate: Callable[[State, int], Mapping[str, float]] | None,
        headline: Sequence[str],
        film: Filming | None = None,
        begin: Callable[[Checkpoint], Checkpoint] | None = None,
        device: str = "cpu",
        callbacks: Sequence[Callback] = (),
    ):
        """
        Args:
            folder: locked; it stays so after `run`.
            learner: its state must keep its names, shapes and dtypes.
            best_metric: the learner's metric by which the best checkpoint is chosen.
            evaluate: (state, iteration) -> columns; called after every `evaluate_every` iterations.
            headline: columns to display.
            film: shows callbacks what the learner does; changes nothing else.
            begin: turns the learner's own initialisation into the checkpoint that a new run begins with.
            device: to display.
            callbacks: told of every iteration once it is written.
        """
        self._folder, self._learner, self._sample_tasks = folder, learner, sample_tasks
        self._config, self._seed = config, seed
        self._best_metric, self._sign = best_metric, 1.0 if higher_is_better else -1.0
        self._evaluate, self._headline, self._film, self._begin_with = evaluate, headline, film, begin
        self._device, self._rejections = device, _Rejections()
        self._callbacks = Callbacks(callbacks)

    def run(self, resume: bool) -> TrainingResult:
        """Train until `num_iterations` are done; SIGINT, SIGTERM, SIGHUP or a callback writes a checkpoint and returns
        early.

        Args:
            resume: go on from the folder's latest checkpoint; otherwise begin.
        Raises:
            CheckpointError, LogError: if files are refused or cannot be written.
            TrainingError: if a metric of the learner or the new state is not finite. The last checkpoint is
                intact then, as it is after an error of the learner, which passes through unchanged.
        """
        result = None
        try:
            with Interrupts() as interrupts:
                result = self._run(resume, interrupts)
        finally:
            self._callbacks.end(result)  # a tracker may upload for minutes: Ctrl-C may end that
        return result

    def _run(self, resume: bool, interrupts: Interrupts) -> TrainingResult:
        current = self._load() if resume else self._begin()
        title = f"{self._folder.path} on {self._device}"
        display = make_display(self._config.progress(current), title, self._headline)
        log = MetricsLog(self._folder.path, current.iteration)
        checkpoints.rewind(self._folder.checkpoints, current)
        self._save_latest(current)
        try:
            with interrupts.allowed():
                self._callbacks.start(self._start(current, log), display.say)
            started = time.perf_counter() - current.counters["wall_seconds"]
            with display:
                while not (self._config.is_over(current) or self._callbacks.stopped_by):
                    with interrupts.allowed():
                        step = self._compute(current, started, display)
                    display.phase("saving")
                    self._write(step, log, display)
                    current = step.after
                    with interrupts.allowed():
                        self._callbacks.iteration(step.report)
        except Interrupted as interruption:
            self._stop(current, log, str(interruption), display)
            return TrainingResult(current.iteration, interruption.signum, log.last)
        if self._callbacks.stopped_by:
            self._stop(current, log, self._callbacks.stopped_by, display)
        return TrainingResult(current.iteration, None, log.last)

    def _stop(self, current: Checkpoint, log: MetricsLog, by: str, display: Display) -> None:
        log.sync()
        self._save_latest(current)
        display.say(f"stopped by {by} after iteration {current.iteration}, whose checkpoint is saved")

    def _start(self, current: Checkpoint, log: MetricsLog) -> Start:
        folder = self._folder.path
        settings = RunFolder.read_config(folder)[1]
        return Start(folder, settings, current.iteration, self._config.num_iterations, log.rows)

    @functools.cached_property
    def _template(self) -> State:
        """A state of the learner, as a template for the form of all its states."""
        return self._learner.init(Key(self._seed, INITIALISATION, 0))

    def _first(self) -> Checkpoint:
        initial = first_checkpoint(self._learner, self._seed)
        return self._begin_with(initial) if self._begin_with else initial

    def _begin(self) -> Checkpoint:
        if (self._folder.checkpoints / "latest").exists():
            raise RunFolderError(f"run folder {self._folder.path} must be new, but a run is in it: resume it")
        return self._first()

    def _load(self) -> Checkpoint:
        saved = _saved(self._folder.path, self._learner, self._seed)
        if saved is None:
            self._folder.checkpoints.mkdir(exist_ok=True)
            return self._first()
        return saved

    def _compute(self, current: Checkpoint, started: float, display: Display) -> _Step:
        """Compute iteration number `current.iteration` (from 0); write nothing."""
        display.phase("sampling and learning")
        key = Key(self._seed, TRAINING, current.iteration)
        iteration = current.iteration + 1
        begun = time.perf_counter()
        try:
            tasks = self._sample_tasks(self._config.num_tasks, key.rng(TASKS))
            after, report = self._learner.meta_step(from_names(self._template, current.state), tasks, key)
        except SamplingError as error:
            raise TrainingError(f"iteration {iteration}, {error}; the checkpoint before it is intact") from error
        state = checkpoints.plain_state(named(after))
        clock = {**report.clock, "iteration_seconds": time.perf_counter() - begun}
        _require_finite(report.metrics, state, iteration, tasks)

        begun = time.perf_counter()
        display.phase("evaluation")
        evaluation, film, warnings = self._look(from_names(self._template, state), iteration)
        if self._evaluate is not None and self._config.evaluate_every:
            clock["evaluation_seconds"] = time.perf_counter() - begun
        clock["wall_seconds"] = time.perf_counter() - started

        counters = self._count(current, report.metrics) | {"wall_seconds": clock["wall_seconds"]}
        metrics = {"iteration": iteration, **report.metrics}
        if "env_steps" in report.metrics:
            metrics["env_steps_total"] = counters["env_steps"]
        return _Step(current, Checkpoint(iteration, state, counters), metrics, evaluation, clock, film, warnings)

    def _look(self, state: State, iteration: int) -> tuple[dict[str, float], Film | None, list[str]]:
        """The evaluation and the film that are due after `iteration`. If one fails, there is a warning in its place:
        neither changes what is learned, so neither is a reason to end the run."""
        evaluation: dict[str, float] = {}
        film, warnings = None, []
        try:
            if self._evaluate is not None and _is_due(iteration, self._config.evaluate_every):
                evaluation = dict(self._evaluate(state, iteration))
        except Exception as error:
            warnings += _failed("evaluation", iteration, error)
        try:
            if self._film is not None and _is_due(iteration, self._film.every):
                film = self._film.shoot(state, iteration)
        except Exception as error:
            warnings += _failed("film", iteration, error)
        return evaluation, film, warnings

    def _count(self, current: Checkpoint, metrics: Mapping[str, float]) -> dict[str, int | float]:
        if self._best_metric not in metrics:
            raise TrainingError(
                f"best_metric must be one of the learner's {sorted(metrics)}, got {self._best_metric!r}"
            )
        counters = dict(current.counters)
        counters["env_steps"] += int(metrics.get("env_steps", 0))
        score = float(metrics[self._best_metric])
        if "best_score" not in counters or self._sign * score > self._sign * counters["best_score"]:
            counters |= {"best_score": score, "best_iteration": current.iteration}
        return counters

    def _write(self, step: _Step, log: MetricsLog, display: Display) -> None:
        log.append({**step.metrics, **step.evaluation}, step.clock)
        folder, after = self._folder.checkpoints, step.after
        if after.counters["best_iteration"] == step.before.iteration:
            if step.before.iteration not in checkpoints.iterations_on_disk(folder):
                checkpoints.save(folder, step.before)
            checkpoints.point(folder, "best", step.before.iteration)
        if self._config.is_over(after) or after.iteration % self._config.checkpoint_every == 0:
            log.sync()
            self._save_latest(after)
        display.show({**step.metrics, **step.clock}, step.evaluation)
        for warning in step.warnings:
            display.say(warning)
        if remark := self._rejections.remark(step.metrics):
            display.say(remark)

    def _save_latest(self, current: Checkpoint) -> None:
        """Save, then point to it, then delete: a kill between any two leaves a folder to resume from."""
        folder = self._folder.checkpoints
        if current.iteration not in checkpoints.iterations_on_disk(folder):
            checkpoints.save(folder, current)
        checkpoints.point(folder, "latest", current.iteration)
        checkpoints.prune(folder, self._config.keep_checkpoints)


def has_begun(folder: Path) -> bool:
    """Check whether the run in `folder` has a checkpoint or a row, which starting over would lose.

    One that was killed while it saved its first checkpoint has not.
    """
    saved = checkpoints.iterations_on_disk(folder / "checkpoints")
    return (folder / "checkpoints" / "latest").exists() or saved not in ([], [0]) or has_rows(folder)


def require_resumable(folder: Path, learner: Learner, seed: int) -> int:
    """Check that the run in the locked `folder` can go on with `learner`; change nothing.

    Returns:
        The number of iterations done.
    Raises:
        CheckpointError, LogError: if its checkpoint or its rows are missing, damaged, or another run's.
    """
    saved = _saved(folder, learner, seed)
    reached = saved.iteration if saved else 0
    require_rows(folder, reached)
    return reached


def _saved(folder: Path, learner: Learner, seed: int) -> Checkpoint | None:
    """The latest checkpoint of the run in `folder`; None if it has not begun."""
    if not has_begun(folder):
        return None
    saved = checkpoints.load_latest(folder / "checkpoints")
    return _fit(saved, first_checkpoint(learner, seed), folder / "checkpoints")


def first_checkpoint(learner: Learner, seed: int) -> Checkpoint:
    """The checkpoint that a run begins with."""
    state = named(learner.init(Key(seed, INITIALISATION, 0)))
    return Checkpoint(0, checkpoints.plain_state(state), {"env_steps": 0, "wall_seconds": 0.0})


def _is_due(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0


def _failed(what: str, iteration: int, error: Exception) -> list[str]:
    """The place where it failed, if that is known, and a warning."""
    reason = str(error) if isinstance(error, SamplingError | ValueError) else said(error)
    warning = f"warning: the {what} of iteration {iteration} failed and is left out; training goes on: {reason}"
    return [*getattr(error, "__notes__", []), warning]


def _require_finite(
    metrics: Mapping[str, float], state: Mapping[str, Tensor], iteration: int, tasks: Sequence[Any]
) -> None:
    wrong = [f"{name} = {value}" for name, value in metrics.items() if not math.isfinite(value)]
    wrong += [f"state {name!r}" for name, value in state.items() if not torch.isfinite(value).all()]
    if wrong:
        raise TrainingError(
            f"all numbers must be finite, but in iteration {iteration} these are not: {', '.join(wrong)}; "
            f"tasks: {_shortened(tasks)}; the checkpoint before it is intact"
        )


def _shortened(tasks: Sequence[Any], length: int = 200) -> str:
    text = ", ".join(map(str, tasks))
    return text if len(text) <= length else f"{text[:length]}... ({len(tasks)} in all)"


def _fit(saved: Checkpoint, initial: Checkpoint, folder: Path) -> Checkpoint:
    """The saved checkpoint on the devices of the initial one, if it can be of the same run."""
    kinds = [{name: (v.shape, v.dtype) for name, v in c.state.items()} for c in (initial, saved)]
    names = sorted(kinds[0].keys() | kinds[1].keys())
    wrong = [name for name in names if kinds[0].get(name) != kinds[1].get(name)]
    wrong += sorted(initial.counters.keys() - saved.counters.keys())
    if wrong:
        raise CheckpointError(
            f"checkpoint {folder / saved.name} must fit this learner, but {', '.join(wrong)} are missing, "
            "unknown or of another shape: it is another run's"
        )
    state = {name: value.to(initial.state[name].device) for name, value in saved.state.items()}
    return Checkpoint(saved.iteration, state, saved.counters)
