"""A run from Python: its settings, metrics, checkpoints, scores and agent."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maml_rl.api.agent import Agent, Surroundings, make_agent
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.environments import surroundings_of
from maml_rl.experiments.runs import (
    Trained,
    WhichCheckpoint,
    load_checkpoint,
    load_trained,
    read_config,
    warn_of_other_pictures,
)
from maml_rl.experiments.task_lists import Given, TaskList, task_list
from maml_rl.experiments.trust import require_trust, trusted_names
from maml_rl.experiments.zoo import resolved
from maml_rl.pictures.backend import drawing_backend
from maml_rl.storage import checkpoint as checkpoints
from maml_rl.storage.log import read_metrics


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A run's folder, with the settings to use it with. It is read on demand, so a run in progress can be watched."""

    path: Path
    config: RunConfig
    trusted: tuple[str, ...] = ()  # the user's own classes that it may import for environment and network

    def __repr__(self) -> str:
        return f"<Run of {self.config.env}, learner {self.config.learner}, seed {self.config.seed}, in {self.path}>"

    @property
    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """The columns of metrics.csv by name, one row for each iteration; nan where a column has no number. Empty if
        the run came without that file, as some of the zoo do."""
        return read_metrics(self.path)

    @property
    def checkpoints(self) -> list[int]:
        """The iterations whose checkpoints are on disk, ascending."""
        return checkpoints.iterations_on_disk(self.path / "checkpoints")

    def sample_tasks(self, num_tasks: int, seed: int = 1) -> Sequence[Any]:
        """Fresh tasks, as evaluation draws them."""
        with self._evaluating(num_tasks=num_tasks, seed=seed).opened() as trained:
            return trained.built.tasks()

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
        run = self._evaluating(num_tasks=number, num_steps=num_steps, seed=seed)
        with run.opened(checkpoint, actions, task_range, given) as trained:
            return trained.built.curve(trained.state, trained.checkpoint.iteration)

    def plot(self, folder: str | Path, num_tasks: int = 20, seed: int = 1) -> list[Path]:
        """Draw the run's plots into a folder; return the files."""
        return self._evaluating(num_tasks=num_tasks, seed=seed).draw(Path(folder), film=False)

    def film(self, folder: str | Path, num_tasks: int = 20, seed: int = 1) -> list[Path]:
        """Draw the run's plots and films into a folder; return the files.

        Raises:
            ValueError: if the environment, or this machine, draws no pictures.
        """
        return self._evaluating(num_tasks=num_tasks, seed=seed).draw(Path(folder), backend=drawing_backend())

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
        surroundings = Surroundings(*surroundings_of(self.config))
        return make_agent(self.config, surroundings, load_checkpoint(self.path, checkpoint).state)

    def draw(
        self,
        folder: Path,
        num_shown: int = 3,
        film: bool = True,
        backend: str | None = None,
        checkpoint: WhichCheckpoint = "last",
        actions: Literal["sampled", "mean"] = "sampled",
        task_range: tuple[float, float] | None = None,
    ) -> list[Path]:
        """Draw the pictures of an evaluation with the run's settings into a folder; return the files.

        Args:
            num_shown: tasks in the grid film and in plots of single tasks.
            backend: the one that MuJoCo draws with, None if none does.
        Raises:
            ValueError: if films are wanted, but the environment or this machine cannot draw them.
        """
        gallery = importlib.import_module("maml_rl.experiments.gallery")  # its plots take long to import
        with self.opened(checkpoint, actions, task_range) as trained:
            folder.mkdir(parents=True, exist_ok=True)
            options = gallery.Options(num_shown, film, backend, task_range)
            return gallery.draw_all(gallery.show(trained), self.path, folder, options)

    @contextlib.contextmanager
    def opened(
        self,
        checkpoint: WhichCheckpoint = "last",
        actions: Literal["sampled", "mean"] = "sampled",
        task_range: tuple[float, float] | None = None,
        tasks: TaskList | None = None,
    ) -> Iterator[Trained]:
        """The learned state with the environments and threads that it is used with, which are closed at the end.

        Args:
            tasks: to evaluate on in place of fresh ones, as many as the settings say.
        Raises:
            ValueError: if the run's settings or the tasks do not fit, or its code is not trusted.
        """
        mean_actions = actions == "mean"
        trained = load_trained(self.path, self.config, checkpoint, task_range, mean_actions, self.trusted, tasks)
        with contextlib.closing(trained.built):
            warn_of_other_pictures(self.path, trained.built)
            yield trained

    def _evaluating(self, **settings: Any) -> Run:
        """The run with other settings of evaluation, where they are given."""
        given = {name: value for name, value in settings.items() if value is not None}
        config = dataclasses.replace(self.config, evaluation=dataclasses.replace(self.config.evaluation, **given))
        if config.kind == "pictures":  # as the commands do: validation classes are for training's own scores
            config = dataclasses.replace(config, task=dataclasses.replace(config.task, evaluate_on="test"))
        return dataclasses.replace(self, config=config)


def load(path: str | Path, trust_env: bool = False, device: str = "cpu") -> Run:
    """The run in a folder, or one of the zoo.

    Args:
        path: the folder, or zoo:NAME; `maml-rl zoo` lists the names.
        trust_env: let the run import its environment and network, if they are the user's own classes; their code runs.
        device: to evaluate and draw on, wherever the run was trained: cpu, cuda or cuda:N.
    Raises:
        ConfigError, ZooError: if there is no run.
        ValueError: if it would import code that is not trusted, or that lies in its folder.
    """
    folder = resolved(path)
    config = dataclasses.replace(read_config(folder), device=device)
    trusted = trusted_names(config, None, trust_env)
    require_trust(folder, config, trusted, lambda _: "pass trust_env=True")
    return Run(folder, config, trusted)
