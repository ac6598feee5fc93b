"""Environments of users that run out of tasks, fail in evaluations, draw oddly, or are held in many copies."""

import csv
import json
import sys

import pytest

from maml_rl.cli import train
from maml_rl.cli_evaluate import evaluate
from maml_rl.config import RunConfig

SOURCE = """
import gymnasium
import numpy as np

class Push(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-0.3, 0.3, (1,), np.float32)
    horizon = 4
    goal = 0.0

    def sample_tasks(self, num_tasks, rng):
        return rng.uniform(-1.0, 1.0, num_tasks).tolist()

    def set_task(self, task):
        self.goal = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.aim, self.x = self.goal, float(self.np_random.normal(0.0, 0.1))
        return self.seen(), {}

    def step(self, action):
        self.x = float(np.clip(self.x + float(action[0]), -3.0, 3.0))
        return self.seen(), -abs(self.x - self.aim), False, False, {}

    def seen(self):
        return np.array([self.x], np.float32)

class Ten(Push):
    def sample_tasks(self, num_tasks, rng):
        return rng.choice(np.linspace(-1.0, 1.0, 10), num_tasks, replace=False).tolist()

class Short(Push):
    def sample_tasks(self, num_tasks, rng):
        return super().sample_tasks(min(num_tasks, 10), rng)

class FewTests(Push):
    def sample_test_tasks(self, num_tasks, rng):
        return [2.0, -2.0, 2.5][:num_tasks]

class Empty(Push):
    calls = 0

    def sample_tasks(self, num_tasks, rng):
        type(self).calls += 1
        return super().sample_tasks(num_tasks, rng) if self.calls < 12 else None

class FarTests(Push):
    def sample_test_tasks(self, num_tasks, rng):
        return [2.0] * num_tasks

    def set_task(self, task):
        if task == 2.0:
            raise KeyError("no such task")
        super().set_task(task)
"""
TINY = ["--num-tasks", "3", "--episodes-per-task", "2", "--num-iterations", "2", "--evaluate-every", "1"]
TINY += ["--evaluation.num-tasks", "3", "--num-threads", "1"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "users.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("users", None)
    yield tmp_path
    sys.modules.pop("users", None)


def begin(name, *flags, folder="run"):
    return train(RunConfig(env=f"users:{name}"), [*TINY, "--output-dir", folder, *flags])


def rows(folder):
    """metrics.csv without the columns of the clock."""
    with open(f"{folder}/metrics.csv", newline="") as file:
        return [
            {k: v for k, v in row.items() if not k.endswith(("_seconds", "_per_s"))} for row in csv.DictReader(file)
        ]


# --- tasks that run out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("Ten", ["--num-tasks", "11"], "sample_tasks was asked for 11 tasks and raised ValueError: Cannot take"),
        ("Ten", ["--evaluation.num-tasks", "20"], "sample_test_tasks was asked for 20 tasks and raised ValueError:"),
        ("Short", ["--num-tasks", "11"], "sample_tasks was asked for 11 tasks and returned 10: let it return"),
        ("FewTests", ["--evaluation.num-tasks", "4"], "sample_test_tasks was asked for 4 tasks and returned 3: let"),
    ],
)
def test_too_few_tasks_are_refused_before_a_folder_is_made(name, flags, words, here, capfd):
    assert begin(name, *flags) == 2
    error = capfd.readouterr().err
    assert words in error and "Traceback" not in error and not (here / "run").exists()
    assert "--num-tasks" in error and "--evaluation.num-tasks" in error


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("Ten", ["--num-tasks", "10", "--evaluation.num-tasks", "10"]),
        ("FewTests", ["--num-tasks", "4", "--evaluation.num-tasks", "20", "--evaluate-every", "0"]),
        ("FewTests", ["--num-tasks", "4", "--evaluation.num-tasks", "20", "--evaluation.split", "train"]),
    ],
)
def test_numbers_that_are_never_asked_for_do_not_matter(name, flags):
    assert begin(name, *flags) == 0


def test_tasks_that_run_out_later_end_the_run_in_one_sentence(here, capfd):
    assert begin("Empty", "--num-iterations", "20", "--evaluate-every", "0") == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert "sample_tasks was asked for 3 tasks and returned NoneType in place of a list" in error
    assert "the checkpoint before it is intact" in error


def test_the_evaluations_numbers_may_change_when_a_run_goes_on(here):
    flags = ["--evaluation.num-tasks", "2", "--evaluation.num-steps", "1", "--evaluation.episodes-per-task", "1"]
    flags += ["--evaluation.first-step-size", "0.3", "--evaluation.seed", "5", "--evaluate-every", "2"]
    assert begin("Push", folder="whole") == 0 and begin("Push", "--num-iterations", "1", folder="parts") == 0
    assert train(RunConfig(), ["--resume", "parts", "--num-iterations", "2", *flags]) == 0
    whole, parts = rows("whole"), rows("parts")
    learned = [{name for name in row if not name.startswith("eval_")} for row in whole]
    assert [{name: row[name] for name in names} for row, names in zip(parts, learned, strict=True)] == [
        {name: row[name] for name in names} for row, names in zip(whole, learned, strict=True)
    ]
    assert parts[1]["eval_return_1"] != whole[1]["eval_return_1"] and parts[1]["eval_return_3"] == ""
    assert json.loads((here / "parts" / "config.json").read_text())["config"]["evaluation"]["seed"] == 5


def test_a_failed_evaluation_is_a_warning_and_leaves_its_columns_out(capfd):
    assert begin("FarTests") == 0
    error = capfd.readouterr().err
    for iteration in (1, 2):
        assert f"warning: the evaluation of iteration {iteration} failed and is left out; training goes on: " in error
    assert "KeyError: 'no such task'" in error
    assert begin("Push", "--evaluate-every", "0", folder="without") == 0
    assert rows("run") == rows("without")  # nothing else is another number


def test_evaluating_a_run_on_too_many_tasks_is_refused(capfd):
    assert begin("FewTests") == 0
    assert evaluate(["run", "--num-tasks", "4"]) == 2
    assert "sample_test_tasks was asked for 4 tasks and returned 3" in capfd.readouterr().err
    assert evaluate(["run", "--num-tasks", "3"]) == 0
