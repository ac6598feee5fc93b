import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401 - registers the ids
from envs.toys.bandit import BernoulliArms, BernoulliBanditVectorEnv


@pytest.mark.parametrize("num_arms", [5, 10, 50])
def test_as_many_arms_as_the_id_says(num_arms):
    env = gymnasium.make_vec(f"maml/Bandit-K{num_arms}-v0", num_envs=2)
    assert env.single_action_space.n == num_arms and env.horizon == 1
    (task,) = env.sample_tasks(1, np.random.default_rng(0))
    assert len(task.probabilities) == num_arms


def test_each_arm_pays_as_often_as_its_probability():
    # The mean of n = 20,000 coins of probability p lies within 4 standard deviations, 4 sqrt(p (1 - p) / n) <= 0.0142.
    num_envs, horizon = 100, 200
    env = BernoulliBanditVectorEnv(num_envs, num_arms=4, horizon=horizon)
    probabilities = (0.0, 0.2, 0.7, 1.0)
    env.set_tasks([BernoulliArms(probabilities)] * num_envs)
    for arm, probability in enumerate(probabilities):
        env.reset(seed=arm * num_envs)
        rewards = [env.step(np.full(num_envs, arm))[1] for _ in range(horizon)]
        assert set(np.unique(rewards)) <= {0.0, 1.0}
        assert np.mean(rewards) == pytest.approx(probability, abs=0.0142)
        assert np.std(np.mean(rewards, axis=0)) <= 1.5 * (0.25 / horizon) ** 0.5  # pulls are independent


def test_probabilities_are_uniform_and_the_best_arm_s_mean_is_what_the_specification_says():
    # U(0, 1) has mean 1/2 and variance 1/12; the largest of K has mean K / (K + 1).
    tasks = BernoulliBanditVectorEnv(num_arms=5).sample_tasks(20_000, np.random.default_rng(0))
    drawn = np.array([task.probabilities for task in tasks])
    assert drawn.mean() == pytest.approx(0.5, abs=0.005) and drawn.var() == pytest.approx(1 / 12, abs=0.002)
    assert drawn.max(axis=1).mean() == pytest.approx(5 / 6, abs=0.005)


def test_observations_tell_nothing():
    env = BernoulliBanditVectorEnv(3, horizon=2)
    env.set_tasks(env.sample_tasks(3, np.random.default_rng(0)))
    assert (env.reset(seed=0)[0] == 1.0).all() and (env.step(np.array([0, 1, 2]))[0] == 1.0).all()


def test_a_range_of_probabilities():
    env = BernoulliBanditVectorEnv()
    env.task_range = (0.4, 0.5)
    assert all(0.4 <= p <= 0.5 for task in env.sample_tasks(9, np.random.default_rng(0)) for p in task.probabilities)


def test_what_cannot_be_right_is_refused():
    with pytest.raises(ValueError, match="num_arms must be at least 1, got 0"):
        BernoulliBanditVectorEnv(num_arms=0)
    env = BernoulliBanditVectorEnv(num_arms=3)
    env.set_tasks([BernoulliArms((0.5,))])
    with pytest.raises(ValueError, match="a bandit of 3 arms cannot solve"):
        env.reset(seed=0)
