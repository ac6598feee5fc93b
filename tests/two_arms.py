"""A bandit of two arms, one of which pays: the least in which remembering what was tried is worth anything."""

import gymnasium
import numpy as np


class TwoArms(gymnasium.Env):
    """A pull is an episode of one step; the task is the arm that pays nine times in ten, the other one in ten."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    horizon = 1

    def __init__(self, render_mode=None):
        self.render_mode, self.next_arm = render_mode, 0

    def sample_tasks(self, num_tasks, rng):
        return rng.integers(2, size=num_tasks).tolist()

    def set_task(self, task):
        self.next_arm = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.arm, self.luck = self.next_arm, self.np_random.random()
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), float(self.luck < (0.9 if action == self.arm else 0.1)), False, True, {}

    def render(self):
        return np.full((16, 16, 3), 60 + 100 * self.arm, np.uint8)
