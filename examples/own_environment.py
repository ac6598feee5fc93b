"""Meta-train on an environment of your own: a Gymnasium class that can draw tasks and be given one.

In its folder, `maml-rl check-env own_environment:Swing` says what is wrong with it, if anything.
"""

import sys

import gymnasium
import numpy as np

import maml_rl

SMALL = {"num_iterations": 1, "num_tasks": 2} if "--small" in sys.argv else {"num_iterations": 10, "num_tasks": 20}


class Swing(gymnasium.Env):
    """A pendulum that is to come to rest at an angle that only the reward tells."""

    observation_space = gymnasium.spaces.Box(-8.0, 8.0, (3,), np.float32)  # sine, cosine, speed [rad / s]
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)  # torque, against a gravity of 1
    horizon = 40  # [steps] of 0.1 s
    next_rest = 0.0

    def sample_tasks(self, num_tasks, rng):
        return rng.uniform(-0.9, 0.9, num_tasks).tolist()  # [rad] from hanging down

    def set_task(self, task):
        self.next_rest = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.rest, self.angle, self.speed = self.next_rest, self.np_random.normal(0.0, 0.1), 0.0
        return self._seen(), {}

    def step(self, action):
        torque = float(np.clip(action[0], -2.0, 2.0)) - np.sin(self.angle) - 0.5 * self.speed
        self.speed += 0.1 * torque
        self.angle += 0.1 * self.speed
        return self._seen(), -abs(self.angle - self.rest), False, False, {}

    def _seen(self):
        return np.array([np.sin(self.angle), np.cos(self.angle), self.speed], dtype=np.float32).clip(-8.0, 8.0)


if __name__ == "__main__":
    run = maml_rl.train(Swing, evaluate_every=0, **SMALL)
    curve = run.evaluate(num_tasks=20, num_steps=2)
    print("return after 0, 1, 2 gradient steps:", [round(value, 2) for value in curve.mean])
