"""Sinusoid regression by the protocol of Finn et al. 2017, section 5.1: 70,000 iterations of 25 tasks."""

import sys

from maml_rl.cli import train
from maml_rl.config import SINUSOID, RunConfig
from maml_rl.core.inner import InnerConfig
from maml_rl.core.maml import OuterConfig
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.training.trainer import TrainingConfig

PRESET = RunConfig(
    env=SINUSOID,
    training=TrainingConfig(num_iterations=70_000, num_tasks=25, evaluate_every=1000, checkpoint_every=1000),
    inner=InnerConfig(step_size=0.01),
    outer=OuterConfig(step="gradient"),
    evaluation=EvaluationConfig(num_tasks=600, num_steps=10, first_step_size=0.01, later_step_size=0.01),
)

if __name__ == "__main__":
    sys.exit(train(PRESET))
