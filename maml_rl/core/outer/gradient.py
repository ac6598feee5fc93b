"""The gradient outer step: Adam on the meta-gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from maml_rl.core.adam import AdamConfig, Moments, adam_step, init_moments
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.step import Moved
from maml_rl.core.trees import Params, flatten, unflatten


class GradientState(NamedTuple):
    """The memory of the step. The name of its field is also its name on disk."""

    adam: Moments


@dataclass(frozen=True)
class Gradient:
    """The step theta - Adam(d meta-loss / d theta), and the same for step sizes where they are learned (Meta-SGD)."""

    config: AdamConfig
    name = "gradient"
    wants_adapted = False
    learns_step_sizes = True

    def init(self, params: Params) -> GradientState:
        return GradientState(init_moments(flatten(params)))

    def step(
        self, objective: MetaObjective, params: Params, adapted: Params, state: GradientState, iteration: int
    ) -> Moved[GradientState]:
        at = objective.linearize(params, fisher_share=0.0)
        vector, moments = adam_step(flatten(params), at.gradient, state.adam, self.config)
        metrics = {"surrogate_loss_before": at.loss, "gradient_norm": at.gradient_norm}
        return Moved(unflatten(vector, params), GradientState(moments), metrics)
