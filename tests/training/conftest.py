"""A learner that costs nothing, and runs of it: here, forked, or as `python conftest.py FOLDER COUNT`."""

import csv
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import Tensor

from maml_rl.core.contracts import Report
from maml_rl.core.keys import Key
from maml_rl.storage import checkpoint as checkpoints
from maml_rl.storage.run_folder import RunFolder
from maml_rl.training.callbacks import Callback
from maml_rl.training.trackers import TensorBoard
from maml_rl.training.trainer import Trainer, TrainingConfig, TrainingResult

sys.path.insert(0, str(Path(__file__).parents[1]))
from children import exit_status, fork

CLOCK = {"fake_seconds", "iteration_seconds", "evaluation_seconds", "wall_seconds"}


class State(NamedTuple):
    params: dict[str, Tensor]
    adam: dict[str, Tensor]


class QuadraticLearner:
    """Descends |w - mean task|^2 with noise: a pure function of state, tasks and key."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def init(self, key: Key) -> State:
        return State({"w": _normal(key, 0)}, {"steps": torch.zeros((), dtype=torch.int64)})

    def meta_step(self, state: State, tasks: Any, key: Key) -> tuple[State, Report]:
        time.sleep(self.seconds)
        w, target = state.params["w"], float(sum(tasks)) / len(tasks)
        moved = (w - 0.2 * (w - target) + 0.3 * _normal(key, 1)).flatten()
        loss = float(((w - target) ** 2).mean())
        # views of one vector, as a learner that thinks in vectors returns them
        new = State({"w": moved[:6].view(3, 2)}, {"steps": state.adam["steps"] + 1})
        return new, Report({"loss": loss, "env_steps": 6.0}, {"fake_seconds": self.seconds})


def _normal(key: Key, *path: int) -> Tensor:
    return torch.from_numpy(key.rng(*path).normal(size=(3, 2)).astype("float32"))


def run(
    path: Path, num_iterations: int, learner: Any = None, callbacks: Sequence[Callback] | None = None, **settings: Any
) -> TrainingResult:
    """Begin the run in `path`, or go on with it if it is there; by default with TensorBoard's events."""
    resume = (path / "config.json").exists()
    settings = {"num_tasks": 3, "evaluate_every": 3, "keep_checkpoints": 3, **settings}
    with RunFolder.open(path) if resume else RunFolder.create(path, {"seed": 7}) as folder:
        trainer = Trainer(
            folder,
            learner or QuadraticLearner(),
            lambda count, rng: list(rng.normal(size=count)),
            TrainingConfig(num_iterations=num_iterations, **settings),
            seed=7,
            best_metric="loss",
            higher_is_better=False,
            evaluate=lambda state, i: {"eval_w": float(state.params["w"].sum()), "eval_at": i},
            headline=("loss", "env_steps_total"),
            callbacks=[TensorBoard()] if callbacks is None else callbacks,
        )
        return trainer.run(resume)


def rows(path: Path) -> list[dict[str, str]]:
    """metrics.csv without the columns of the clock."""
    with open(path / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


def events(path: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of all events in all files, clock apart, in the order of the steps."""
    found = []
    for file in (path / "tensorboard").iterdir():
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                name = value.tag.rpartition("/")[2]
                if name not in CLOCK and not value.tag.startswith("_hparams_/"):
                    found.append((name, event.step, value.tensor.float_val[0]))
    return sorted(found, key=lambda entry: (entry[1], entry[0]))


def assert_same_run(left: Path, right: Path) -> None:
    """Both folders say the same, clock apart, and are clean."""
    assert rows(left) == rows(right)
    assert events(left) == events(right)
    for load in (checkpoints.load_latest, checkpoints.load_best):
        a, b = load(left / "checkpoints"), load(right / "checkpoints")
        assert a.iteration == b.iteration
        assert {**a.counters, "wall_seconds": 0} == {**b.counters, "wall_seconds": 0}
        assert list(a.state) == list(b.state)
        assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)
    assert_clean(left)
    assert_clean(right)


def assert_clean(path: Path) -> None:
    """Nothing is left but what belongs there: no temporary file, no lock, no half checkpoint."""
    parts = {"checkpoints", "config.json", "metrics.csv", "tensorboard"}
    assert {entry.name for entry in path.iterdir()} == parts
    names = {entry.name for entry in (path / "checkpoints").iterdir()}
    stems = {name.split(".")[0] for name in names} - {"latest", "best"}
    whole = {f"{stem}.{ending}" for stem in stems for ending in ("json", "safetensors")}
    assert names == {"latest", "best"} | whole
    assert all("tfevents" in entry.name for entry in (path / "tensorboard").iterdir())


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the platters: these tests kill processes, not machines."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Tools:
    """What the tests share; a fixture, because test files cannot import each other."""

    run = staticmethod(run)
    rows = staticmethod(rows)
    events = staticmethod(events)
    assert_same_run = staticmethod(assert_same_run)
    assert_clean = staticmethod(assert_clean)
    fork = staticmethod(fork)
    exit_status = staticmethod(exit_status)
    QuadraticLearner = QuadraticLearner


@pytest.fixture
def tools() -> Iterator[Tools]:
    yield Tools()


if __name__ == "__main__":
    result = run(Path(sys.argv[1]), int(sys.argv[2]), QuadraticLearner(seconds=0.02))
    sys.exit(0 if result.interrupted_by is None else 128 + result.interrupted_by)
