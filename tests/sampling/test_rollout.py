import gymnasium
import numpy as np
import pytest
import torch
from players import (
    RecurrentPolicy,
    assert_bit_equal,
    categorical,
    gaussian,
    own_params,
    recipe_for,
)
from push import EdgeVectorEnv, Place

import envs  # noqa: F401 - registers the ids
from envs.task_env import SimulationError
from envs.tasks import Goal
from maml_rl.core.contracts import Actor
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import stack, take_tasks
from maml_rl.policies.gaussian import Gaussian
from maml_rl.policies.policy import PolicySpec
from maml_rl.policies.scale import ObservationScale
from maml_rl.sampling.local import LocalSampler
from maml_rl.sampling.processes import ProcessCrew
from maml_rl.sampling.rollout import action_mapping, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import SamplingError, blank_trajectory
from maml_rl.sampling.work import WorkSampler

KEY = Key(1, TRAINING, 0)


class FakeEnv:
    """An environment of one observation (the step number) that keeps what it is given; rewards count 1, 2, 3, ..."""

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
    policy = gaussian(observation_size, len(mean), (), init_std=std)
    params = policy.init(torch.Generator())
    params["0.weight"].zero_()
    params["0.bias"] = torch.tensor(mean)
    return policy, params


def play(env, policy, params, tasks, num_episodes, horizon, first_task=0, **settings):
    recipe = recipe_for(None, policy, num_episodes, horizon, **settings)
    noise = episode_noise(KEY, first_task, len(tasks), recipe.shape, recipe.actions)
    out, actor = blank_trajectory(len(tasks), recipe.shape), Actor(policy, stack(params, len(tasks)))
    memory = rollout(recipe.stage(env), actor, tasks, noise, out, first_task)
    return out._replace(memory=memory)


def box(low, high):
    return gymnasium.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


def test_actions_are_stored_as_drawn_and_reach_the_environment_scaled_and_clipped():
    # Bounds -2 .. 6 have the centre 2 and the half width 4: 0.5 becomes 4; 3 is clipped to 1 and becomes 6.
    # Bounds -1 .. 1 leave -0.25 as it is.
    env = FakeEnv(2, box([-2, -2, -1], [6, 6, 1]))
    policy, params = constant_policy(0.5, 3.0, -0.25)
    out = play(env, policy, params, ["a"], num_episodes=2, horizon=3)
    torch.testing.assert_close(out.actions, torch.tensor([0.5, 3.0, -0.25]).expand(1, 2, 3, 3), atol=1e-4, rtol=0)
    np.testing.assert_allclose(np.array(env.actions), np.broadcast_to([4.0, 6.0, -0.25], (3, 2, 3)), atol=1e-4)


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


def test_indices_reach_a_discrete_environment_from_its_start_on():
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
    env = FakeEnv(6, box([-1], [1]))
    policy, params = constant_policy(0.0)
    play(env, policy, params, ["a", "b"], num_episodes=3, horizon=2, first_task=4)
    assert env.tasks == ["a", "a", "a", "b", "b", "b"]
    recipe = recipe_for(None, policy, num_episodes=3, horizon=2)
    assert env.seed == episode_noise(KEY, 4, 2, recipe.shape, recipe.actions).reset_seeds


def test_a_finished_episode_is_not_stepped_and_its_rows_are_zero_and_masked():
    # Tasks a, b with two episodes each, of 1, 3, 4 (the horizon) and 2 steps.
    lengths = (1, 3, 10, 2)
    env = FakeEnv(4, box([-1], [1]), lengths=lengths)
    policy, params = constant_policy(0.5)
    out = play(env, policy, params, ["a", "b"], num_episodes=2, horizon=4)
    for row, length in enumerate(lengths):
        task, episode = divmod(row, 2)
        for t in range(4):
            was_taken = t < length
            assert env.alive[t][row] == was_taken
            assert out.mask[task, episode, t] == was_taken
            assert out.rewards[task, episode, t] == (t + 1 if was_taken else 0)
            assert out.observations[task, episode, t] == (t if was_taken else 0)
            assert (out.actions[task, episode, t] != 0).all() == was_taken
    assert out.terminated.tolist() == [[True, True], [False, True]]


def test_nothing_is_stepped_after_the_last_episode_has_ended():
    env = FakeEnv(2, box([-1], [1]), lengths=(1, 2))
    policy, params = constant_policy(0.5)
    play(env, policy, params, ["a"], num_episodes=2, horizon=50)
    assert len(env.actions) == 2


def test_reaching_the_goal_ends_an_episode_of_navigation():
    # Half of the largest move (0.05 m) to the right each step: the goals lie 1, 2 and never on the way; the
    # last is run into the horizon. The reward of the last step is a distance of 0.
    tasks = [Goal(0.05, 0.0), Goal(0.1, 0.0), Goal(0.0, 0.5)]
    policy, params = constant_policy(0.5, 0.0, observation_size=2)
    env = gymnasium.make_vec("maml/Navigation2D-v0", num_envs=6, horizon=7)
    out = play(env, policy, params, tasks, num_episodes=2, horizon=7)
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
    env = gymnasium.make_vec(f"maml/AntDir-{physics}-v0", num_envs=16)
    size = env.single_observation_space.shape[0]
    policy, params = constant_policy(*[0.0] * 8, observation_size=size, std=1.0)
    out = play(env, policy, params, env.sample_tasks(2, np.random.default_rng(0)), num_episodes=8, horizon=200)
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
    env = FakeEnv(8, box([-1], [1]), fail_at=2, error=SimulationError(5, "the leg fell off"))
    policy, params = constant_policy(0.5)
    with pytest.raises(SamplingError, match="task 8, episode 1, step 2: the leg fell off") as caught:
        play(env, policy, params, ["a", "b"], num_episodes=4, horizon=6, first_task=7)
    assert (caught.value.task, caught.value.episode) == (8, 1)
    assert isinstance(caught.value.__cause__, SimulationError)


def test_an_error_that_knows_no_sub_environment_comes_as_it_is():
    env = FakeEnv(1, box([-1], [1]), fail_at=1, error=RuntimeError("out of memory"))
    policy, params = constant_policy(0.5)
    with pytest.raises(RuntimeError, match=r"^out of memory$") as caught:
        play(env, policy, params, ["a"], num_episodes=1, horizon=6)
    assert caught.value.__cause__ is not caught.value


class Overflowing(FakeEnv):
    """An environment in which one sub-environment of eight returns a number that is not finite, once."""

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
    policy = gaussian(1, 1, width)
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
    recipe = recipe_for(lambda n: gymnasium.make_vec("maml/Navigation2D-v0", num_envs=n), policy, 2, 100)
    sampler = LocalSampler(recipe, Threads(1))
    with pytest.raises(SamplingError, match=r"task 1, episode 0, step 0: policy output is not finite") as caught:
        sampler.sample([Goal(0.1, 0.2)] * 2, Actor(policy, stacked), KEY)
    sampler.close()
    assert (caught.value.task, caught.value.episode) == (1, 0)


def test_parameters_that_are_not_finite_stop_the_sampling_of_discrete_actions():
    policy = categorical(1, 3, ())
    params = {name: torch.full_like(p, float("nan")) for name, p in policy.init(torch.Generator()).items()}
    env = FakeEnv(2, gymnasium.spaces.Discrete(3))
    with pytest.raises(SamplingError, match=r"task 0, episode 0, step 0: .*not finite"):
        play(env, policy, params, ["a"], num_episodes=2, horizon=3)


class SometimesDone(FakeEnv):
    """An environment in which each sub-environment has success at one step alone."""

    def __init__(self, moments, lengths):
        super().__init__(len(moments), box([-1], [1]), lengths)
        self._moments = np.array(moments)

    def step(self, actions, alive=None):
        *step, _ = super().step(actions, alive)
        return *step, {"success": (self._moments == len(self.actions)).astype(float)}


def test_success_at_any_step_of_an_episode_counts_and_none_after_its_end():
    # Episodes of 3 steps: done at the first, the last, the step after the end, never.
    env = SometimesDone(moments=[1, 3, 4, 99, 2, 99], lengths=[3, 3, 3, 3, 6, 6])
    policy, params = constant_policy(0.0)
    out = play(env, policy, params, ["a", "b"], num_episodes=3, horizon=6, reports_success=True)
    assert out.successes.shape == (2, 3, 1)
    assert out.successes.flatten().tolist() == [True, True, False, False, True, False]


def test_environments_that_report_no_success_leave_no_column():
    policy, params = constant_policy(0.0)
    out = play(FakeEnv(2, box([-1], [1])), policy, params, ["a"], num_episodes=2, horizon=3)
    assert out.successes.shape == (1, 2, 0)


# --- how an episode ends -------------------------------------------------------------------------------------------


class Timed(FakeEnv):
    """An environment with a clock for every sub-environment."""

    def __init__(self, lengths, limits):
        super().__init__(len(lengths), box([-1], [1]), lengths)
        self._limits = np.array(limits)

    def step(self, actions, alive=None):
        observations, rewards, terminated, _, infos = super().step(actions, alive)
        return observations, rewards, terminated, self._limits == len(self.actions), infos


def test_the_environment_s_end_and_the_clock_s_are_kept_apart():
    # Ends at step 2; the environment's clock at 3; both at 2; the end at 4, the horizon; the horizon, no clock.
    never = 99
    env = Timed(lengths=[2, never, 2, 4, never], limits=[never, 3, 2, never, never])
    policy, params = constant_policy(0.0)
    out = play(env, policy, params, ["a"], num_episodes=5, horizon=4)
    assert out.mask.sum(dim=-1).tolist() == [[2, 3, 2, 4, 4]]
    assert out.terminated.tolist() == [[True, False, True, True, False]]
    assert out.truncated.tolist() == [[False, True, True, False, True]]


def test_the_last_observation_is_the_one_after_an_episode_s_last_step_as_the_actor_would_see_it():
    lengths, policy, params = (2, 10, 4, 1), *constant_policy(0.0)
    out = play(FakeEnv(4, box([-1], [1]), lengths), policy, params, ["a", "b"], num_episodes=2, horizon=4)
    assert out.last_observations.tolist() == [[[2.0], [4.0]], [[4.0], [1.0]]]
    scale = ObservationScale((1.0,), (0.5,))
    env = FakeEnv(4, box([-1], [1]), lengths)
    out = play(env, policy, params, ["a", "b"], num_episodes=2, horizon=4, scale=scale)
    assert out.last_observations.tolist() == [[[2.0], [6.0]], [[6.0], [0.0]]]
    assert out.observations[0, 1].tolist() == [[-2.0], [0.0], [2.0], [4.0]]


# --- actors with a memory ------------------------------------------------------------------------------------------


class Spy:
    """A recurrent network that keeps what it was told, acts otherwise at every step, and counts steps in its memory."""

    is_recurrent = True

    def __init__(self):
        self.spec = PolicySpec(1, Gaussian(1, init_std=1.0, min_std=1e-6))
        self.told, self.num_starts = [], 0

    def start(self, params, num_episodes):
        self.num_starts += 1
        return {"steps": torch.zeros(len(params["log_std"]), num_episodes, 1)}

    def step(self, params, memory, observation, previous):
        self.told.append(previous)
        outputs = torch.full((*observation.shape[:2], 2), 0.01 * len(self.told))
        return outputs, {"steps": memory["steps"] + 1}


class Episodes(FakeEnv):
    """An environment whose episodes have given lengths, and whose rewards count 1, 2, 3, ... over all of them."""

    def __init__(self, lengths):
        """lengths: for each reset, of every sub-environment's episode."""
        super().__init__(len(lengths[0]), box([-1], [1]))
        self._to_come, self._elapsed, self.seeds = list(lengths), 0, []

    def reset(self, *, seed=None, options=None):
        self._now, self._elapsed = np.array(self._to_come.pop(0)), 0
        self.seeds.append(seed)
        return super().reset(seed=seed)

    def step(self, actions, alive=None):
        self._elapsed += 1
        observations, rewards, _, truncated, infos = super().step(actions, alive)
        return observations, rewards, self._now == self._elapsed, truncated, infos


SPY_PARAMS = {"log_std": torch.zeros(1)}


def test_in_a_row_the_memory_lasts_and_the_last_episode_s_end_is_known_at_the_next_one_s_beginning():
    lengths = torch.tensor([[2, 4, 3], [4, 1, 3]])  # [task, episode]
    env, spy = Episodes(lengths.T.tolist()), Spy()
    out = play(env, spy, SPY_PARAMS, ["a", "b"], num_episodes=3, horizon=4, in_a_row=True)
    assert torch.equal(out.mask.sum(dim=-1), lengths.float())
    assert spy.num_starts == 1 and env.tasks == ["a", "b"]
    assert out.memory["steps"].tolist() == [[[9.0]], [[8.0]]]  # the steps that each task has taken

    told = iter(spy.told)
    expected = [(0.0, 0.0)] * 2  # nothing has happened yet
    for episode in range(3):
        for t in range(int(lengths[:, episode].max())):
            previous = next(told)
            for task in range(2):
                if t < lengths[task, episode]:
                    found = previous.actions[task, 0, 0].item(), previous.rewards[task, 0].item()
                    assert found == expected[task] and previous.begins[task, 0] == (t == 0)
                    action, reward = out.actions[task, episode, t, 0].item(), out.rewards[task, episode, t].item()
                    expected[task] = action, reward
    assert next(told, None) is None
    assert len(set(out.actions[out.mask == 1].flatten().tolist())) == 17  # so that nothing could be confused


def test_side_by_side_every_episode_begins_with_nothing():
    lengths = torch.tensor([[2, 4, 3], [4, 1, 3]])
    env, spy = Episodes([lengths.flatten().tolist()]), Spy()
    out = play(env, spy, SPY_PARAMS, ["a", "b"], num_episodes=3, horizon=4)
    assert torch.equal(out.memory["steps"].squeeze(-1), lengths.float())
    first, *later = spy.told
    assert not first.actions.any() and not first.rewards.any() and first.begins.all()
    for t, previous in enumerate(later, start=1):
        alive = t < lengths
        assert not previous.begins.any()
        assert torch.equal(previous.actions[alive], out.actions[:, :, t - 1][alive])
        assert torch.equal(previous.rewards[alive].double(), out.rewards[:, :, t - 1][alive])


def test_in_a_row_every_episode_has_the_seed_and_the_noise_that_it_has_side_by_side():
    env, spy = Episodes([[2, 4], [4, 1], [3, 3]]), Spy()
    out = play(env, spy, SPY_PARAMS, ["a", "b"], num_episodes=3, horizon=4, first_task=5, in_a_row=True)
    recipe = recipe_for(None, spy, num_episodes=3, horizon=4)
    noise = episode_noise(KEY, 5, 2, recipe.shape, recipe.actions)
    assert np.array_equal(np.transpose(env.seeds), np.reshape(noise.reset_seeds, (2, 3)))
    # outputs are 0.01 of the number of calls, for mean and for log deviation; the second task begins its third episode
    # at the ninth call
    level = torch.tensor(0.09)
    drawn = level + level.exp() * torch.from_numpy(noise.actions).view(4, 2, 3)[0, 1, 2]
    torch.testing.assert_close(out.actions[1, 2, 0, 0], drawn)


def test_an_error_in_a_later_episode_names_it():
    # In a row the second episode begins after four calls, and is the only one at that time.
    env = FakeEnv(2, box([-1], [1]), fail_at=6, error=SimulationError(1, "the leg fell off"))
    with pytest.raises(SamplingError, match="task 8, episode 1, step 2: the leg fell off") as caught:
        play(env, Spy(), SPY_PARAMS, ["a", "b"], num_episodes=3, horizon=4, first_task=7, in_a_row=True)
    assert (caught.value.task, caught.value.episode) == (8, 1)


RECURRENT = RecurrentPolicy(PolicySpec(3, Gaussian(1, init_std=1.0, min_std=1e-6)), hidden_size=7)
NUM_TASKS, NUM_EPISODES, HORIZON = 5, 4, 10


def recurrent_recipe(in_a_row):
    return recipe_for(EdgeVectorEnv, RECURRENT, NUM_EPISODES, HORIZON, in_a_row=in_a_row)


def recurrent_tasks():
    return [Place(0.1 * i) for i in range(NUM_TASKS)], Actor(RECURRENT, own_params(RECURRENT, NUM_TASKS))


def sample_recurrent(in_a_row, num_threads=1, max_envs=None):
    threads = Threads(num_threads)
    sampler = LocalSampler(recurrent_recipe(in_a_row), threads, max_envs)
    trajectory = sampler.sample(*recurrent_tasks(), KEY)
    sampler.close()
    threads.close()
    return trajectory


both_ways = pytest.mark.parametrize("in_a_row", [False, True])


@both_ways
@pytest.mark.parametrize(("num_threads", "max_envs"), [(2, None), (3, None), (1, 4), (2, 8), (2, 1)])
def test_recurrent_episodes_are_bit_equal_for_any_number_of_threads_and_blocks(in_a_row, num_threads, max_envs):
    expected = sample_recurrent(in_a_row)
    lengths = expected.mask.sum(dim=-1)
    assert lengths.min() < lengths.max() == HORIZON
    assert expected.memory.shape == (NUM_TASKS, 1 if in_a_row else NUM_EPISODES, RECURRENT.hidden_size)
    assert_bit_equal(sample_recurrent(in_a_row, num_threads, max_envs), expected)


@both_ways
def test_a_task_s_recurrent_episodes_do_not_depend_on_the_tasks_beside_it(in_a_row):
    together, recipe, (tasks, actor) = sample_recurrent(in_a_row), recurrent_recipe(in_a_row), recurrent_tasks()
    for start, stop in ((0, 1), (1, 3), (3, 5)):
        block = blank_trajectory(stop - start, recipe.shape)
        noise = episode_noise(KEY, start, stop - start, recipe.shape, recipe.actions)
        stage = recipe.stage(recipe.make_env((stop - start) * recipe.at_once))
        memory = rollout(stage, actor.take_tasks(start, stop), tasks[start:stop], noise, block, start)
        assert_bit_equal(block._replace(memory=memory), take_tasks(together, start, stop))


@both_ways
def test_recurrent_episodes_are_bit_equal_in_processes(in_a_row):
    recipe = recurrent_recipe(in_a_row)
    sampler = WorkSampler(ProcessCrew(recipe, 2, 100.0), recipe)
    try:
        assert_bit_equal(sampler.sample(*recurrent_tasks(), KEY), sample_recurrent(in_a_row))
    finally:
        sampler.close()


def test_only_the_first_of_episodes_in_a_row_is_played_as_side_by_side():
    row, side = sample_recurrent(in_a_row=True), sample_recurrent(in_a_row=False)
    torch.testing.assert_close(row.actions[:, 0], side.actions[:, 0])
    torch.testing.assert_close(row.observations[:, 1:, 0], side.observations[:, 1:, 0])  # by the same seeds
    assert not torch.isclose(row.actions[:, 1:, 0], side.actions[:, 1:, 0]).any()
