"""Meta-World's worlds through our contract. What needs the package is skipped, visibly, where it is missing."""

import pickle
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs import metaworld as worlds
from envs.adapters import VectorFromSingle
from envs.metaworld import MetaWorldTask, MetaWorldVectorEnv, benchmark_tasks, load_metaworld

try:
    load_metaworld()
    REASON = ""
except gymnasium.error.DependencyNotInstalled as error:
    REASON = str(error)
needs_metaworld = pytest.mark.skipif(bool(REASON), reason=REASON)
NUM_ENVS = 3


def make_vec(name="reach", num_envs=NUM_ENVS, **settings):
    return gymnasium.make_vec(f"maml/{'ML10' if name == 'ML10' else f'ML1-{name}'}-v0", num_envs=num_envs, **settings)


def actions_for(num_steps, num_envs=NUM_ENVS, seed=0):
    """[num_steps, n, 4], some beyond the box."""
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (num_steps, num_envs, 4)).astype(np.float32)


def play(env, tasks, actions):
    """Observations [T + 1, n, 39], rewards and successes [T, n]."""
    env.set_tasks(tasks)
    observations, rewards, successes = [env.reset(seed=0)[0]], [], []
    for action in actions:
        observation, reward, terminated, _, infos = env.step(action)
        assert not terminated.any()
        observations.append(observation)
        rewards.append(reward)
        successes.append(infos["success"])
    return np.array(observations), np.array(rewards), np.array(successes)


def one_of_each_class(tasks):
    return list({task.name: task for task in tasks}.values())


# --- without the package -----------------------------------------------------------------------------------------


def test_ids_are_known_without_importing_it():
    code = "import sys, gymnasium, envs; print('maml/ML1-reach-v0' in gymnasium.registry, 'metaworld' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
    ids = [name for name in gymnasium.registry if name.startswith("maml/ML1")]
    assert len(ids) == len(set(envs.METAWORLD_CLASSES)) + 1 == 51 and "maml/ML10-v0" in ids


def test_without_it_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)  # as if it were not there
    load_metaworld.cache_clear()
    with pytest.raises(gymnasium.error.DependencyNotInstalled, match="pip install --no-deps -r requirements-metaworld"):
        make_vec("reach")
    load_metaworld.cache_clear()


def test_a_task_is_a_value():
    task, same = (MetaWorldTask("reach-v3", (0.1, 0.2)) for _ in range(2))
    assert task == same and hash(task) == hash(same) and pickle.loads(pickle.dumps(task)) == task
    assert task != MetaWorldTask("push-v3", (0.1, 0.2)) and task != MetaWorldTask("reach-v3", (0.1, 0.3))
    assert str(task) == "reach-v3 at (0.10, 0.20) m"


def test_its_simulations_are_bounded_as_copies_are():
    assert MetaWorldVectorEnv.is_copied  # about 19 MB each, and stepped one after the other


# --- tasks -------------------------------------------------------------------------------------------------------


@needs_metaworld
def test_every_class_has_its_id():
    assert sorted(f"{name}-v3" for name in envs.METAWORLD_CLASSES) == sorted(load_metaworld().ML1.ENV_NAMES)


@needs_metaworld
@pytest.mark.parametrize("name", ["reach", "door-open"])
def test_no_goal_of_ml1_is_both_trained_and_tested_on(name):
    splits = benchmark_tasks(f"{name}-v3", worlds.GOALS_SEED)
    assert [len(set(tasks)) for tasks in splits] == [50, 50]
    assert not set(splits.train) & set(splits.test)
    assert {task.name for task in (*splits.train, *splits.test)} == {f"{name}-v3"}
    env = make_vec(name)
    train, test = (sample(50, np.random.default_rng(0)) for sample in (env.sample_tasks, env.sample_test_tasks))
    assert set(train) == set(splits.train) and set(test) == set(splits.test)  # all 50 and no others


@needs_metaworld
@pytest.mark.slow
@pytest.mark.parametrize("name", envs.METAWORLD_CLASSES)
def test_no_goal_of_any_class_is_both_trained_and_tested_on(name):
    splits = benchmark_tasks(f"{name}-v3", worlds.GOALS_SEED)
    assert not set(splits.train) & set(splits.test)


@needs_metaworld
@pytest.mark.slow
def test_ml10_tests_on_other_classes_and_all_have_their_share():
    env = make_vec("ML10")
    train, test = (sample(40, np.random.default_rng(0)) for sample in (env.sample_tasks, env.sample_test_tasks))
    names = [[task.name for task in tasks] for tasks in (train, test)]
    assert not set(names[0]) & set(names[1])
    for drawn, count in zip(names, (10, 5), strict=True):
        assert sorted(drawn.count(name) for name in set(drawn)) == [40 // count] * count
    assert len(set(train)) == len(set(test)) == 40


@needs_metaworld
def test_tasks_depend_on_the_generator_alone():
    env, other = make_vec(), make_vec(num_envs=1)
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    drawn = [env.sample_tasks(7, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] == other.sample_tasks(7, np.random.default_rng(0)) and drawn[0] != drawn[2]
    assert len(set(drawn[0])) == 7
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # the global generator is left alone


# --- episodes ----------------------------------------------------------------------------------------------------


@needs_metaworld
@pytest.mark.filterwarnings("ignore")  # what check_env thinks of infinite bounds
def test_gymnasium_checks_the_single_environment():
    check_env(gymnasium.make("maml/ML1-reach-v0").unwrapped, skip_render_check=True)


@needs_metaworld
def test_spaces_are_theirs_with_the_goal_hidden():
    env = make_vec()
    tasks = env.sample_tasks(NUM_ENVS, np.random.default_rng(0))
    observations, rewards, successes = play(env, tasks, actions_for(20))
    theirs = env._active[0].env
    assert env.single_observation_space == theirs.observation_space
    assert env.single_action_space == theirs.action_space
    assert env.horizon == theirs.max_path_length == 500
    assert all(env.observation_space.contains(each) for each in observations)
    assert not observations[:, :, 36:].any()
    assert ((rewards >= 0) & (rewards <= 10)).all() and set(successes.ravel()) <= {0.0, 1.0}
    assert (rewards[-1] != rewards[-1, 0]).any()  # different tasks pay differently


@needs_metaworld
def test_a_row_equals_a_single_environment_and_the_adapter():
    env = make_vec()
    tasks = env.sample_tasks(NUM_ENVS, np.random.default_rng(0))
    actions = actions_for(30)
    batched = play(env, tasks, actions)
    for rebuilt in (env, make_vec(), VectorFromSingle(lambda: gymnasium.make("maml/ML1-reach-v0"), NUM_ENVS)):
        for ours, others in zip(batched, play(rebuilt, tasks, actions), strict=True):
            np.testing.assert_array_equal(ours, others)
    alone = play(make_vec(num_envs=1), tasks[1:2], actions[:, 1:2])
    for ours, others in zip(batched, alone, strict=True):
        np.testing.assert_array_equal(ours[:, 1:2], others)


@needs_metaworld
def test_simulations_change_rows_without_a_trace():
    # Several classes in one world, as in ML10: rows turn through them; idle simulations serve again, or are let go.
    names = ("reach", "push", "door-open")
    tasks = [benchmark_tasks(f"{name}-v3", worlds.GOALS_SEED).train[0] for name in names]
    env = MetaWorldVectorEnv(NUM_ENVS, benchmark="reach-v3", max_idle=2)
    actions = actions_for(15)
    order = [[0, 1, 2], [1, 2, 0], [0, 0, 0], [2, 2, 1], [0, 1, 2]]
    for places in order:
        found = play(env, [tasks[place] for place in places], actions)
        fresh = play(MetaWorldVectorEnv(NUM_ENVS, benchmark="reach-v3"), [tasks[place] for place in places], actions)
        for ours, others in zip(found, fresh, strict=True):
            np.testing.assert_array_equal(ours, others)
        assert [simulation.name for simulation in env._active] == [tasks[place].name for place in places]
        assert len(env._idle) <= 2
    before = {id(simulation.env) for simulation in (*env._active, *env._idle)}
    play(env, [tasks[place] for place in (1, 2, 0)], actions[:1])
    assert {id(simulation.env) for simulation in env._active} <= before  # nothing was made anew


@needs_metaworld
@pytest.mark.slow
def test_every_class_of_ml10_reproduces_itself():
    splits = benchmark_tasks("ML10", worlds.GOALS_SEED)
    tasks = one_of_each_class((*splits.train, *splits.test))
    actions = actions_for(60, len(tasks))
    env = make_vec("ML10", num_envs=len(tasks))
    first = play(env, tasks, actions)
    for again in (play(env, tasks, actions), play(make_vec("ML10", num_envs=len(tasks)), tasks, actions)):
        for ours, others in zip(first, again, strict=True):
            np.testing.assert_array_equal(ours, others)


@needs_metaworld
def test_rows_that_are_not_alive_stand_still():
    env, twin = make_vec(), make_vec()
    tasks = env.sample_tasks(NUM_ENVS, np.random.default_rng(0))
    actions, alive = actions_for(4), np.array([True, False, True])
    for each in (env, twin):
        each.set_tasks(tasks)
        each.reset(seed=0)
    for action in actions[:3]:
        results, expected = env.step(np.where(alive[:, None], action, np.nan), alive=alive), twin.step(action)
        for result, whole in zip(results[:4], expected[:4], strict=True):
            assert not result[~alive].any()
            np.testing.assert_array_equal(result[alive], whole[alive])
    twin.reset(seed=0)
    np.testing.assert_array_equal(env.step(actions[0])[0][1], twin.step(actions[0])[0][1])


@needs_metaworld
def test_without_set_tasks_the_first_of_training_is_solved():
    env, told = make_vec(num_envs=1), make_vec(num_envs=1)
    told.set_tasks([benchmark_tasks("reach-v3", worlds.GOALS_SEED).train[0]])
    np.testing.assert_array_equal(env.reset(seed=0)[0], told.reset(seed=0)[0])


@needs_metaworld
def test_the_horizon_truncates_and_has_a_limit():
    env = make_vec(horizon=3)
    env.reset(seed=0)
    assert [bool(env.step(action)[3].all()) for action in actions_for(3)] == [False, False, True]
    with pytest.raises(ValueError, match="horizon must be at most 500 steps in Meta-World, got 501"):
        make_vec(horizon=501)
    with pytest.raises(ValueError, match="benchmark must be ML10 or a class of Meta-World, got 'reach'"):
        MetaWorldVectorEnv(benchmark="reach")
    with pytest.raises(TypeError, match="takes tasks of type MetaWorldTask"):
        env.set_tasks(["reach-v3"] * NUM_ENVS)


@needs_metaworld
@pytest.mark.parametrize("name", ["reach", "push", "door-open"])
@pytest.mark.filterwarnings("ignore:Constant")  # their experts ask for more than the box and know it
def test_their_scripted_expert_has_success(name):
    # It is shown the goal, which our observation hides; on test tasks, so that these are solvable as well.
    from metaworld.policies import ENV_POLICY_MAP

    env, expert = make_vec(name), ENV_POLICY_MAP[f"{name}-v3"]()
    env.set_tasks([*env.sample_tasks(2, np.random.default_rng(0)), *env.sample_test_tasks(1, np.random.default_rng(0))])
    observations, _ = env.reset(seed=0)
    goals = [simulation.env._target_pos for simulation in env._active]
    succeeded, returns = np.zeros(NUM_ENVS, dtype=bool), np.zeros(NUM_ENVS)
    for _ in range(env.horizon):
        seen = [np.concatenate([row[:36], goal]) for row, goal in zip(observations, goals, strict=True)]
        observations, rewards, _, truncated, infos = env.step(np.array([expert.get_action(each) for each in seen]))
        succeeded |= infos["success"] > 0
        returns += rewards
    assert succeeded.all() and truncated.all()
    assert (returns > 2000).all()  # of at most 5000; an arm that stands still has below 1000
