"""The unit of work is one task with all its episodes: who computes it, and beside what, shows in no bit."""

import functools
import threading
import time

import gymnasium
import numpy as np
import pytest
import torch
from players import assert_bit_equal, categorical, gaussian, own_params, recipe_for

import envs  # noqa: F401 - registers the ids
from envs.adapters import VectorFromSingle
from envs.oracle import Oracle
from maml_rl.core.contracts import Actor
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import stack, take_tasks
from maml_rl.sampling.local import LocalSampler, SamplingConfig, steps_unlocked
from maml_rl.sampling.rollout import rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import SamplingError, blank_trajectory

KEY = Key(6, TRAINING, 4, 1)
NUM_TASKS, HORIZON = 5, 15


class Case:
    """A registered environment with a policy of the default size and different parameters for every task."""

    def __init__(self, env_id):
        self._env_id = env_id
        probe = self.make_env(1)
        sizes = probe.single_observation_space.shape[0], probe.single_action_space.shape[0]
        self.policy = gaussian(*sizes, hidden_sizes=(100, 100))
        self.tasks = probe.sample_tasks(NUM_TASKS, np.random.default_rng(0))
        self.actor = Actor(self.policy, own_params(self.policy, NUM_TASKS))

    def recipe(self, num_episodes):
        return recipe_for(self.make_env, self.policy, num_episodes, HORIZON)

    def make_env(self, num_envs):
        return gymnasium.make_vec(self._env_id, num_envs=num_envs, horizon=HORIZON)

    def sample(self, num_threads, num_episodes, key=KEY):
        threads = Threads(num_threads)
        sampler = LocalSampler(self.recipe(num_episodes), threads)
        trajectory = sampler.sample(self.tasks, self.actor, key)
        sampler.close()
        threads.close()
        return trajectory


@pytest.fixture(scope="module", params=["maml/Navigation2D-v0", "maml/HalfCheetahVel-gym-v0", "maml/AntDir-gym-v0"])
def case(request):
    return Case(request.param)


@pytest.mark.parametrize("num_episodes", [1, 3])
def test_bit_equal_for_any_number_of_threads(case, num_episodes):
    expected = case.sample(1, num_episodes)
    assert expected.mask.sum() > 0
    for num_threads in (2, 3):
        assert_bit_equal(case.sample(num_threads, num_episodes), expected)


@pytest.mark.parametrize("num_episodes", [1, 3])
def test_bit_equal_to_one_task_at_a_time(case, num_episodes):
    together, recipe = case.sample(1, num_episodes), case.recipe(num_episodes)
    for i in range(NUM_TASKS):
        alone = blank_trajectory(1, recipe.shape)
        noise = episode_noise(KEY, i, 1, recipe.shape, recipe.actions)
        stage = recipe.stage(case.make_env(num_episodes))
        memory = rollout(stage, case.actor.take_tasks(i, i + 1), case.tasks[i : i + 1], noise, alone, i)
        assert_bit_equal(alone._replace(memory=memory), take_tasks(together, i, i + 1))


def test_a_sampler_remembers_nothing(case):
    threads = Threads(2)
    sampler = LocalSampler(case.recipe(2), threads)
    first = sampler.sample(case.tasks, case.actor, KEY)
    sampler.sample(case.tasks[::-1], case.actor, KEY.at_phase(2))
    assert_bit_equal(sampler.sample(case.tasks, case.actor, KEY), first)
    sampler.close()
    threads.close()


def test_shapes_and_types(case):
    trajectory = case.sample(1, 3)
    shape = (NUM_TASKS, 3, HORIZON)
    assert trajectory.observations.shape == (*shape, case.policy.spec.observation_size)
    assert trajectory.actions.shape == (*shape, case.policy.spec.distribution.num_actions)
    assert trajectory.rewards.shape == trajectory.mask.shape == shape
    assert trajectory.last_observations.shape == (*shape[:2], case.policy.spec.observation_size)
    for ended in (trajectory.terminated, trajectory.truncated):
        assert ended.shape == shape[:2] and ended.dtype == torch.bool
    assert trajectory.memory == ()
    assert [part.dtype for part in trajectory[:4]] == [torch.float32, torch.float32, torch.float64, torch.float32]
    assert ((trajectory.mask == 0) | (trajectory.mask == 1)).all()


def test_another_key_gives_other_trajectories(case):
    first, second = case.sample(1, 2), case.sample(1, 2, KEY._replace(iteration=5))
    assert not torch.equal(first.actions, second.actions)


class Crowded:
    """A policy that takes its time, and counts how many threads compute actions at once."""

    is_recurrent = False

    def __init__(self, policy):
        self._policy, self._counting = policy, threading.Lock()
        self._present, self.most = 0, 0

    def start(self, params, num_episodes):
        return ()

    def step(self, params, memory, observation, previous):
        with self._counting:
            self._present += 1
            self.most = max(self.most, self._present)
        time.sleep(0.002)  # [s]
        with self._counting:
            self._present -= 1
        return self._policy.step(params, memory, observation, previous)


@pytest.mark.parametrize("num_threads", [2, 4])
def test_half_of_the_threads_compute_actions_while_other_physics_steps(num_threads):
    most = {}
    for env_id in ("maml/HalfCheetahVel-rllab-v0", "maml/Navigation2D-v0"):
        case = Case(env_id)
        network = Crowded(case.policy)
        case.actor = case.actor._replace(network=network)
        case.sample(num_threads, 1)
        most[env_id] = network.most
    assert list(most.values()) == [num_threads // 2, num_threads]


def test_an_oracle_s_threads_take_turns_as_those_of_what_it_wraps_do():
    for env_id, expected in (("maml/HalfCheetahVel-rllab-v0", True), ("maml/Navigation2D-v0", False)):
        assert steps_unlocked(Oracle(gymnasium.make_vec(env_id, num_envs=1))) is expected


def test_fewer_tasks_than_threads(case):
    threads = Threads(3)
    sampler = LocalSampler(case.recipe(2), threads)
    alone = sampler.sample(case.tasks[:1], case.actor.take_tasks(0, 1), KEY)
    sampler.close()
    threads.close()
    assert_bit_equal(alone, take_tasks(case.sample(1, 2), 0, 1))


def test_closing_closes_every_environment(case):
    closed = []

    def make_env(num_envs):
        env = case.make_env(num_envs)
        close = env.close
        env.close = lambda: (closed.append(env), close())
        return env

    threads = Threads(2)
    sampler = LocalSampler(recipe_for(make_env, case.policy, 1, HORIZON), threads)
    sampler.sample(case.tasks, case.actor, KEY)
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
    policy = gaussian(1, 1)
    recipe = recipe_for(lambda n: VectorFromSingle(Slippery, n), policy, 2, 5)
    sampler = LocalSampler(recipe, Threads(1))
    with pytest.raises(SamplingError, match=r"^task 3, episode 0, step 1: ZeroDivisionError: no friction") as caught:
        sampler.sample(range(5), Actor(policy, own_params(policy, 5)), KEY)
    (note,) = caught.value.__notes__
    seeds = episode_noise(KEY, 3, 1, recipe.shape, recipe.actions).reset_seeds
    assert note.startswith(f"in this process, task 3 (3) under {KEY}; episodes were reset with the seeds {seeds}:\n")
    assert 'raise ZeroDivisionError("no friction")' in note


class Wandering(gymnasium.Env):
    """An environment of a user's that ends after 2 to 7 steps, and counts its copies."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Discrete(3, start=2)
    horizon, task = 7, 0.0
    alive = most = 0

    def __init__(self):
        cls = type(self)
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)

    def sample_tasks(self, num_tasks, rng):
        return rng.normal(size=num_tasks).tolist()

    def set_task(self, task):
        self.task = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.place = int(self.np_random.integers(2, 8)), self.np_random.normal(size=2)
        return self.place.astype(np.float32), {}

    def step(self, action):
        assert action in self.action_space
        self.left -= 1
        self.place = self.place + self.np_random.normal(size=2) + 0.1 * float(action)
        reward = -abs(float(self.place[0]) - self.task)
        return self.place.astype(np.float32), reward, self.left == 0, False, {}

    def close(self):
        type(self).alive -= 1


def copies(num_envs, is_oracle=False):
    env = VectorFromSingle(Wandering, num_envs)
    return Oracle(env) if is_oracle else env


@pytest.fixture
def count():
    Wandering.alive = Wandering.most = 0
    yield Wandering
    assert Wandering.alive == 0  # whatever was made has been closed


def sample_copies(numbers_of_tasks, num_threads, max_envs, is_oracle=False, num_episodes=3):
    """Trajectories of so many tasks, one sampling after the other, by one sampler."""
    policy = categorical(2 + is_oracle, 3)
    tasks = np.random.default_rng(1).normal(size=max(numbers_of_tasks)).tolist()
    actor, threads = Actor(policy, own_params(policy, len(tasks))), Threads(num_threads)
    recipe = recipe_for(functools.partial(copies, is_oracle=is_oracle), policy, num_episodes, 7)
    sampler = LocalSampler(recipe, threads, max_envs=max_envs)
    found = [sampler.sample(tasks[:n], actor.take_tasks(0, n), KEY) for n in numbers_of_tasks]
    sampler.close()
    threads.close()
    return found


@pytest.mark.parametrize("is_oracle", [False, True])
@pytest.mark.parametrize(
    ("num_threads", "max_envs"), [(1, 3), (1, 6), (1, 100), (2, 6), (2, 13), (3, 18), (3, 7), (2, 1)]
)
def test_bit_equal_for_any_bound_of_the_copies(num_threads, max_envs, is_oracle, count):
    numbers = [5, 7, 2, 5]
    expected = sample_copies(numbers, 1, None, is_oracle)
    lengths = expected[0].mask.sum(dim=-1)
    assert lengths.min() < lengths.max()
    count.most = 0
    for trajectory, wanted in zip(sample_copies(numbers, num_threads, max_envs, is_oracle), expected, strict=True):
        assert_bit_equal(trajectory, wanted)
    assert count.most <= max(max_envs, 3)  # but never fewer than a task has episodes


def test_without_a_bound_there_are_as_many_copies_as_episodes(count):
    sample_copies([5], 1, None)
    assert count.most == 5 * 3


@pytest.mark.parametrize(("num_threads", "max_envs"), [(2, 12), (2, 13), (3, 30), (4, 12)])
def test_blocks_are_as_equal_as_can_be_and_within_the_bound(num_threads, max_envs):
    threads = Threads(num_threads)
    sampler = LocalSampler(recipe_for(copies, categorical(2, 3), 3, 7), threads, max_envs=max_envs)
    for num_tasks in range(1, 50):
        blocks = sampler._blocks(num_tasks)
        sizes = [stop - start for start, stop in blocks]
        assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])] and blocks[-1][1] == num_tasks
        assert 1 <= min(sizes) >= max(sizes) - 1
        assert max(sizes) * 3 * num_threads <= max_envs
    sampler.close()
    threads.close()


def test_after_an_error_the_environment_is_made_anew(count, monkeypatch):
    policy = categorical(2, 3)
    actor = Actor(policy, stack(policy.init(torch.Generator().manual_seed(0)), 4))
    sampler = LocalSampler(recipe_for(copies, policy, 2, 7), Threads(1), max_envs=8)
    wanted = sampler.sample([0.0] * 4, actor, KEY)
    first = list(sampler._all_envs)
    with monkeypatch.context() as patch:
        patch.setattr(Wandering, "step", lambda self, action: 1 / 0)
        with pytest.raises(SamplingError, match="ZeroDivisionError"):
            sampler.sample([0.0] * 4, actor, KEY)
    assert count.alive == 0
    assert_bit_equal(sampler.sample([0.0] * 4, actor, KEY), wanted)
    assert sampler._all_envs[0] is not first[0]
    sampler.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes_per_task": 0}, "episodes_per_task must be at least 1, got 0"),
        ({"horizon": 0}, "horizon must be at least 1 step, got 0"),
        ({"num_workers": 0}, "num_workers must be at least 1, or left out for one per core, got 0"),
        ({"task_timeout": float("inf")}, r"task_timeout must be positive and finite \[s\], got inf"),
        ({"ray_address": "head"}, "ray_address must be auto or host:port, got 'head'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)
