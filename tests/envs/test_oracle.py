"""An oracle is the environment it wraps, plus the task at the end of each observation."""

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401 - registers the ids
from envs.adapters import SingleFromVector, VectorFromSingle
from envs.oracle import Oracle, task_vector
from envs.tasks import Direction, Goal, TargetVelocity

IDS = sorted(name for name in gymnasium.registry if name.startswith("maml/") and "/ML1" not in name)
NUM_ENVS = 3
SEEDS = [5, 6, 2**40]
every_id = pytest.mark.parametrize("env_id", IDS)


def make_vec(env_id, num_envs=NUM_ENVS, **settings):
    return gymnasium.make_vec(env_id, num_envs=num_envs, **settings)


@dataclass(frozen=True)
class Nested:
    goal: Goal
    weights: tuple[float, ...]
    sign: int


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (TargetVelocity(1.5), [1.5]),
        (Direction(-1), [-1]),
        (Goal(1.0, 2.0), [1, 2]),
        (Nested(Goal(1.0, 2.0), (3.0, 4.0), 5), [1, 2, 3, 4, 5]),
        (np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
        (7, [7]),
    ],
)
def test_a_task_is_laid_flat(task, expected):
    assert task_vector(task).tolist() == expected and task_vector(task).dtype == np.float64


@pytest.mark.parametrize("task", ["north", (1.0, "north"), None])
def test_a_task_must_be_numbers(task):
    with pytest.raises(TypeError, match="an oracle's task must consist of numbers, got"):
        task_vector(task)


@every_id
def test_it_is_the_environment_plus_the_task(env_id):
    oracle, plain = Oracle(make_vec(env_id, horizon=4)), make_vec(env_id, horizon=4)
    tasks = plain.sample_tasks(NUM_ENVS, np.random.default_rng(1))
    assert oracle.sample_tasks(NUM_ENVS, np.random.default_rng(1)) == tasks
    told = np.array([task_vector(task) for task in tasks])
    size = plain.single_observation_space.shape[0]
    assert oracle.single_observation_space.shape == (size + told.shape[1],)
    plain.action_space.seed(2)
    actions = [plain.action_space.sample() for _ in range(4)]
    alive = np.array([True, False, True])
    for _ in range(2):
        for env in (oracle, plain):
            env.set_tasks(tasks)
        observations, expected = oracle.reset(seed=SEEDS)[0], plain.reset(seed=SEEDS)[0]
        np.testing.assert_array_equal(observations, np.concatenate([expected, told], axis=1))
        for t, action in enumerate(actions):
            mask = alive if t == 1 else None
            ours, theirs = oracle.step(action, alive=mask), plain.step(action, alive=mask)
            assert oracle.observation_space.contains(ours[0])
            stepped = np.ones(NUM_ENVS, dtype=bool) if mask is None else mask
            np.testing.assert_array_equal(ours[0][:, :size], theirs[0])
            np.testing.assert_array_equal(ours[0][:, size:], told * stepped[:, None])
            for one, other in zip(ours[1:], theirs[1:], strict=True):
                np.testing.assert_equal(one, other)


@every_id
def test_a_new_task_is_told_from_the_next_reset_on(env_id):
    oracle = Oracle(make_vec(env_id))
    one, other = list(dict.fromkeys(oracle.sample_tasks(40, np.random.default_rng(0))))[:2]
    oracle.set_tasks([one] * NUM_ENVS)
    oracle.reset(seed=SEEDS)
    oracle.set_tasks([other] * NUM_ENVS)
    width = len(task_vector(one))
    mask = np.array([True, False, False])
    np.testing.assert_array_equal(
        oracle.step(np.zeros(oracle.action_space.shape, oracle.action_space.dtype))[0][:, -width:],
        np.tile(task_vector(one), (NUM_ENVS, 1)),
    )
    observations, _ = oracle.reset(seed=SEEDS, options={"reset_mask": mask})
    expected = [task_vector(other if reset else one) for reset in mask]
    np.testing.assert_array_equal(observations[:, -width:], expected)


def test_without_set_tasks_the_default_is_told():
    observations, _ = Oracle(make_vec("maml/AntGoal-rllab-v0")).reset(seed=0)
    np.testing.assert_array_equal(observations[:, -2:], np.ones((NUM_ENVS, 2)))


def test_one_copy_seeded_by_gymnasium():
    single = SingleFromVector(Oracle(make_vec("maml/HalfCheetahVel-gym-v0", num_envs=1)))
    plain = gymnasium.make("maml/HalfCheetahVel-gym-v0")
    np.testing.assert_array_equal(single.reset(seed=3)[0][:-1], plain.reset(seed=3)[0])
    np.testing.assert_array_equal(single.reset()[0][:-1], plain.reset()[0])


def test_copies_of_a_single_environment():
    vector = VectorFromSingle(lambda: gymnasium.make("maml/HalfCheetahDir-gym-v0"), num_envs=2)
    oracle = Oracle(vector)
    with pytest.raises(ValueError, match="an oracle must know its task: call set_tasks before reset"):
        oracle.reset(seed=0)
    oracle.set_tasks([Direction(1), Direction(-1)])
    assert oracle.reset(seed=0)[0][:, -1].tolist() == [1.0, -1.0]


def test_what_is_refused():
    with pytest.raises(TypeError, match="takes tasks of type Direction"):
        Oracle(make_vec("maml/AntDir-gym-v0")).set_tasks([Goal(0.0, 0.0)] * NUM_ENVS)
    env = make_vec("maml/Navigation2D-v0")
    env.sample_tasks = lambda num_tasks, rng: ["north"] * num_tasks
    with pytest.raises(ValueError, match="an oracle's task must consist of numbers, got 'north'"):
        Oracle(env)
    env.single_observation_space = gymnasium.spaces.Discrete(3)
    with pytest.raises(ValueError, match=r"an oracle needs observations in a Box of one axis, got Discrete\(3\)"):
        Oracle(env)


def test_success_and_tasks_set_aside_pass_through():
    env = gymnasium.make_vec("test/Reach-v0", num_envs=2)
    oracle = Oracle(env)
    assert oracle.reports_success and not Oracle(make_vec("maml/Navigation2D-v0")).reports_success
    drawn = [world.sample_test_tasks(5, np.random.default_rng(0)) for world in (env, oracle)]
    assert drawn[0] == drawn[1] and all(abs(task.x) > 1.0 for task in drawn[0])
