"""A run from Python: its settings, metrics, checkpoints, scores and agent."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maml_rl.api.agent import Agent, Surroundings, make_agent
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.environments import surroundings_of
from maml_rl.experiments.gallery import Options, draw_all, show
from maml_rl.experiments.runs import WhichCheckpoint, load_checkpoint, load_trained, read_config
from maml_rl.experiments.task_lists import Given, TaskList, task_list
from maml_rl.experiments.trust import imports_of, require_trust, trusted_names
from maml_rl.pictures.backend import drawing_backend
from maml_rl.storage import checkpoint as checkpoints


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder. Everything is read from it on demand, so a run in progress can be watched."""

    path: Path
    config: RunConfig

    @property
    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """The columns of metrics.csv by name, one row for each iteration; nan where a column has no number."""
        with open(self.path / "metrics.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = list(rows[0]) if rows else []
        return {name: np.array([float(row[name]) if row[name] else np.nan for row in rows]) for name in names}

    @property
    def checkpoints(self) -> list[int]:
        """The iterations whose checkpoints are on disk, ascending."""
        return checkpoints.iterations_on_disk(self.path / "checkpoints")

    def sample_tasks(self, num_tasks: int, seed: int = 1) -> Sequence[Any]:
        """Fresh tasks, as evaluation draws them."""
        trained = self._load("last", num_tasks=num_tasks, seed=seed)
        try:
            return trained.built.tasks()
        finally:
            trained.built.close()

    def evaluate(
        self,
        num_tasks: int | None = None,
        num_steps: int | None = None,
        seed: int = 1,
        checkpoint: WhichCheckpoint = "last",
        actions: Literal["sampled", "mean"] = "sampled",
        task_range: tuple[float, float] | None = None,
        tasks: Given | None = None,
    ) -> AdaptationCurve:
        """Scores on fresh tasks, or on given ones, after 0, 1, ... adaptations.

        Args:
            num_tasks: fresh tasks to draw; by default 40.
            num_steps: adaptations; by default as in the run's own evaluation.
            seed: of tasks and episodes.
            actions: score policies as they are, or without their noise.
            task_range: draw tasks from here in place of the training range.
            tasks: to score on in place of fresh ones: "published", the tasks of the published test script; a JSON or
                CSV file; or tasks, each a value as `sample_tasks` gives them or a mapping of its numbers by name.
        Raises:
            ValueError: if there is no such list, or a task is of another kind or out of range.
        """
        if tasks is not None and num_tasks is not None:
            raise ValueError(f"num_tasks must be left out where tasks are given, got {num_tasks}")
        given = None if tasks is None else task_list(tasks, self.config)
        number = len(given.entries) if given is not None else 40 if num_tasks is None else num_tasks
        trained = self._load(
            checkpoint, actions == "mean", task_range, given, num_tasks=number, num_steps=num_steps, seed=seed
        )
        try:
            return trained.built.curve(trained.state, trained.checkpoint.iteration)
        finally:
            trained.built.close()

    def plot(self, folder: str | Path, num_tasks: int = 20, seed: int = 1) -> list[Path]:
        """Draw the run's plots into a folder; return the files."""
        return self._draw(folder, num_tasks, seed, film=False)

    def film(self, folder: str | Path, num_tasks: int = 20, seed: int = 1) -> list[Path]:
        """Draw the run's plots and films into a folder; return the files.

        Raises:
            ValueError: if the environment, or this machine, draws no pictures.
        """
        return self._draw(folder, num_tasks, seed, film=True)

    def agent(self, checkpoint: WhichCheckpoint = "last") -> Agent:
        """The trained policy before it has adapted to any task.

        Raises:
            ValueError: for a run of another kind: pictures are FewShotClassifier's.
        """
        if self.config.kind != "reinforcement":
            raise ValueError(
                f"agent acts in environments, but this is a run of {self.config.env}: take "
                "maml_rl.FewShotClassifier for pictures, run.evaluate and run.plot for sinusoids"
            )
        space, actions, horizon, task_size = surroundings_of(self.config)
        state = load_checkpoint(self.path, checkpoint).state
        return make_agent(self.config, Surroundings(space, actions, horizon, task_size), state)

    def _draw(self, folder: str | Path, num_tasks: int, seed: int, film: bool) -> list[Path]:
        backend = drawing_backend() if film else None
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        trained = self._load("last", num_tasks=num_tasks, seed=seed)
        try:
            return draw_all(show(trained), self.path, path, Options(3, film, backend, None))
        finally:
            trained.built.close()

    def _load(
        self,
        checkpoint: WhichCheckpoint,
        mean_actions: bool = False,
        task_range: tuple[float, float] | None = None,
        tasks: TaskList | None = None,
        **evaluation: Any,
    ) -> Any:
        given = {name: value for name, value in evaluation.items() if value is not None}
        config = dataclasses.replace(self.config, evaluation=dataclasses.replace(self.config.evaluation, **given))
        named = tuple(each.name for each in imports_of(config))  # `load` has asked whether they are trusted
        return load_trained(self.path, config, checkpoint, task_range, mean_actions, named, tasks)


def load(path: str | Path, trust_env: bool = False) -> Run:
    """The run in a folder.

    Args:
        trust_env: let the run import its environment and network, if they are the user's own classes; their code runs.
    Raises:
        ConfigError: if there is no run.
        ValueError: if it would import code that is not trusted, or that lies in its folder.
    """
    folder = Path(path)
    config = read_config(folder)
    require_trust(folder, config, trusted_names(config, None, trust_env), lambda _: "pass trust_env=True")
    return Run(folder, config)
