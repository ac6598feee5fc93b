"""2-D navigation with 20 tasks and inner steps of 0.5 (Finn et al. 2017): learns in about a minute.

The inner loss is the paper's log pi x advantage: with steps this large the noisier curvature of the ratio lets some
seeds' policy before adaptation run away (docs/findings.md).
"""

import sys

from maml_rl.cli import train
from maml_rl.config import RunConfig
from maml_rl.core.inner import InnerConfig
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.training.trainer import TrainingConfig

PRESET = RunConfig(
    env="maml/Navigation2D-v0",
    training=TrainingConfig(num_iterations=15, num_tasks=20),
    inner=InnerConfig(step_size=0.5, estimator="log_prob"),
    evaluation=EvaluationConfig(first_step_size=0.5, later_step_size=0.25),
)

if __name__ == "__main__":
    sys.exit(train(PRESET))
