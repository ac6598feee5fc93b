"""What is observed has the mean and deviation that are found for it."""

import gymnasium
import numpy as np
from push import Place, PushVectorEnv

from envs.adapters import VectorFromSingle
from envs.observation_moments import observation_moments


class Recorded(PushVectorEnv):
    """Push whose observations begin anew from 1e9 upwards, beside an entry that stays the same; row r ends after r + 2
    steps. It keeps what it shows to those that are alive."""

    def __init__(self, num_envs):
        super().__init__(num_envs, horizon=4)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.shown = []

    def reset(self, **settings):
        observations, infos = super().reset(**settings)
        self.shown += list(observations)
        return observations, infos

    def step(self, actions, alive=None):
        assert self.action_space.contains(actions)
        result = super().step(actions, alive)
        going_on = alive & ~(result[2] | result[3])
        self.shown += list(result[0][going_on])
        return result

    def _step_rows(self, actions, alive):
        _, rewards, terminated, truncated, infos = super()._step_rows(actions, alive)
        terminated = self._elapsed + 1 >= np.arange(self.num_envs) + 2
        return self._observe(), rewards, terminated, truncated, infos

    def _observe(self):
        return np.concatenate([1e9 + self._state, np.full((self.num_envs, 1), 7.0)], axis=1)


def test_they_are_those_of_all_that_is_seen_before_acting():
    env = Recorded(3)
    mean, std = observation_moments(env, [Place(0.0), Place(1.0)], np.random.default_rng(0))
    shown = np.array(env.shown)
    assert len(shown) == 2 * (2 + 3 + 4)
    np.testing.assert_allclose(mean, shown.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(std[:3], shown[:, :3].std(axis=0), rtol=1e-6)  # 1e9 leaves them seven digits
    assert std[3] == 1.0  # of what stays the same


def test_equal_generators_give_equal_numbers_and_leave_the_environment_s_own_alone():
    def measured(seed):
        return np.concatenate(observation_moments(PushVectorEnv(2), [Place(0.0)], np.random.default_rng(seed)))

    np.testing.assert_array_equal(measured(1), measured(1))
    assert (measured(1) != measured(2)).any()
    one, other = PushVectorEnv(2), PushVectorEnv(2)
    for env in (one, other):
        env.action_space.seed(3)
    observation_moments(one, [Place(0.0)], np.random.default_rng(1))
    np.testing.assert_array_equal(one.action_space.sample(), other.action_space.sample())


def test_pictures_are_laid_flat():
    class Picture(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2, 3))
        action_space = gymnasium.spaces.Discrete(2, start=4)
        horizon = 3

        def sample_tasks(self, num_tasks, rng):
            return [0] * num_tasks

        def set_task(self, task):
            pass

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.arange(6, dtype=np.float32).reshape(2, 3), {}

        def step(self, action):
            assert self.action_space.contains(action)
            return np.zeros((2, 3), np.float32), 0.0, False, False, {}

    mean, _ = observation_moments(VectorFromSingle(Picture, 2), [0], np.random.default_rng(0))
    np.testing.assert_allclose(mean, np.arange(6) / 3)
