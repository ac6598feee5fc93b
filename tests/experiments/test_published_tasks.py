"""The tasks of the published test scripts."""

import numpy as np
import pytest

from envs.tasks import Direction, Goal, TargetVelocity
from maml_rl.experiments.published import PUBLISHED
from maml_rl.experiments.published_tasks import PUBLISHED_TASKS

HALF_CHEETAH = PUBLISHED_TASKS["maml/HalfCheetahVel-rllab-v0"].tasks()


@pytest.mark.parametrize("env", PUBLISHED_TASKS)
def test_every_environment_with_published_returns_has_its_forty_tasks(env):
    assert PUBLISHED_TASKS.keys() == PUBLISHED.keys()
    tasks = PUBLISHED_TASKS[env].tasks()
    assert len(tasks) == 40 and {type(task) for task in tasks} <= {TargetVelocity, Direction, Goal}
    assert "test_maml_" in PUBLISHED_TASKS[env].source and "RandomState(" in PUBLISHED_TASKS[env].source


def test_speeds_are_those_of_numpy_s_old_generator_of_seed_1():
    # What `numpy.random.seed(1); numpy.random.uniform(0, 2, (40,))` gives, a stream that NumPy has frozen: it begins
    # with the well-known 0.417022 of U(0, 1). Their mean is 0.919 m/s.
    speeds = np.array([task.speed for task in HALF_CHEETAH])
    assert speeds[:3] == pytest.approx([2 * 0.417022005, 2 * 0.720324493, 2 * 0.000114374817])
    assert speeds.mean() == pytest.approx(0.919, abs=5e-4)
    ants = np.array([task.speed for task in PUBLISHED_TASKS["maml/AntVel-rllab-v0"].tasks()])
    assert ants == pytest.approx(1.5 * speeds)


def test_directions_are_the_halves_of_their_range():
    # The half cheetah's numbers are those of its speeds: backward below 1.0. The ant's are of seed 2.
    cheetah, ant = (
        [task.sign for task in PUBLISHED_TASKS[f"maml/{name}-rllab-v0"].tasks()]
        for name in ("HalfCheetahDir", "AntDir")
    )
    assert cheetah == [1 if task.speed >= 1.0 else -1 for task in HALF_CHEETAH]
    assert cheetah.count(-1) == 22 and ant.count(-1) == 25 and cheetah != ant


def test_goals_lie_in_the_square():
    goals = PUBLISHED_TASKS["maml/Navigation2D-v0"].tasks()
    first = [value for goal in goals for value in (goal.x, goal.y)][:3]
    assert first == pytest.approx([0.417022005 - 0.5, 0.720324493 - 0.5, 0.000114374817 - 0.5])
    assert all(abs(goal.x) <= 0.5 and abs(goal.y) <= 0.5 for goal in goals)
