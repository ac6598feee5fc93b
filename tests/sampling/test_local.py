"""The unit of work is one task with all its episodes: who computes it, and beside what, shows in no bit."""

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401 - registers the ids
from envs.adapters import VectorFromSingle
from maml_rl.core.lift import Threads
from maml_rl.core.params import take_tasks
from maml_rl.core.protocols import TRAINING, Key
from maml_rl.policies import GaussianPolicy, PolicyConfig
from maml_rl.sampling.local import LocalSampler, SamplingConfig
from maml_rl.sampling.rollout import rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import SamplingError, Trajectory

KEY = Key(6, TRAINING, 4, 1)
NUM_TASKS, HORIZON = 5, 15


class World:
    """A registered environment with a policy of the default size and different parameters for every task."""

    def __init__(self, env_id):
        self._env_id = env_id
        probe = self.make_env(1)
        sizes = probe.single_observation_space.shape[0], probe.single_action_space.shape[0]
        self.policy = GaussianPolicy(*sizes, PolicyConfig())
        self.tasks = probe.sample_tasks(NUM_TASKS, np.random.default_rng(0))
        each = [self.policy.init(torch.Generator().manual_seed(i)) for i in range(NUM_TASKS)]
        self.params = {name: torch.stack([p[name] for p in each]) for name in each[0]}

    def make_env(self, num_envs):
        return gymnasium.make_vec(self._env_id, num_envs=num_envs, horizon=HORIZON)

    def sample(self, num_threads, num_episodes, key=KEY):
        threads = Threads(num_threads)
        sampler = LocalSampler(self.make_env, self.policy, num_episodes, HORIZON, threads)
        trajectory = sampler.sample(self.tasks, self.params, key)
        sampler.close()
        threads.close()
        return trajectory


@pytest.fixture(scope="module", params=["maml/Navigation2D-v0", "maml/HalfCheetahVel-gym-v0", "maml/AntDir-gym-v0"])
def world(request):
    return World(request.param)


def assert_bit_equal(trajectory, other):
    for name, value, wanted in zip(trajectory._fields, trajectory, other, strict=True):
        assert torch.equal(value, wanted), name


@pytest.mark.parametrize("num_episodes", [1, 3])
def test_bit_equal_for_any_number_of_threads(world, num_episodes):
    expected = world.sample(1, num_episodes)
    assert expected.mask.sum() > 0
    for num_threads in (2, 3):
        assert_bit_equal(world.sample(num_threads, num_episodes), expected)


@pytest.mark.parametrize("num_episodes", [1, 3])
def test_bit_equal_to_one_task_at_a_time(world, num_episodes):
    together = world.sample(1, num_episodes)
    for i in range(NUM_TASKS):
        alone = Trajectory(*(torch.zeros_like(part[i : i + 1]) for part in together))
        noise = episode_noise(KEY, i, 1, num_episodes, HORIZON, world.policy)
        params = take_tasks(world.params, i, i + 1)
        env = world.make_env(num_episodes)
        rollout(env, world.policy, params, world.tasks[i : i + 1], noise, alone, i)
        assert_bit_equal(alone, take_tasks(together, i, i + 1))


def test_a_sampler_remembers_nothing(world):
    threads = Threads(2)
    sampler = LocalSampler(world.make_env, world.policy, 2, HORIZON, threads)
    first = sampler.sample(world.tasks, world.params, KEY)
    sampler.sample(world.tasks[::-1], world.params, KEY.at_phase(2))
    assert_bit_equal(sampler.sample(world.tasks, world.params, KEY), first)
    sampler.close()
    threads.close()


def test_shapes_and_types(world):
    trajectory = world.sample(1, 3)
    shape = (NUM_TASKS, 3, HORIZON)
    assert trajectory.observations.shape == (*shape, world.policy.observation_size)
    assert trajectory.actions.shape == (*shape, world.policy.action_size)
    assert trajectory.rewards.shape == trajectory.mask.shape == shape
    assert trajectory.terminated.shape == shape[:2] and trajectory.terminated.dtype == torch.bool
    assert [part.dtype for part in trajectory[:4]] == [torch.float32, torch.float32, torch.float64, torch.float32]
    assert ((trajectory.mask == 0) | (trajectory.mask == 1)).all()


def test_another_key_gives_other_trajectories(world):
    first, second = world.sample(1, 2), world.sample(1, 2, KEY._replace(iteration=5))
    assert not torch.equal(first.actions, second.actions)


def test_fewer_tasks_than_threads(world):
    threads = Threads(3)
    sampler = LocalSampler(world.make_env, world.policy, 2, HORIZON, threads)
    alone = sampler.sample(world.tasks[:1], take_tasks(world.params, 0, 1), KEY)
    sampler.close()
    threads.close()
    assert_bit_equal(alone, take_tasks(world.sample(1, 2), 0, 1))


def test_closing_closes_every_environment(world):
    closed = []

    def make_env(num_envs):
        env = world.make_env(num_envs)
        close = env.close
        env.close = lambda: (closed.append(env), close())
        return env

    threads = Threads(2)
    sampler = LocalSampler(make_env, world.policy, 1, HORIZON, threads)
    sampler.sample(world.tasks, world.params, KEY)
    made = len(sampler._all_envs)
    sampler.close()
    sampler.close()
    threads.close()
    assert len(closed) == made >= 1


class Slippery(gymnasium.Env):
    """An environment of a user's, which raises at the second step of task 3."""

    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))
    horizon, task, elapsed = 5, 0, 0

    def sample_tasks(self, num_tasks, rng):
        return list(range(num_tasks))

    def set_task(self, task):
        self.task = task

    def reset(self, *, seed=None, options=None):
        self.elapsed = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        if self.task == 3 and self.elapsed == 1:
            raise ZeroDivisionError("no friction")
        self.elapsed += 1
        return np.zeros(1, dtype=np.float32), 0.0, False, False, {}


def test_an_error_of_an_environment_says_what_makes_it_happen_again():
    policy = GaussianPolicy(1, 1, PolicyConfig())
    params = {name: p.expand(5, *p.shape) for name, p in policy.init(torch.Generator()).items()}
    sampler = LocalSampler(lambda n: VectorFromSingle(Slippery, n), policy, 2, 5, Threads(1))
    with pytest.raises(SamplingError, match=r"^task 3, episode 0, step 1: ZeroDivisionError: no friction") as caught:
        sampler.sample(range(5), params, KEY)
    (note,) = caught.value.__notes__
    seeds = episode_noise(KEY, 3, 1, 2, 5, policy).reset_seeds
    assert note.startswith(f"in this process, task 3 (3) under {KEY}; episodes were reset with the seeds {seeds}:\n")
    assert 'raise ZeroDivisionError("no friction")' in note


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes_per_task": 0}, "episodes_per_task must be at least 1, got 0"),
        ({"horizon": 0}, "horizon must be at least 1 step, got 0"),
        ({"num_threads": -1}, "num_threads must be at least 1, or 0 for one per core, got -1"),
        ({"num_workers": 0}, "num_workers must be at least 1, or left out for one per core, got 0"),
        ({"task_timeout": float("inf")}, r"task_timeout must be positive and finite \[s\], got inf"),
        ({"ray_address": "head"}, "ray_address must be auto or host:port, got 'head'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)
