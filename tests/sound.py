"""An environment that is sound in every respect, for tests to put faults into."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Push(gymnasium.Env):
    """A number that is pushed towards the task."""

    observation_space = Box(-9.0, 9.0, (1,), np.float32)
    action_space = Box(-0.3, 0.3, (1,), np.float32)
    horizon = 20
    goal = 0.0

    def sample_tasks(self, num_tasks, rng):
        return rng.uniform(-1.0, 1.0, num_tasks).tolist()

    def set_task(self, task):
        self.goal = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.aim, self.x, self.time = self.goal, float(self.np_random.normal(0.0, 0.1)), 0
        return self.seen(), {}

    def step(self, action):
        self.x, self.time = float(np.clip(self.x + action[0], -3.0, 3.0)), self.time + 1
        return self.seen(), self.reward(), False, False, {}

    def seen(self):
        return np.array([self.x], np.float32)

    def reward(self):
        return -abs(self.x - self.aim)
