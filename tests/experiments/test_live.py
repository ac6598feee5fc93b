"""Environments and tasks as live views show them."""

from dataclasses import dataclass

import numpy as np
import pytest
from two_arms import TwoArms

from envs.task_env import TaskEnv
from maml_rl.experiments.environments import remember
from maml_rl.experiments.live import (
    live_tasks,
    make_live,
    note_of,
    picture_of,
    render_mode_of,
    robot_of,
    steps_per_second,
    unit_of,
)
from maml_rl.experiments.presets import default_config


def config_of(env):
    return default_config(env, "maml")


@pytest.mark.parametrize(
    ("env", "labels", "limits"),
    [
        ("maml/HalfCheetahVel-rllab-v0", ["speed [m/s]"], (0.0, 2.0)),
        ("maml/AntVel-gym-v0", ["speed [m/s]"], (0.0, 3.0)),
        ("maml/AntGoal-rllab-v0", ["x [m]", "y [m]"], (-3.0, 3.0)),
        ("maml/Navigation2D-v0", ["x [m]", "y [m]"], (-0.5, 0.5)),
    ],
)
def test_numbers_of_tasks_become_dials_in_their_range(env, labels, limits):
    tasks = live_tasks(config_of(env), seed=1)
    assert [dial.label for dial in tasks.dials] == labels
    assert {(dial.low, dial.high) for dial in tasks.dials} == {limits} and not tasks.choices
    task = tasks.sample()
    assert tasks.task_of(tasks.numbers_of(task)) == task


def test_a_few_tasks_become_choices():
    tasks = live_tasks(config_of("maml/HalfCheetahDir-rllab-v0"), seed=1)
    assert [str(task) for task in tasks.choices] == ["run backward", "run forward"] and not tasks.dials
    arms = live_tasks(config_of(remember(TwoArms)), seed=1)
    assert arms.choices == (0, 1)


def test_other_tasks_are_only_drawn():
    tasks = live_tasks(config_of("maml/Bandit-K5-v0"), seed=1)
    assert not tasks.dials and not tasks.choices
    assert str(tasks.sample()) != str(tasks.sample())


@dataclass(frozen=True)
class Weight:
    mass: float  # of the load, [kg]
    colour: float = 0.5


class Loaded(TwoArms):
    task_range = (1.0, 4.0)

    def sample_tasks(self, num_tasks, rng):
        return [Weight(mass) for mass in rng.uniform(*self.task_range, num_tasks)]


def test_dials_of_a_users_own_tasks_have_the_units_that_their_comments_state():
    assert unit_of(Weight, "mass") == "kg" and unit_of(Weight, "colour") == "" and unit_of(int, "real") == ""
    tasks = live_tasks(config_of(remember(Loaded)), seed=1)
    assert [(dial.label, dial.low, dial.high) for dial in tasks.dials] == [
        ("mass [kg]", 1.0, 4.0),
        ("colour", 1.0, 4.0),
    ]


def test_robots_show_their_states_and_their_post():
    config = config_of("maml/HalfCheetahVel-rllab-v0")
    assert render_mode_of(config, seed=1) is None
    env = make_live(config)
    robot = robot_of(env)
    env.set_task(live_tasks(config, 1).task_of({"speed": 1.5}))
    env.reset(seed=1)
    for _ in range(20):
        env.step(np.zeros(6))
    # twenty steps of 0.01 s at 1.5 m/s
    assert robot.post(0) == pytest.approx((0.3, 0.6))
    assert robot.coordinates.shape == (1, robot.model.nq)
    assert steps_per_second(env) == 100.0 and "post" in note_of(env)


def test_the_post_of_a_goal_stands_there():
    config = config_of("maml/AntGoal-rllab-v0")
    env = make_live(config)
    env.set_task(live_tasks(config, 1).task_of({"x": -2.0, "y": 1.0}))
    env.reset(seed=1)
    assert robot_of(env).post(0) == (-2.0, 1.0)
    direction = make_live(config_of("maml/AntDir-rllab-v0"))
    assert robot_of(direction).post(0) is None


def test_other_environments_show_pictures():
    for env, speed in (("maml/Navigation2D-v0", 10.0), (remember(TwoArms), 5.0)):
        config = config_of(env)
        assert render_mode_of(config, seed=1) == "rgb_array"
        made = make_live(config, "rgb_array")
        made.get_wrapper_attr("set_task")(live_tasks(config, 1).sample())
        made.reset(seed=1)
        assert picture_of(made).shape[-1] == 3 and robot_of(made) is None
        assert steps_per_second(made) == speed


class Unseen(TaskEnv):
    horizon = 3
    observation_space, action_space = TwoArms.observation_space, TwoArms.action_space

    def sample_tasks(self, num_tasks, rng):
        return [0] * num_tasks

    def set_task(self, task):
        pass

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_an_environment_that_draws_nothing_is_refused():
    with pytest.raises(ValueError, match="Unseen draws no pictures: give it the render mode rgb_array"):
        render_mode_of(config_of(remember(Unseen)), seed=1)
    env = make_live(config_of(remember(Unseen)))
    assert steps_per_second(env) == 25.0  # which states no speed
