import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401 - registers the ids
from envs.task_env import SimulationError
from envs.tasks import Goal
from maml_rl.core.lift import Threads
from maml_rl.core.params import stack
from maml_rl.core.protocols import TRAINING, Key
from maml_rl.policies import CategoricalPolicy, GaussianPolicy, PolicyConfig
from maml_rl.sampling.local import LocalSampler
from maml_rl.sampling.rollout import action_mapping, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import SamplingError, blank_trajectory

KEY = Key(1, TRAINING, 0)


class FakeWorld:
    """A world of one observation (the step number) that keeps what it is given; rewards count 1, 2, 3, ..."""

    def __init__(self, num_envs, action_space, lengths=None, fail_at=None, error=None):
        """
        Args:
            lengths: steps after which each sub-environment terminates.
            fail_at: step at which `error` is raised.
        """
        self.num_envs, self.single_action_space = num_envs, action_space
        self.actions, self.alive, self.tasks, self.seed = [], [], None, None
        self._lengths = np.array(lengths if lengths is not None else [10**6] * num_envs)
        self._fail_at, self._error = fail_at, error

    def set_tasks(self, tasks):
        self.tasks = list(tasks)

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        return np.zeros((self.num_envs, 1)), {}

    def step(self, actions, alive=None):
        if len(self.actions) == self._fail_at:
            raise self._error
        alive = np.ones(self.num_envs, dtype=bool) if alive is None else alive.copy()
        self.actions.append(actions.copy())
        self.alive.append(alive)
        steps = len(self.actions)
        observations = np.full((self.num_envs, 1), float(steps)) * alive[:, None]
        rewards = np.full(self.num_envs, float(steps)) * alive
        terminated = (self._lengths == steps) & alive
        return observations, rewards, terminated, np.zeros(self.num_envs, dtype=bool), {}

    def close(self):
        pass


def constant_policy(*mean, observation_size=1, std=1e-6):
    """A Gaussian policy that always means the same action, and its parameters."""
    policy = GaussianPolicy(observation_size, len(mean), PolicyConfig(hidden_sizes=(), init_std=std))
    params = policy.init(torch.Generator())
    params["0.weight"].zero_()
    params["0.bias"] = torch.tensor(mean)
    return policy, params


def play(world, policy, params, tasks, num_episodes, horizon, first_task=0, reports_success=False):
    noise = episode_noise(KEY, first_task, len(tasks), num_episodes, horizon, policy)
    shape = (len(tasks), num_episodes, horizon)
    out = blank_trajectory(*shape, policy, reports_success)
    rollout(world, policy, stack(params, len(tasks)), tasks, noise, out, first_task)
    return out


def box(low, high):
    return gymnasium.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


def test_actions_are_stored_as_drawn_and_reach_the_world_scaled_and_clipped():
    # Bounds -2 .. 6 have the centre 2 and the half width 4: 0.5 becomes 4; 3 is clipped to 1 and becomes 6.
    # Bounds -1 .. 1 leave -0.25 as it is.
    world = FakeWorld(2, box([-2, -2, -1], [6, 6, 1]))
    policy, params = constant_policy(0.5, 3.0, -0.25)
    out = play(world, policy, params, ["a"], num_episodes=2, horizon=3)
    torch.testing.assert_close(out.actions, torch.tensor([0.5, 3.0, -0.25]).expand(1, 2, 3, 3), atol=1e-4, rtol=0)
    np.testing.assert_allclose(np.array(world.actions), np.broadcast_to([4.0, 6.0, -0.25], (3, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("bounds", [([-1, -1], [1, 1]), ([-0.1, 0], [0.1, 10]), ([-1, -3], [1, -2])])
def test_the_policy_s_unit_interval_is_the_box(bounds):
    low, high = (np.array(bound, np.float32) for bound in bounds)
    to_env = action_mapping(box(low, high))
    for unit, bound in ((-1.0, low), (-7.0, low), (1.0, high), (7.0, high), (0.0, (low + high) / 2)):
        np.testing.assert_allclose(to_env(torch.full((1, 2), unit))[0], bound, rtol=1e-6)


def test_actions_of_several_axes_take_the_box_s_shape():
    low, high = np.array([[-1, 0, 1], [-2, -4, 0]], np.float32), np.array([[1, 1, 3], [2, 4, 8]], np.float32)
    unit = torch.tensor([[1.0, 1.0, -1.0, 0.5, 0.0, -1.0], [0.0] * 6])
    assert action_mapping(box(low, high))(unit)[0].tolist() == [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    for bound in (np.ones((2, 3), np.float32), np.float32(1.0)):
        mapped = action_mapping(box(-bound, bound))(unit[:, : bound.size])
        assert mapped.shape == (2, *bound.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_action_lies_in_the_box_to_the_last_bit(dtype):
    # -0.1 + 0.4 and the like round past the bound in single precision
    rng = np.random.default_rng(0)
    low = rng.uniform(-1.0, 0.0, 200).astype(dtype)
    space = gymnasium.spaces.Box(low, (low + rng.uniform(0.0, 2.0, 200)).astype(dtype), dtype=dtype)
    for unit in (-1.0, 0.3, 1.0):
        assert space.contains(action_mapping(space)(torch.full((1, 200), unit))[0])


def test_indices_reach_a_discrete_world_from_its_start_on():
    to_env = action_mapping(gymnasium.spaces.Discrete(3, start=5))
    assert to_env(torch.tensor([[0.0], [2.0]])).tolist() == [5, 7]
    assert to_env(torch.tensor([[0.0]])).dtype == np.int64


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (gymnasium.spaces.MultiDiscrete([2, 3, 5]), [1, 2, 4]),
        (gymnasium.spaces.MultiDiscrete([2, 3, 5], start=[7, -2, 0]), [8, 0, 4]),
        (gymnasium.spaces.MultiDiscrete([[2, 3, 5]], dtype=np.int32), [[1, 2, 4]]),
        (gymnasium.spaces.MultiBinary((3, 1)), [[1], [0], [1]]),
    ],
)
def test_several_indices_take_the_space_s_shape_and_type(space, expected):
    chosen = [1.0, 0.0, 1.0] if isinstance(space, gymnasium.spaces.MultiBinary) else [1.0, 2.0, 4.0]
    actions = action_mapping(space)(torch.tensor([chosen, [0.0, 0.0, 0.0]]))
    assert actions[0].tolist() == expected and actions.dtype == space.dtype
    assert all(space.contains(action) for action in actions)


def test_tasks_are_repeated_for_their_episodes_and_seeds_are_the_key_s():
    world = FakeWorld(6, box([-1], [1]))
    policy, params = constant_policy(0.0)
    play(world, policy, params, ["a", "b"], num_episodes=3, horizon=2, first_task=4)
    assert world.tasks == ["a", "a", "a", "b", "b", "b"]
    assert world.seed == episode_noise(KEY, 4, 2, 3, 2, policy).reset_seeds


def test_a_finished_episode_is_not_stepped_and_its_rows_are_zero_and_masked():
    # Tasks a, b with two episodes each, of 1, 3, 4 (the horizon) and 2 steps.
    lengths = (1, 3, 10, 2)
    world = FakeWorld(4, box([-1], [1]), lengths=lengths)
    policy, params = constant_policy(0.5)
    out = play(world, policy, params, ["a", "b"], num_episodes=2, horizon=4)
    for row, length in enumerate(lengths):
        task, episode = divmod(row, 2)
        for t in range(4):
            was_taken = t < length
            assert world.alive[t][row] == was_taken
            assert out.mask[task, episode, t] == was_taken
            assert out.rewards[task, episode, t] == (t + 1 if was_taken else 0)
            assert out.observations[task, episode, t] == (t if was_taken else 0)
            assert (out.actions[task, episode, t] != 0).all() == was_taken
    assert out.terminated.tolist() == [[True, True], [False, True]]


def test_nothing_is_stepped_after_the_last_episode_has_ended():
    world = FakeWorld(2, box([-1], [1]), lengths=(1, 2))
    policy, params = constant_policy(0.5)
    play(world, policy, params, ["a"], num_episodes=2, horizon=50)
    assert len(world.actions) == 2


def test_reaching_the_goal_ends_an_episode_of_navigation():
    # Half of the largest move (0.05 m) to the right each step: the goals lie 1, 2 and never on the way; the
    # last is run into the horizon. The reward of the last step is a distance of 0.
    tasks = [Goal(0.05, 0.0), Goal(0.1, 0.0), Goal(0.0, 0.5)]
    policy, params = constant_policy(0.5, 0.0, observation_size=2)
    world = gymnasium.make_vec("maml/Navigation2D-v0", num_envs=6, horizon=7)
    out = play(world, policy, params, tasks, num_episodes=2, horizon=7)
    assert out.mask.sum(dim=-1).tolist() == [[1, 1], [2, 2], [7, 7]]
    assert out.terminated.tolist() == [[True, True], [True, True], [False, False]]
    masked = out.mask == 0
    for rows in (out.observations, out.actions, out.rewards):
        assert (rows[masked] == 0).all()
    assert out.rewards[1, 0, :2].tolist() == pytest.approx([-0.05, 0.0], abs=1e-5)
    torch.testing.assert_close(out.observations[1, 0, 1], torch.tensor([0.05, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("physics", ["rllab", "gym"])
def test_an_ant_that_falls_ends_its_episode(physics):
    # random torques topple some of the ants well before 200 steps and leave others on their feet
    world = gymnasium.make_vec(f"maml/AntDir-{physics}-v0", num_envs=16)
    size = world.single_observation_space.shape[0]
    policy, params = constant_policy(*[0.0] * 8, observation_size=size, std=1.0)
    out = play(world, policy, params, world.sample_tasks(2, np.random.default_rng(0)), num_episodes=8, horizon=200)
    lengths = out.mask.sum(dim=-1).long()
    assert out.terminated.any() and not out.terminated.all()
    assert torch.equal(out.terminated, lengths < 200)
    steps = torch.arange(200)
    assert torch.equal(out.mask, (steps < lengths[..., None]).float())
    for rows in (out.observations, out.actions, out.rewards):
        assert (rows[out.mask == 0] == 0).all()
    # every state acted upon was one in which the ant stood
    height = out.observations[..., 2 if physics == "rllab" else 0][out.mask == 1]
    assert ((height >= 0.2) & (height <= 1.0)).all()


def test_an_error_names_task_episode_and_step():
    # Sub-environment 5 of tasks 7, 8 with four episodes each is episode 1 of task 8.
    world = FakeWorld(8, box([-1], [1]), fail_at=2, error=SimulationError(5, "the leg fell off"))
    policy, params = constant_policy(0.5)
    with pytest.raises(SamplingError, match="task 8, episode 1, step 2: the leg fell off") as caught:
        play(world, policy, params, ["a", "b"], num_episodes=4, horizon=6, first_task=7)
    assert (caught.value.task, caught.value.episode) == (8, 1)
    assert isinstance(caught.value.__cause__, SimulationError)


def test_an_error_that_knows_no_sub_environment_comes_as_it_is():
    world = FakeWorld(1, box([-1], [1]), fail_at=1, error=RuntimeError("out of memory"))
    policy, params = constant_policy(0.5)
    with pytest.raises(RuntimeError, match=r"^out of memory$") as caught:
        play(world, policy, params, ["a"], num_episodes=1, horizon=6)
    assert caught.value.__cause__ is not caught.value


class Overflowing(FakeWorld):
    """A world in which one sub-environment of eight returns a number that is not finite, once."""

    def __init__(self, what, moment, value, lengths=None):
        """
        Args:
            what: "observation" or "reward", of sub-environment 5.
            moment: number of the call of step; -1 for reset.
        """
        super().__init__(8, box([-1], [1]), lengths)
        self._what, self._moment, self._value = what, moment, value

    def reset(self, *, seed=None, options=None):
        observations, infos = super().reset(seed=seed)
        return self._changed("observation", -1, observations), infos

    def step(self, actions, alive=None):
        moment = len(self.actions)
        observations, rewards, *rest = super().step(actions, alive)
        observations = self._changed("observation", moment, observations)
        return observations, self._changed("reward", moment, rewards), *rest

    def _changed(self, what, moment, values):
        if (what, moment) == (self._what, self._moment):
            values[5] = self._value
        return values


@pytest.mark.parametrize("width", [(), (8,)])  # tanh makes an infinite observation a finite action
@pytest.mark.parametrize(
    ("what", "moment", "value", "words"),
    [
        ("observation", -1, np.nan, "reset: observation is nan: look for a division by zero"),
        ("observation", -1, 1e39, "reset: observation is inf: look .* or for numbers beyond 3.4e38, the largest in 32"),
        ("observation", 1, np.nan, "step 1: observation is nan"),
        ("observation", 1, -1e39, "step 1: observation is -inf"),
        ("reward", 0, 1e39, "step 0: reward is inf: look for .* or for numbers beyond 3.4e38, the largest in 32 bits"),
        ("reward", 5, np.nan, "step 5: reward is nan"),
    ],
)
def test_what_an_environment_returns_is_not_blamed_on_the_policy(what, moment, value, words, width):
    policy = GaussianPolicy(1, 1, PolicyConfig(hidden_sizes=width))
    params = policy.init(torch.Generator().manual_seed(0))
    with pytest.raises(SamplingError, match=rf"^task 8, episode 1, {words}") as caught:
        play(Overflowing(what, moment, value), policy, params, ["a", "b"], num_episodes=4, horizon=6, first_task=7)
    assert (caught.value.task, caught.value.episode) == (8, 1)
    assert caught.value.__cause__ is not None  # so that samplers add the task and the seeds


def test_a_policy_that_overflows_is_told_with_the_observation_it_was_given():
    policy, params = constant_policy(0.0)
    params["0.weight"].fill_(1e30)
    words = r"step 3: policy output is not finite: \[inf, .*\], where no entry of the observation is beyond 1e\+30"
    with pytest.raises(SamplingError, match=words):
        play(Overflowing("observation", 2, 1e30), policy, params, ["a", "b"], num_episodes=4, horizon=6)


def test_parameters_that_are_not_finite_stop_the_sampling():
    policy, params = constant_policy(float("nan"), 0.0, observation_size=2)
    good = constant_policy(0.0, 0.0, observation_size=2)[1]
    stacked = {name: torch.stack([good[name], params[name]]) for name in params}
    sampler = LocalSampler(lambda n: gymnasium.make_vec("maml/Navigation2D-v0", num_envs=n), policy, 2, 100, Threads(1))
    with pytest.raises(SamplingError, match=r"task 1, episode 0, step 0: policy output is not finite") as caught:
        sampler.sample([Goal(0.1, 0.2)] * 2, stacked, KEY)
    sampler.close()
    assert (caught.value.task, caught.value.episode) == (1, 0)


def test_parameters_that_are_not_finite_stop_the_sampling_of_discrete_actions():
    policy = CategoricalPolicy(1, 3, PolicyConfig(hidden_sizes=()))
    params = {name: torch.full_like(p, float("nan")) for name, p in policy.init(torch.Generator()).items()}
    world = FakeWorld(2, gymnasium.spaces.Discrete(3))
    with pytest.raises(SamplingError, match=r"task 0, episode 0, step 0: .*not finite"):
        play(world, policy, params, ["a"], num_episodes=2, horizon=3)


class SometimesDone(FakeWorld):
    """A world in which each sub-environment has success at one step alone."""

    def __init__(self, moments, lengths):
        super().__init__(len(moments), box([-1], [1]), lengths)
        self._moments = np.array(moments)

    def step(self, actions, alive=None):
        *step, _ = super().step(actions, alive)
        return *step, {"success": (self._moments == len(self.actions)).astype(float)}


def test_success_at_any_step_of_an_episode_counts_and_none_after_its_end():
    # Episodes of 3 steps: done at the first, the last, the step after the end, never.
    world = SometimesDone(moments=[1, 3, 4, 99, 2, 99], lengths=[3, 3, 3, 3, 6, 6])
    policy, params = constant_policy(0.0)
    out = play(world, policy, params, ["a", "b"], num_episodes=3, horizon=6, reports_success=True)
    assert out.successes.shape == (2, 3, 1)
    assert out.successes.flatten().tolist() == [True, True, False, False, True, False]


def test_worlds_that_report_no_success_leave_no_column():
    policy, params = constant_policy(0.0)
    out = play(FakeWorld(2, box([-1], [1])), policy, params, ["a"], num_episodes=2, horizon=3)
    assert out.successes.shape == (1, 2, 0)
