"""The recipe by which samplers and workers play tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from maml_rl.policies.distribution import ActionSource
from maml_rl.policies.scale import ObservationScale, see
from maml_rl.sampling.rollout import Stage, VectorEnvironment
from maml_rl.sampling.trajectory import Shape


@dataclass(frozen=True)
class Recipe:
    """All that a worker needs to play any task."""

    make_env: Callable[[int], VectorEnvironment]  # number of sub-environments -> a vector environment on one thread
    actions: ActionSource  # how outputs become actions
    scale: ObservationScale | None  # of observations, if they are normalised
    shape: Shape
    in_a_row: bool = False  # a task's episodes are played one after the other, and the actor's memory lasts

    @property
    def at_once(self) -> int:
        """Sub-environments that one task takes."""
        return 1 if self.in_a_row else self.shape.num_episodes

    def stage(self, env: VectorEnvironment) -> Stage:
        return Stage(env, self.actions, functools.partial(see, scale=self.scale))
