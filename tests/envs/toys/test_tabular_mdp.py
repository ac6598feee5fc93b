import numpy as np
import pytest

from envs.toys.tabular_mdp import NUM_ACTIONS, NUM_STATES, TabularMDP, TabularMDPVectorEnv


def test_tables_are_drawn_from_the_paper_s_distributions():
    # Means from N(1, 1); a flat Dirichlet over S has mean 1/S and variance (S - 1) / (S^2 (S + 1)).
    tasks = TabularMDPVectorEnv().sample_tasks(400, np.random.default_rng(0))
    means = np.array([task.mean_rewards for task in tasks])
    transitions = np.array([task.transitions for task in tasks])
    assert means.shape == (400, NUM_STATES, NUM_ACTIONS) and transitions.shape == (*means.shape, NUM_STATES)
    assert means.mean() == pytest.approx(1.0, abs=0.03) and means.std() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(transitions.sum(axis=-1), 1.0)
    assert transitions.var() == pytest.approx((NUM_STATES - 1) / (NUM_STATES**2 * (NUM_STATES + 1)), rel=0.03)


def test_steps_follow_the_tables():
    # From state 0 under one action: next states come with their probabilities, within 4 standard deviations
    # 4 sqrt(1 / 4 / n) of n draws, and rewards are normal around their mean with unit variance.
    n = 20_000
    env = TabularMDPVectorEnv(n)
    (task,) = env.sample_tasks(1, np.random.default_rng(1))
    env.set_tasks([task] * n)
    starts, _ = env.reset(seed=0)
    assert (starts == np.eye(NUM_STATES)[0]).all()
    observations, rewards, *_ = env.step(np.full(n, 2))
    np.testing.assert_allclose(observations.mean(axis=0), task.transitions[0][2], atol=4 * (0.25 / n) ** 0.5)
    assert rewards.mean() == pytest.approx(task.mean_rewards[0][2], abs=4 / n**0.5)
    assert rewards.std() == pytest.approx(1.0, abs=0.03)
    correlations = np.corrcoef(np.column_stack([rewards, observations]).T)[0, 1:]
    assert np.abs(correlations).max() < 4 / n**0.5  # the reward's noise does not tell the next state


def test_a_chain_of_certain_steps():
    # Action a leads from s to (s + a) modulo S for certain; its reward has the mean 100 s + 10 a, and a noise
    # that 20 draws from N(0, 1) do not take past 6.
    states, actions = range(NUM_STATES), range(NUM_ACTIONS)
    rewards = tuple(tuple(100.0 * s + 10.0 * a for a in actions) for s in states)
    certain = np.eye(NUM_STATES).tolist()
    transitions = tuple(tuple(tuple(certain[(s + a) % NUM_STATES]) for a in actions) for s in states)
    env = TabularMDPVectorEnv(2)
    env.set_tasks([TabularMDP(rewards, transitions)] * 2)
    env.reset(seed=0)
    state = np.zeros(2, dtype=int)
    for step in range(env.horizon):
        chosen = np.array([step % NUM_ACTIONS, (3 * step) % NUM_ACTIONS])
        observations, reward, terminated, truncated, _ = env.step(chosen)
        np.testing.assert_allclose(reward, 100.0 * state + 10.0 * chosen, atol=6.0)
        state = (state + chosen) % NUM_STATES
        np.testing.assert_array_equal(observations, np.eye(NUM_STATES)[state])
        assert not terminated.any() and truncated.all() == (step == 9)
