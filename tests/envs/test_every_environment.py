"""What must hold for every registered environment, single and batched."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import envs
from envs.adapters import VectorFromSingle
from envs.checking.check import check_world
from envs.plug_in import find_world
from envs.task_env import SimulationError, TaskEnv, TaskVectorEnv

IDS = sorted(name for name in gymnasium.registry if name.startswith("maml/") and "/ML1" not in name)
NUM_ENVS = 4
SEEDS = [11, 7, 2**40, 3]
every_id = pytest.mark.parametrize("env_id", IDS)
WITH_CHOICES = ("maml/Bandit", "maml/TabularMDP")  # in place of actions that can be scaled
DETERMINISTIC_STARTS = ("maml/Navigation", *WITH_CHOICES)
HORIZONS = {"maml/Bandit": 1, "maml/TabularMDP": 10, "maml/Navigation": 100, "maml/HalfCheetah": 200, "maml/Ant": 200}
LONG = 60  # [steps], for worlds whose own horizon ends them early


def make_vec(env_id: str, num_envs: int = NUM_ENVS, **settings) -> TaskVectorEnv:
    return gymnasium.make_vec(env_id, num_envs=num_envs, **settings)


def random_actions(env: TaskVectorEnv, num_steps: int, seed: int = 0) -> np.ndarray:
    """[num_steps, n, A], float32, one and a half times as wide as the box: some are clipped. Or choices."""
    rng = np.random.default_rng(seed)
    if isinstance(env.single_action_space, gymnasium.spaces.Discrete):
        return rng.integers(env.single_action_space.n, size=(num_steps, env.num_envs))
    high = 1.5 * env.action_space.high
    return rng.uniform(-high, high, (num_steps, *high.shape)).astype(np.float32)


def no_action(env) -> np.ndarray:
    """Zeros, for one or for many."""
    return np.zeros(env.action_space.shape, env.action_space.dtype)


def run(env: TaskVectorEnv, actions: np.ndarray, seed=SEEDS) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T + 1, n, O] and rewards [T, n]; zeros after an episode's end."""
    observations, rewards = [env.reset(seed=seed)[0]], []
    alive = np.ones(env.num_envs, dtype=bool)
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action, alive=alive)
        observations.append(observation)
        rewards.append(reward)
        alive = alive & ~(terminated | truncated)
    return np.array(observations), np.array(rewards)


def reach_the_goal(env: TaskVectorEnv, row: int) -> None:
    env._positions[row] = env._goals[row]


def lift_the_torso(env: TaskVectorEnv, row: int) -> None:
    env._qpos[row, 2] = 1.5  # [m]


# how the world of those that can end is brought to its end
ENDINGS = {"maml/Navigation2D": reach_the_goal, "maml/Ant": lift_the_torso}


def test_the_ids_are_registered():
    robots = {"Ant": ("Dir", "Goal", "Vel"), "HalfCheetah": ("Dir", "Vel")}
    of_robots = [f"{body}{task}-{physics}" for body in robots for task in robots[body] for physics in ("gym", "rllab")]
    assert IDS == sorted(
        f"maml/{name}-v0"
        for name in [*of_robots, "Navigation2D", "Bandit-K5", "Bandit-K10", "Bandit-K50", "TabularMDP"]
    )


@every_id
def test_it_has_every_property(env_id):
    assert check_world(find_world(env_id), None, thorough=True) == []


@every_id
@pytest.mark.filterwarnings("ignore:.*Box observation space m.* value is .*infinity")
def test_gymnasium_checks_the_single_environment(env_id):
    env = gymnasium.make(env_id, horizon=LONG)
    assert isinstance(env.unwrapped, TaskEnv)
    check_env(env.unwrapped, skip_render_check=True)


@every_id
def test_an_integer_seed_counts_up_and_each_row_has_its_own(env_id):
    env = make_vec(env_id)
    counted, _ = env.reset(seed=5)
    listed, _ = env.reset(seed=[5, 6, 7, 8])
    np.testing.assert_array_equal(counted, listed)
    backwards, _ = env.reset(seed=[8, 7, 6, 5])
    np.testing.assert_array_equal(backwards[::-1], listed)
    if not env_id.startswith(DETERMINISTIC_STARTS):
        assert (listed[0] != listed[1]).any()
        unseeded, _ = env.reset()  # goes on with the generators
        assert (unseeded != backwards).any()


@every_id
def test_spaces_hold_and_all_is_finite(env_id):
    env = make_vec(env_id, horizon=LONG)
    env.reset(seed=0)
    alive = np.ones(NUM_ENVS, dtype=bool)
    for action in random_actions(env, 50):
        observation, reward, terminated, truncated, infos = env.step(action, alive=alive)
        assert env.observation_space.contains(observation)
        assert reward.dtype == np.float64 and reward.shape == (NUM_ENVS,) and np.isfinite(reward).all()
        assert terminated.dtype == truncated.dtype == bool
        for name in infos:
            assert infos[name].shape == (NUM_ENVS,) and np.isfinite(infos[name]).all()
        assert not truncated.any()
        assert env_id.startswith(tuple(ENDINGS)) or not terminated.any()
        alive &= ~terminated


@pytest.mark.parametrize("env_id", [name for name in IDS if name.startswith(tuple(ENDINGS))])
def test_a_world_that_ends_is_left_while_the_others_go_on(env_id):
    env, twin = make_vec(env_id), make_vec(env_id)
    end = next(ENDINGS[name] for name in ENDINGS if env_id.startswith(name))
    actions = random_actions(env, 3)
    actions[:, 1] = 0.0
    others = np.array([True, False, True, True])
    starts, _ = env.reset(seed=SEEDS)
    twin.reset(seed=SEEDS)
    end(env, 1)
    observations, rewards, terminated, truncated, _ = env.step(actions[0])
    expected = twin.step(actions[0])
    np.testing.assert_array_equal(terminated, ~others)
    assert not truncated.any() and not expected[2].any()
    np.testing.assert_array_equal(observations[others], expected[0][others])
    np.testing.assert_array_equal(rewards[others], expected[1][others])
    assert observations[1].any()  # the last one is still seen
    with pytest.raises(ResetNeeded, match=r"sub-environment 1 has no episode under way \(after 1 steps\)"):
        env.step(actions[1])
    observations, rewards, terminated, _, infos = env.step(actions[1], alive=others)
    expected = twin.step(actions[1])
    assert not (observations[1].any() or rewards[1] or terminated[1])
    np.testing.assert_array_equal(observations[others], expected[0][others])
    np.testing.assert_array_equal(rewards[others], expected[1][others])
    for name in infos:
        assert not infos[name][1]
    observations, _ = env.reset(seed=SEEDS, options={"reset_mask": ~others})
    np.testing.assert_array_equal(observations[1], starts[1])
    np.testing.assert_array_equal(observations[others], expected[0][others])
    np.testing.assert_array_equal(env.step(actions[2])[0][others], twin.step(actions[2])[0][others])


@pytest.mark.parametrize("env_id", [name for name in IDS if "MDP" not in name])  # where the task is all there is
def test_the_task_changes_the_reward_and_nothing_else(env_id):
    env = make_vec(env_id, horizon=LONG)
    actions = random_actions(env, 10)
    tasks = env.sample_tasks(40, np.random.default_rng(0))
    assert len(set(tasks)) >= 2
    assert tasks == env.sample_tasks(40, np.random.default_rng(0))
    one, other = list(dict.fromkeys(tasks))[:2]
    env.set_tasks([one] * NUM_ENVS)
    observations, rewards = run(env, actions)
    env.set_tasks([one, other, one, other])
    observations_again, rewards_again = run(env, actions)
    np.testing.assert_array_equal(observations, observations_again)
    np.testing.assert_array_equal(rewards[:, [0, 2]], rewards_again[:, [0, 2]])
    differ = rewards[:, [1, 3]] != rewards_again[:, [1, 3]]
    assert differ.any(axis=0).all() if env_id.startswith(WITH_CHOICES) else differ.all()


@every_id
def test_arrays_own_their_memory(env_id):
    env = make_vec(env_id, horizon=LONG)
    first, _ = env.reset(seed=0)
    held = first.copy()
    kept = [env.step(action) for action in random_actions(env, 3)]
    np.testing.assert_array_equal(first, held)
    arrays = [first] + [array for step in kept for array in (*step[:4], *step[4].values())]
    for i, array in enumerate(arrays):
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in arrays[:i])
    expected = [step[0].copy() for step in kept]
    for array in arrays:
        array[...] = 1
    env.reset(seed=0)
    for action, observation in zip(random_actions(env, 3), expected, strict=True):
        np.testing.assert_array_equal(env.step(action)[0], observation)


@every_id
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_single_equals_batched_bit_for_bit(env_id, dtype):
    vector = make_vec(env_id, horizon=LONG)
    tasks = vector.sample_tasks(NUM_ENVS, np.random.default_rng(1))
    vector.set_tasks(tasks)
    actions = random_actions(vector, 30)
    if not env_id.startswith(WITH_CHOICES):
        actions = actions.astype(dtype)
    observations, rewards = run(vector, actions)
    for row in range(NUM_ENVS):
        single = gymnasium.make(env_id, horizon=LONG)
        single.unwrapped.set_task(tasks[row])
        observation, _ = single.reset(seed=SEEDS[row])
        np.testing.assert_array_equal(observation, observations[0, row])
        for t in range(len(actions)):
            observation, reward, terminated, *_ = single.step(actions[t, row])
            np.testing.assert_array_equal(observation, observations[t + 1, row])
            assert reward == rewards[t, row]
            if terminated:
                assert not observations[t + 2 :, row].any()
                break


@every_id
@pytest.mark.parametrize("horizon", [3, 210])
def test_the_horizon_truncates(env_id, horizon):
    vector = make_vec(env_id, num_envs=1, horizon=horizon)
    single = gymnasium.make(env_id, horizon=horizon)
    assert vector.horizon == single.unwrapped.horizon == horizon
    for env, action in (
        (vector, no_action(vector)),
        (single, no_action(single)),
    ):
        env.reset(seed=0)
        truncated = [bool(env.step(action)[3]) for _ in range(horizon)]
        assert truncated == [False] * (horizon - 1) + [True]
        with pytest.raises(ResetNeeded, match=rf"sub-environment 0 is at its horizon of {horizon} steps: reset it"):
            env.step(action)
        env.reset(seed=0)
        env.step(action)


@every_id
def test_gymnasiums_own_name_for_the_horizon(env_id):
    assert make_vec(env_id, max_episode_steps=5).horizon == 5
    assert (
        make_vec(env_id).horizon
        == gymnasium.make(env_id).unwrapped.horizon
        == next(HORIZONS[name] for name in HORIZONS if env_id.startswith(name))
    )


@every_id
def test_a_mask_resets_only_its_rows(env_id):
    env, twin = make_vec(env_id, horizon=8), make_vec(env_id, horizon=8)
    actions = random_actions(env, 8)
    mask = np.array([True, False, False, True])
    starts, _ = env.reset(seed=SEEDS)
    twin.reset(seed=SEEDS)
    for action in actions[:5]:
        before = env.step(action)[0]
        twin.step(action)
    observations, _ = env.reset(seed=SEEDS, options={"reset_mask": mask})
    np.testing.assert_array_equal(observations[mask], starts[mask])
    np.testing.assert_array_equal(observations[~mask], before[~mask])
    for action in actions[5:]:
        observations, rewards, _, truncated, _ = env.step(action)
        expected = twin.step(action)
        np.testing.assert_array_equal(observations[~mask], expected[0][~mask])
        np.testing.assert_array_equal(rewards[~mask], expected[1][~mask])
    np.testing.assert_array_equal(truncated, ~mask)


@every_id
def test_a_mask_may_be_empty(env_id):
    env = make_vec(env_id)
    env.reset(seed=SEEDS)
    last = env.step(random_actions(env, 1)[0])[0]
    np.testing.assert_array_equal(env.reset(options={"reset_mask": np.zeros(NUM_ENVS, dtype=bool)})[0], last)


@every_id
def test_rows_that_are_not_alive_are_left_out(env_id):
    env, twin = make_vec(env_id, horizon=LONG), make_vec(env_id, horizon=LONG)
    actions = random_actions(env, 6)
    alive = np.array([True, False, True, False])
    env.reset(seed=SEEDS)
    twin.reset(seed=SEEDS)
    for action in actions[:3]:
        spoiled = action.copy()
        spoiled[~alive] = -1 if env_id.startswith(WITH_CHOICES) else np.nan
        results, expected = env.step(spoiled, alive=alive), twin.step(action)
        for result, whole in zip(results[:4], expected[:4], strict=True):
            assert not result[~alive].any()
            np.testing.assert_array_equal(result[alive], whole[alive])
        for name, values in results[4].items():
            assert not values[~alive].any()
            if name.startswith("_"):
                np.testing.assert_array_equal(values, alive)
    # the others stood still meanwhile: they go on as if stepped for the first time
    twin.reset(seed=SEEDS)
    observations = env.step(actions[0])[0]
    np.testing.assert_array_equal(observations[~alive], twin.step(actions[0])[0][~alive])


@every_id
def test_nobody_alive(env_id):
    env = make_vec(env_id)
    env.reset(seed=0)
    observations, rewards, terminated, truncated, _ = env.step(no_action(env), alive=np.zeros(NUM_ENVS, dtype=bool))
    assert observations.shape == env.observation_space.shape
    assert not any(array.any() for array in (observations, rewards, terminated, truncated))


@every_id
def test_the_adapter_gives_the_same_vector_environment(env_id):
    fast, slow = (
        make_vec(env_id, horizon=6),
        VectorFromSingle(lambda: gymnasium.make(env_id, horizon=6), NUM_ENVS),
    )
    assert fast.single_observation_space == slow.single_observation_space
    tasks = fast.sample_tasks(NUM_ENVS, np.random.default_rng(3))
    assert tasks == slow.sample_tasks(NUM_ENVS, np.random.default_rng(3))
    alive = np.array([True, True, False, True])
    actions = random_actions(fast, 6)
    for env in (fast, slow):
        env.set_tasks(tasks)
        env.reset(seed=SEEDS)
    for t, action in enumerate(actions):
        mask = alive if t == 2 else None
        for ours, theirs in zip(fast.step(action, alive=mask), slow.step(action, alive=mask), strict=True):
            np.testing.assert_equal(ours, theirs)


@pytest.mark.parametrize("env_id", [name for name in IDS if name.startswith(WITH_CHOICES)])
def test_an_action_that_is_none(env_id):
    env = make_vec(env_id)
    env.reset(seed=0)
    number = env.single_action_space.n
    for wrong in (-1, number, 0.5):
        with pytest.raises(
            ValueError, match=rf"actions must be whole numbers in Discrete\({number}\), got (int|float)64"
        ):
            env.step(np.array([0, wrong, 0, 0]))
    env.step(no_action(env))  # nothing was stepped, so this goes on


@pytest.mark.parametrize("env_id", [name for name in IDS if not name.startswith(WITH_CHOICES)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_not_finite(env_id, value):
    env = make_vec(env_id)
    env.reset(seed=0)
    actions = np.zeros(env.action_space.shape)
    actions[2, 1] = value
    with pytest.raises(SimulationError, match=r"sub-environment 2: action is not finite: \[") as caught:
        env.step(actions)
    assert caught.value.environment == 2 and caught.value.reason.startswith("action is not finite")
    env.step(np.zeros_like(actions))  # nothing was stepped, so this goes on


@every_id
def test_what_cannot_be_right_is_refused(env_id):
    env = make_vec(env_id)
    task = env.sample_tasks(1, np.random.default_rng(0))[0]
    actions = no_action(env)
    with pytest.raises(ResetNeeded, match="sub-environment 0 has no episode under way"):
        env.step(actions)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="one task per sub-environment: 4 tasks, got 3"):
        env.set_tasks([task] * 3)
    with pytest.raises(TypeError, match="takes tasks of type"):
        env.set_tasks([1.5] * NUM_ENVS)
    with pytest.raises(ValueError, match=r"actions must have shape \(4,.*\), got \(2,.*\)"):
        env.step(actions[:2])
    with pytest.raises(ValueError, match=r"alive must be a bool array of shape \(4,\), got int64 \(4,\)"):
        env.step(actions, alive=np.ones(4, dtype=int))
    with pytest.raises(ValueError, match=r"reset_mask must be a bool array of shape \(4,\)"):
        env.reset(options={"reset_mask": [True]})
    with pytest.raises(ValueError, match="seed needs one entry per sub-environment, 4, got 2"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="horizon must be at least 1 step, got 0"):
        make_vec(env_id, horizon=0)
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        make_vec(env_id, num_envs=0)
    with pytest.raises(ValueError, match="render_mode must be None or in"):
        make_vec(env_id, render_mode="ansi")


@every_id
def test_a_docstring_is_a_specification_sheet(env_id):
    body = type(gymnasium.make(env_id).unwrapped)
    for heading in ("## Task", "## Action", "## Reward", "## Version history"):
        assert heading in body.__doc__
    assert envs.__doc__
