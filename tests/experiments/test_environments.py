"""Environments of users that run out of tasks, fail in evaluations, draw oddly, or are held in many copies."""

import csv
import json
import re
import shlex
import signal
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train
from maml_rl.experiments import runs
from maml_rl.experiments.training import Prepared
from maml_rl.sampling.local import MAX_COPIES
from maml_rl.training.trainer import TrainingResult

SOURCE = """
import os

import numpy as np
import sound
from gymnasium.spaces import Box

from envs.task_env import TaskEnv

class Push(sound.Push):
    horizon = 4

class Ten(Push):
    def sample_tasks(self, num_tasks, rng):
        return rng.choice(np.linspace(-1.0, 1.0, 10), num_tasks, replace=False).tolist()

class Short(Push):
    def sample_tasks(self, num_tasks, rng):
        return super().sample_tasks(min(num_tasks, 10), rng)

class Bytes(Push):
    observation_space = Box(0, 255, (1,), np.uint8)

    def seen(self):
        return np.array([128 + 20 * self.x], np.uint8)

class Inherits(Ten, TaskEnv):
    pass  # has sample_test_tasks from its base class, which draws by sample_tasks

class FewTests(Push):
    def sample_test_tasks(self, num_tasks, rng):
        return [2.0, -2.0, 2.5][:num_tasks]

class Empty(Push):
    def sample_tasks(self, num_tasks, rng):
        return None if os.path.exists("run") else super().sample_tasks(num_tasks, rng)

class Drawn(Push):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def render(self):
        picture = np.full((30, 40, 3), 255, np.uint8)
        picture[:, int((self.x + 3.0) / 6.0 * 39)] = 0
        return picture

class Grey(Drawn):
    def render(self):
        return super().render()[..., 0]

class WithAlpha(Drawn):
    def render(self):
        return np.concatenate([super().render(), np.full((30, 40, 1), 255, np.uint8)], -1)

class Floats(Drawn):
    def render(self):
        return super().render() / 255.0

class Forgot(Drawn):
    def render(self):
        return None

class Listed(Drawn):
    def render(self):
        return [super().render()]

class Growing(Drawn):
    def render(self):
        self.width = getattr(self, "width", 40) + 2
        return np.zeros((30, self.width, 3), np.uint8)

class Broken(Drawn):
    def render(self):
        raise OSError("no brush")

class HumanOnly(Drawn):
    metadata = {"render_modes": ["human"], "render_fps": 10}

class Tiring(Drawn):
    drawn = 0

    def render(self):
        self.drawn += 1
        return super().render() if self.drawn <= 6 else None

class Tireless(Push):
    steps = 0

    def step(self, action):
        Tireless.steps += 1
        assert Tireless.steps < 1000, "an episode of 1e20 steps was begun"
        return super().step(action)

class Counted(Push):
    alive = most = 0

    def __init__(self):
        self.file = open(__file__)
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def close(self):
        self.file.close()
        Counted.alive -= 1

class Limited(Counted):
    def __init__(self):
        assert Limited.alive < 30, "no more of them"
        Limited.alive += 1

    def close(self):
        Limited.alive -= 1

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
    return train(f"users:{name}", [*TINY, "--output-dir", folder, *flags])


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
        ("Ten", ["--evaluation.num-tasks", "20"], "error: sample_tasks was asked for 20 tasks and raised ValueError:"),
        ("Inherits", ["--evaluation.num-tasks", "20"], "error: sample_tasks was asked for 20 tasks and raised Value"),
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


def test_the_command_after_a_stop_names_the_environment_again(monkeypatch, capfd):
    with monkeypatch.context() as stopped:
        stopped.setattr(Prepared, "train", lambda *_: TrainingResult(0, signal.SIGINT, {}))
        assert begin("Push") == 130
    pasted = shlex.split(capfd.readouterr().err.splitlines()[-1].removeprefix("to continue: "))
    assert train(arguments=pasted[pasted.index("--resume") :]) == 0


def test_the_evaluations_numbers_may_change_when_a_run_goes_on(here):
    flags = ["--evaluation.num-tasks", "2", "--evaluation.num-steps", "1", "--evaluation.episodes-per-task", "1"]
    flags += ["--inner.test-step-size", "0.3", "--evaluation.seed", "5", "--evaluate-every", "2"]
    assert begin("Push", folder="whole") == 0 and begin("Push", "--num-iterations", "1", folder="parts") == 0
    assert train(arguments=["--resume", "parts", "--env", "users:Push", "--num-iterations", "2", *flags]) == 0
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
    assert evaluate(["run", "--trust-env", "--num-tasks", "4"]) == 2
    assert "sample_test_tasks was asked for 4 tasks and returned 3" in capfd.readouterr().err
    assert evaluate(["run", "--trust-env", "--num-tasks", "3"]) == 0


@pytest.mark.parametrize("name", ["Bytes", "Push"])
def test_a_run_of_version_0_1_on_bytes_is_refused_since_they_are_scaled_now(name, here, monkeypatch, capfd):
    assert begin(name) == 0
    path = here / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 1}))
    monkeypatch.setattr(runs, "migrated", lambda version, config: config)  # in the form of that version
    capfd.readouterr()
    resume = ["--resume", "run", "--env", f"users:{name}", "--output-dir", "on"]
    for command in (
        lambda: evaluate(["run", "--trust-env"]),
        lambda: train(arguments=resume),
        lambda: begin(name, "--init-from", "run", folder="begun"),
    ):
        status, error, is_refused = command(), capfd.readouterr().err, name == "Bytes"
        assert status == (2 if is_refused else 0), error
        assert ("run was trained by version 0.1 on observations of bytes as they are, and now" in error) == is_refused


# --- films -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Floats", "drawing returned an array of float64 in place of a picture: return one array of np.uint8 with"),
        ("Forgot", "drawing returned NoneType in place of a picture: return"),
        ("Listed", "drawing returned list in place of a picture: return"),
        ("Growing", "drawing returned pictures of the shapes [30, 42, 3] and then [30, 44, 3]: return"),
        ("Broken", "drawing failed with OSError: no brush (users.py, line "),
    ],
)
def test_what_cannot_be_filmed_is_refused_before_a_folder_is_made(name, words, here, capfd):
    assert begin(name, "--film-every", "1") == 2
    error = capfd.readouterr().err
    assert f"error: users:{name} cannot be filmed: {words}" in error
    assert "Traceback" not in error and not (here / "run").exists()
    assert begin(name) == 0  # nor does it matter where nothing is filmed


def test_without_a_render_mode_for_pictures_there_is_no_film(here, capfd):
    assert begin("HumanOnly", "--film-every", "1") == 2
    assert "users:HumanOnly draws no pictures: give it the render mode rgb_array" in capfd.readouterr().err
    assert not (here / "run").exists()


def films(folder):
    events = EventAccumulator(f"{folder}/tensorboard")
    events.Reload()
    return {film.step: film.encoded_image_string for film in events.Images("film")} if events.Tags()["images"] else {}


@pytest.mark.parametrize("name", ["Grey", "WithAlpha"])
def test_grey_and_opaque_pictures_make_the_same_film_as_colour(name):
    for each in (name, "Drawn"):
        assert begin(each, "--film-every", "2", folder=each) == 0
    assert films(name) == films("Drawn") and list(films(name)) == [2]


def test_a_film_that_fails_later_is_a_warning_also_when_the_run_goes_on(here, capfd):
    # two pictures are looked at, two episodes of three pictures (of every second step of four) are a film
    assert begin("Tiring", "--film-every", "1", "--num-iterations", "3") == 0
    error = capfd.readouterr().err
    assert "warning: the film of iteration 1 failed and is left out; training goes on: drawing returned None" in error
    assert (
        train(arguments=["--resume", "run", "--env", "users:Tiring", "--film-every", "1", "--num-iterations", "4"]) == 0
    )
    assert begin("Push", "--num-iterations", "4", folder="plain") == 0
    assert rows("run") == rows("plain")


def test_a_horizon_that_cannot_fit_is_refused_before_an_episode_is_played(capfd):
    assert begin("Tireless", "--horizon", str(10**20)) == 2
    assert "horizon, or make observations smaller" in capfd.readouterr().err


# --- copies ----------------------------------------------------------------------------------------------------


def test_copies_are_bounded_and_evaluation_takes_those_of_training():
    flags = ["--num-tasks", "40", "--episodes-per-task", "20", "--evaluation.num-tasks", "30", "--horizon", "1"]
    assert begin("Counted", *flags, "--num-iterations", "1", "--num-threads", "2") == 0
    counted = sys.modules["users"].Counted
    assert 200 <= counted.most <= MAX_COPIES + 1  # and the one that tasks are drawn by
    assert counted.alive == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--num-tasks", "4", "--evaluate-every", "0"],
        ["--num-tasks", "1", "--evaluation.num-tasks", "3"],
        ["--num-tasks", "1", "--evaluation.num-tasks", "3", "--evaluation.episodes-per-task", "9"],
    ],
)
def test_copies_that_cannot_be_made_are_refused_before_a_folder_is_made(flags, here, capfd):
    threads = ["--episodes-per-task", "10", "--num-threads", "2", "--horizon", "1"]  # at least one task on each
    assert begin("Limited", *threads, *flags) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert re.match(r"error: sampling holds (36|40) copies of the environment at a time on 2 threads: users:Lim", error)
    assert "lower --num-tasks and --evaluation.num-tasks, times --episodes-per-task, below it" in error
    assert sys.modules["users"].Limited.alive == 0 and not (here / "run").exists()
    assert begin("Limited", *threads, "--num-tasks", "2", "--evaluation.num-tasks", "2") == 0


def test_many_episodes_of_a_task_are_said_to_need_as_many_copies(capfd):
    flags = ["--episodes-per-task", str(MAX_COPIES + 1), "--num-tasks", "1", "--horizon", "1", "--evaluate-every", "0"]
    assert begin("Push", *flags, "--num-iterations", "1") == 0
    assert "warning: users:Push will be held in 401 copies, one for each episode of a task" in capfd.readouterr().err
    assert begin("Push", "--num-iterations", "0", folder="few") == 0
    assert "copies" not in capfd.readouterr().err
