"""The command that checks an environment, as a user meets it."""

import csv
import json
import sys

import pytest

from maml_rl.commands.check_env import check_env
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train

SOURCE = """
import gymnasium
import numpy as np

class Untasked(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    horizon = 5

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(2, np.float32), 0.0, False, False, {}

class Idle(Untasked):
    def sample_tasks(self, num_tasks, rng):
        return rng.normal(size=num_tasks).tolist()

    def set_task(self, task):
        pass

class Growing(Idle):
    horizon = 30

    def step(self, action):
        super().step(action)
        return np.zeros(2 + (self.time > 20), np.float32), 0.0, False, False, {}

class Rich(Idle):
    observation_space = gymnasium.spaces.Dict(
        place=gymnasium.spaces.Box(-1, 1, (2, 2)), gear=gymnasium.spaces.Discrete(3)
    )
    action_space = gymnasium.spaces.Box(np.float32([[-0.1, 0], [2, -4]]), np.float32([[0.3, 1], [3, 8]]))
    horizon = 20

    def seen(self):
        return {"place": np.zeros((2, 2), np.float32), "gear": self.time % 3}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(), {}

    def step(self, action):
        self.time += 1
        assert self.action_space.contains(action), action
        return self.seen(), float(action.sum()), bool(self.np_random.random() < 0.2), False, {}

class Keyboard(Idle):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.MultiDiscrete([3, 5], start=[-1, 2])

    def set_task(self, task):
        self.wanted = int(abs(task) < 0.5) + 2

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0][:1], {}

    def step(self, action):
        self.time += 1
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), float(action[1] == self.wanted) - float(abs(action[0])), False, False, {}

class Switches(Keyboard):
    action_space = gymnasium.spaces.MultiBinary(3)

    def step(self, action):
        self.time += 1
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), float(action.sum()), False, False, {}

class Ending(Idle):
    horizon = None  # it ends by itself, and says nowhere when

    def step(self, action):
        *step, _, info = super().step(action)
        return *step, self.time == 3, info

class Arriving(Idle):
    def step(self, action):
        *step, _ = super().step(action)
        return *step, ({"is_success": bool(self.np_random.random() < 0.5)} if self.time == 5 else {})

class Sharing(Idle):
    def set_task(self, task):
        Sharing.task = task

    def step(self, action):
        return np.zeros(2, np.float32), Sharing.task, False, False, {}

class Angry(Idle):
    def step(self, action):
        raise KeyError("anger")
"""
ANGER = SOURCE.splitlines().index('        raise KeyError("anger")') + 1  # its line


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "users.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("users", None)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["AntVel", "--horizon", "20"], 0, "maml/AntVel-rllab-v0: 0 errors, 0 warnings: fit to be trained on"),
        (["CartPole-v1"], 0, "CartPole-v1: 0 errors, 1 warnings: fit to be trained on"),
        (
            ["users:Idle"],
            0,
            "warning: 8 tasks gave the same observations and rewards, step by step: look whether set_task",
        ),
        (
            ["users:Untasked"],
            1,
            "error: users:Untasked has no sample_tasks: give it sample_tasks(self, num_tasks, rng)",
        ),
        (["users:Growing"], 1, "error: the observation of step 20 has shape (3,) in place of (2,): let every reset"),
        (["users:Angry"], 1, f"step raised KeyError: 'anger' (users.py, line {ANGER}): correct what raises it"),
        (["users:Absent"], 2, "error: env must name a class, but users ("),
        (["absent:Idle"], 2, "error: env must name a module that can be found, but 'absent' is neither"),
        (["Nowhere-v0"], 2, "error: env must be a registered task environment, got 'Nowhere-v0'"),
    ],
)
def test_the_verdict_and_the_exit_status(arguments, status, message, capfd):
    assert check_env(arguments) == status
    out, err = capfd.readouterr()
    assert message in err and "Traceback" not in err and out == ""


def test_a_horizon_of_nothing(capfd):
    with pytest.raises(SystemExit, match="2"):
        check_env(["users:Idle", "--horizon", "0"])
    assert "horizon must be at least 1 step, got 0" in capfd.readouterr().err


def test_one_line_for_machines(capfd):
    assert check_env(["users:Untasked", "--json"]) == 1
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["env"], found["error"], found["warning"]) == ("users:Untasked", 2, 0)
    assert [each["name"] for each in found["findings"]] == ["tasks_can_be_drawn"] * 2
    assert set(found["findings"][0]) == {"name", "severity", "what", "remedy"}


TINY = ["--num-tasks", "2", "--episodes-per-task", "2", "--num-iterations", "1", "--evaluate-every", "0"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Untasked", "error: users:Untasked has no sample_tasks: give it"),
        (
            "Angry",
            f"step raised KeyError: 'anger' (users.py, line {ANGER}): correct what raises it (for all that is wrong: ",
        ),
        (
            "Sharing",
            "set_task of one copy changes the episodes of others, through the class attribute Sharing.task: keep",
        ),
    ],
)
def test_training_runs_the_cheap_part_before_it_makes_a_folder(name, message, here, capfd):
    assert train(f"users:{name}", TINY) == 2
    assert message in capfd.readouterr().err and not (here / "runs").exists()


def test_training_goes_on_with_a_warning(here, capfd):
    assert train("CartPole-v1", [*TINY, "--horizon", "5", "--output-dir", "run"]) == 0
    assert "warning: CartPole-v1 has no tasks and is taken as a family of one" in capfd.readouterr().err


def test_an_environment_that_ends_by_itself_needs_no_horizon(here, capfd):
    flags = [*TINY, "--evaluate-every", "1", "--output-dir", "run"]
    assert train("users:Ending", flags) == 0
    assert "warning: users:Ending does not say how many steps an episode may take, so that 200 are taken at most" in (
        capfd.readouterr().err
    )
    with open("run/metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["env_steps"]) == 2 * 2 * 2 * 3  # two tasks, two episodes of three steps, before and after
    assert evaluate(["run", "--trust-env", "--num-tasks", "2"]) == 0


def test_is_success_is_counted(here):
    flags = [*TINY, "--episodes-per-task", "50", "--evaluate-every", "1", "--output-dir", "run"]
    assert train("users:Arriving", flags) == 0
    with open("run/metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    for name in ("success_before", "success_after"):  # of 100 episodes each; a deviation of 0.05
        assert 0.3 < float(row[name]) < 0.7
    assert 0.0 < float(row["eval_success_0"]) < 1.0


def test_spaces_of_several_parts_and_episodes_of_unequal_length(here):
    flags = [*TINY, "--episodes-per-task", "20", "--output-dir", "run"]
    assert train("users:Rich", flags) == 0
    with open("run/metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    # Two tasks, before and after, 20 episodes: the mean length is (1 - 0.8^20) / 0.2 = 4.94 of 20 steps, and the mean
    # of 80 lengths, each of a deviation of at most 4.5, lies within 4 * 4.5 / sqrt(80) = 2 of it.
    assert 80 * 2.9 < float(row["env_steps"]) < 80 * 7.0


@pytest.mark.parametrize("name", ["Keyboard", "Switches"])
def test_several_choices_at_once_are_learned(name, here):
    assert check_env([f"users:{name}"]) == 0
    flags = ["--num-tasks", "10", "--episodes-per-task", "10", "--num-iterations", "6", "--evaluate-every", "6"]
    assert train(f"users:{name}", [*flags, "--output-dir", "run"]) == 0
    with open("run/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # By chance a step earns 1/5 - 2/3 at the keyboard and 3/2 at the switches; a quarter of what is missing is found.
    chance, best = {"Keyboard": (1 / 5 - 2 / 3, 1.0), "Switches": (1.5, 3.0)}[name]
    assert float(rows[-1]["eval_return_3"]) > 5 * (0.75 * chance + 0.25 * best)
    assert evaluate(["run", "--trust-env", "--num-tasks", "2", "--actions", "mean"]) == 0


def test_a_shape_that_changes_in_training_ends_the_run_with_its_place(here, capfd):
    assert train("users:Growing", [*TINY, "--output-dir", "run"]) == 1
    error = capfd.readouterr().err
    assert "task 0, episode 0, step 20: observation has shape (3,) in place of (2,): let every reset and step" in error
    assert (here / "run" / "checkpoints" / "latest").read_text().strip() == "iteration-000000"


def test_an_oracle_needs_tasks_of_numbers(here, capfd):
    (here / "users.py").write_text(SOURCE.replace("rng.normal(size=num_tasks).tolist()", '["north"] * num_tasks'))
    assert train("users:Idle", [*TINY, "--oracle"]) == 2
    assert "oracle must be left out: an oracle's task must consist of numbers, got 'north' of users:Idle" in (
        capfd.readouterr().err
    )
