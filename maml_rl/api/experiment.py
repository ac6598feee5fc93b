"""An experiment from Python: the runs of several training seeds, scored together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from maml_rl.api.run import Run, load
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.evaluation.seeds import OverSeeds, over_seeds
from maml_rl.experiments.experiment import read_experiment, runs_of


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The folder of an experiment, with a run for each seed that has begun."""

    path: Path
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return [run.config.seed for run in self.runs]

    def curves(self, **options: Any) -> list[AdaptationCurve]:
        """The adaptation curve of each run, all on the same tasks.

        Args:
            options: as for `Run.evaluate`.
        """
        return [run.evaluate(**options) for run in self.runs]

    def evaluate(self, **options: Any) -> OverSeeds:
        """Mean, interquartile mean, gain and share of tasks made worse after 0, 1, ... adaptations, each over runs and
        tasks with its 95 % bootstrap interval.

        Args:
            options: as for `Run.evaluate`.
        """
        return over_seeds(self.curves(**options))


def load_experiment(path: str | Path, trust_env: bool = False) -> Experiment:
    """The experiment in a folder.

    Args:
        trust_env: as for `load`.
    Raises:
        ConfigError: if there is none, or none of its runs has begun.
    """
    found = read_experiment(Path(path))
    return Experiment(found.path, tuple(load(run, trust_env) for run in runs_of([found.path])))
