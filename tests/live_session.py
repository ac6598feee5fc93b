"""A session on a line, for tests of live views."""

import time
from dataclasses import dataclass, replace

import gymnasium
import numpy as np

from maml_rl.pictures.live.session import Session
from maml_rl.pictures.live.show import Dial, Show, Tasks


@dataclass(frozen=True)
class Place:
    x: float  # [m]


class Line(gymnasium.Env):
    """A point on a line; the reward is minus its distance from the task's place. It has no clock."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self):
        self.is_closed = False

    def set_task(self, task):
        self.task = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-0.1, 0.1)
        return np.array([self.at]), {}

    def step(self, action):
        self.at += float(action[0])
        if self.at > 8.0:
            raise ZeroDivisionError("off the\nline")
        return np.array([self.at]), -abs(self.at - self.task.x), False, False, {}

    def close(self):
        self.is_closed = True


@dataclass(frozen=True)
class Walker:
    """Steps right by a size that it learns from the task: after adaptation it goes to the place at once."""

    num_steps: int = 0
    num_episodes: int = 0
    delay: float = 0.0  # of an adaptation's steps [s]

    def act(self, observation, deterministic=True, seed=None, previous_reward=0.0):
        noise = 0.0 if deterministic else np.random.default_rng(seed).normal(0.0, 0.1)
        return np.array([self.num_steps * (1.0 - observation[0]) + noise])

    def begin_episode(self, forget=False):
        pass

    def adapt(self, env, num_episodes=None, seed=0):
        for episode in range(num_episodes):
            env.reset(seed=seed + episode)
            for _ in range(3):
                env.step(np.zeros(1))
                time.sleep(self.delay)
        return replace(self, num_steps=self.num_steps + 1, num_episodes=self.num_episodes + num_episodes)


def make_session(walker=None, **changes):
    made = []

    def make_env():
        made.append(Line())
        return made[-1]

    show = Show(
        title="a line",
        note="",
        tasks=Tasks(lambda: Place(1.0), (Dial("x", "m", -1.0, 1.0),), kind=Place),
        make_env=make_env,
        is_robot=False,
        robot_of=lambda env: None,
        picture_of=lambda env: np.zeros((2, 2, 3), np.uint8),
        begin=lambda task: walker or Walker(),
        horizon=5,
        steps_per_second=10.0,
        episodes_per_adaptation=2,
        takes_gradient_steps=True,
    )
    session = Session(replace(show, **changes), seed=1)
    return session, made
