"""Lists of tasks: published, of a file, or the caller's; refusals in one sentence."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from envs.tasks import Direction, Goal, TargetVelocity
from envs.toys.bandit import BernoulliArms
from maml_rl.api.settings import with_settings
from maml_rl.experiments.config import SINUSOID
from maml_rl.experiments.environments import EnvironmentSource
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.task_lists import fields_of, published_beside, task_list
from maml_rl.supervised.sinusoid import Sinusoid, SinusoidConfig, SinusoidSource


class Env:
    """The part of an environment that lists of tasks are compared with."""

    def __init__(self, task, task_range=None):
        self.task, self.task_range = task, task_range

    def sample_tasks(self, num_tasks, rng):
        return [self.task] * num_tasks


SPEEDS = EnvironmentSource(Env(TargetVelocity(1.0), (0.0, 2.0)))
GOALS = EnvironmentSource(Env(Goal(0.5, 0.5), (-0.5, 0.5)))
DIRECTIONS = EnvironmentSource(Env(Direction(1)))
ARMS = EnvironmentSource(Env(BernoulliArms((0.5, 0.5, 0.5)), (0.0, 1.0)))
VELOCITY = default_config("maml/HalfCheetahVel-rllab-v0", "maml")


def tasks_of(given, source, config=VELOCITY):
    return task_list(given, config).of(source, config.env)


@pytest.fixture
def write(tmp_path):
    def write(content, name="tasks.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("source", "tasks"),
    [
        (SPEEDS, [TargetVelocity(0.25), TargetVelocity(2.0)]),
        (GOALS, [Goal(-0.5, 0.125)]),
        (DIRECTIONS, [Direction(-1), Direction(1)]),
        (ARMS, [BernoulliArms((0.0, 1.0, 0.25))]),
        (SinusoidSource(SinusoidConfig()), [Sinusoid(0.1, 3.0)]),
        (EnvironmentSource(Env(1.5)), [2.0, -3.5]),
    ],
    ids=["speeds", "goals", "directions", "arms", "sinusoids", "numbers"],
)
def test_a_file_gives_the_tasks_that_were_written(source, tasks, write, tmp_path):
    assert tasks_of(write([fields_of(task) for task in tasks]), source) == tasks
    assert tasks_of(tasks, source) == tasks_of([fields_of(task) for task in tasks], source) == tasks
    if source is ARMS:
        return  # a cell of a CSV is one number
    with open(tmp_path / "tasks.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fields_of(tasks[0]))
        writer.writeheader()
        writer.writerows(map(fields_of, tasks))
    assert tasks_of(str(tmp_path / "tasks.csv"), source) == tasks


def test_plain_numbers_may_stand_without_a_name(write):
    assert tasks_of(write([2.0, -3.5]), EnvironmentSource(Env(1.5))) == [2.0, -3.5]


def test_a_table_of_evaluation_gives_each_of_its_tasks_once(write):
    rows = ["run,seed,task,speed,return_0,gain", "a,1,0,0.5,-9.0,1.0", "a,1,1,1.5,-8.0,1.0", "b,2,0,0.5,-7.0,0.0"]
    assert tasks_of(write("\n".join(rows), "evaluation.csv"), SPEEDS) == [TargetVelocity(0.5), TargetVelocity(1.5)]


def test_published_tasks_are_those_of_the_environment_in_either_physics():
    (speeds, again) = (
        tasks_of("published", SPEEDS, default_config(f"maml/HalfCheetahVel-{physics}-v0", "maml"))
        for physics in ("rllab", "gym")
    )
    assert speeds == again and len(speeds) == 40
    assert np.mean([task.speed for task in speeds]) == pytest.approx(0.919, abs=5e-4)


def test_published_returns_stand_beside_those_of_the_same_tasks_physics_and_method():
    published, given = task_list("published", VELOCITY), task_list([TargetVelocity(1.0)], VELOCITY)
    assert published_beside(VELOCITY, published)[1] == -78.6
    assert published_beside(VELOCITY, given) == published_beside(VELOCITY, None) == []
    gym = default_config("maml/HalfCheetahVel-gym-v0", "maml")
    assert published_beside(gym, task_list("published", gym)) == []
    assert published_beside(default_config(VELOCITY.env, "fomaml"), published) == []
    oracle = dataclasses.replace(VELOCITY, task=dataclasses.replace(VELOCITY.task, oracle=True))
    assert published_beside(oracle, published) == [-54.5]


def test_published_errors_on_sinusoids_stand_beside_those_of_as_many_examples():
    config = default_config(SINUSOID, "maml")
    five = with_settings(config, {"num_examples": 5})
    assert published_beside(five, None) == [None, 0.67, None, None, None, 0.38, None, None, None, None, 0.35]
    given = task_list([Sinusoid(0.1, 3.0)], five)
    assert published_beside(config, None) == published_beside(five, given) == []
    assert published_beside(with_settings(five, {"amplitude_range": (0.1, 1.0)}), None) == []
    assert published_beside(with_settings(five, {"inner.num_steps": 0}), None) == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "tasks must be at least one, but .*tasks.json lists none"),
        ({"speed": 1.0}, "must be a JSON list with an object for each task, got dict"),
        ([{"x": 0.1, "y": 0.2}], "consist of speed, but task 1 of .* has x, y: list objects or rows with speed"),
        ([{"speed": 1.0}, {"speed": 2.5}], "speed of task 2 of .* must lie in 0 to 2, .*got 2.5: widen the range by"),
        ([{"speed": -1}], "speed of task 1 of .* must lie in 0 to 2"),
        ([{"speed": "fast"}], "speed of task 1 of .* must be a finite number, got 'fast'"),
        ([{"speed": True}], "must be a finite number, got True"),
        ([{"speed": [1.0]}], r"must be a finite number, got \[1.0\]"),
        ("[{", "cannot be read from .*, which is no JSON: "),
        ('[{"speed": NaN}]', "must be a finite number, got nan"),
    ],
)
def test_files_that_list_no_such_tasks_are_refused(entries, message, write):
    with pytest.raises(ValueError, match=message) as refused:
        tasks_of(write(entries), SPEEDS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("speed\n1.0,2.0\n", "must have a number in each column, but task 1 has more or fewer"),
        ("speed,x\n1.0\n", "must have a number in each column, but task 1 has more or fewer"),
        ("speed\nfast\n", "must be a finite number, got 'fast'"),
        ("speed\n", "lists none"),
        ("", "lists none"),
    ],
)
def test_tables_that_list_no_such_tasks_are_refused(rows, message, write):
    with pytest.raises(ValueError, match=message):
        tasks_of(write(rows, "tasks.csv"), SPEEDS)


@pytest.mark.parametrize(
    ("entry", "source", "message"),
    [
        ({"sign": 0}, DIRECTIONS, r"task 1 of given is no task of .*: sign must be \+1 \(forward\) or -1"),
        ({"sign": 0.5}, DIRECTIONS, "sign of task 1 of given must be a whole number, got 0.5"),
        ({"probabilities": [0.1, 0.2]}, ARMS, "probabilities of task 1 of given must be a list of 3"),
        ({"probabilities": [0.1, 0.2, 1.5]}, ARMS, "probabilities of task 1 of given must lie in 0 to 1, .*got 1.5"),
        (Goal(0.0, 0.0), SPEEDS, r"are of type TargetVelocity, but task 1 of given is Goal\(x=0.0, y=0.0\)"),
        (TargetVelocity(3.0), SPEEDS, "speed of task 1 of given must lie in 0 to 2"),
        ({"value": "a"}, EnvironmentSource(Env("b")), "cannot be read from a list, since their value is no number"),
        ({"amplitude": 1.0, "phase": 4.0}, SinusoidSource(SinusoidConfig()), "phase of task 1 .* in 0 to 3.14159"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(entry, source, message):
    with pytest.raises(ValueError, match=message):
        tasks_of([entry], source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("publishd", "must be published or a file .json or .csv, got 'publishd': did you mean published?"),
        ("speeds", "must be published or a file .json or .csv, got 'speeds'$"),
        ("/nowhere/speeds.json", "cannot be read from /nowhere/speeds.json: No such file or directory"),
    ],
)
def test_a_list_that_does_not_exist_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        task_list(name, VELOCITY)


@pytest.mark.parametrize("env", ["maml/AntGoal-rllab-v0", SINUSOID])
def test_published_tasks_that_nobody_has_published_are_refused(env):
    with pytest.raises(ValueError, match=f"tasks published are not known for {env}, only for maml/AntDir"):
        task_list("published", default_config(env, "maml"))


def test_pictures_have_no_task_list():
    with pytest.raises(ValueError, match="tasks apply to environments and sinusoids, not to omniglot: choose episodes"):
        task_list("published", default_config("omniglot", "maml"))
