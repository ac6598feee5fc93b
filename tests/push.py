"""Environments with one action, for tests: push a mass along a line towards a place that only the reward tells."""

from dataclasses import dataclass

import gymnasium
import numpy as np

from envs.task_env import TaskVectorEnv


@dataclass(frozen=True)
class Place:
    x: float  # [m]


class PushVectorEnv(TaskVectorEnv):
    task_type = Place

    def __init__(self, num_envs=1, horizon=10, render_mode=None):
        observations = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        force = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        super().__init__(num_envs, horizon, observations, force, Place(0.0), render_mode)
        self._state = np.zeros((num_envs, 3))
        self._place = np.zeros(num_envs)

    def sample_tasks(self, num_tasks, rng):
        return [Place(float(x)) for x in rng.uniform(-1.0, 1.0, num_tasks)]

    def _reset_rows(self, rows, tasks):
        for row, task in zip(rows, tasks, strict=True):
            self._state[row] = self.generators[row].standard_normal(3)
            self._place[row] = task.x

    def _step_rows(self, actions, alive):
        self._state[:, 1] += 0.1 * actions[:, 0]
        self._state[:, 0] += 0.1 * self._state[:, 1]
        over = np.zeros(self.num_envs, dtype=bool)
        return self._state.copy(), -np.abs(self._state[:, 0] - self._place), over, over.copy(), {}

    def _observe(self):
        return self._state.copy()


class ReachVectorEnv(PushVectorEnv):
    """Success is to be within 0.5 m of the place; places beyond +-1 m are set aside for tests."""

    reports_success = True

    def sample_test_tasks(self, num_tasks, rng):
        return [Place(task.x + np.copysign(1.0, task.x)) for task in self.sample_tasks(num_tasks, rng)]

    def _step_rows(self, actions, alive):
        *step, _ = super()._step_rows(actions, alive)
        return *step, {"success": np.abs(self._state[:, 0] - self._place) < 0.5}


class EdgeVectorEnv(PushVectorEnv):
    """An episode ends where the mass is more than 1 m from the origin, often at its first step."""

    def _step_rows(self, actions, alive):
        observations, rewards, _, truncated, infos = super()._step_rows(actions, alive)
        return observations, rewards, np.abs(self._state[:, 0]) > 1.0, truncated, infos


class FragileVectorEnv(PushVectorEnv):
    """Fails far to the right."""

    def _step_rows(self, actions, alive):
        if self._place.max() > 0.95:
            raise ValueError(f"the ice breaks at {self._place.max()}")
        return super()._step_rows(actions, alive)


_KINDS = {"Push": PushVectorEnv, "Reach": ReachVectorEnv, "Edge": EdgeVectorEnv, "Fragile": FragileVectorEnv}

for _name, _kind in _KINDS.items():
    if f"test/{_name}-v0" not in gymnasium.registry:
        gymnasium.register(f"test/{_name}-v0", vector_entry_point=_kind)
