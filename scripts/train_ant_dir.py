"""Ant forward or backward, by the protocol of Finn et al. 2017: 40 episodes per task, twice the other worlds' number.

At evaluation the steps after the first are a hundredth of it, as in the script that made their figure; elsewhere they
are half of it.
"""

import sys

from maml_rl.cli import train
from maml_rl.config import RunConfig
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.sampling.local import SamplingConfig

PRESET = RunConfig(
    env="maml/AntDir-rllab-v0",
    sampling=SamplingConfig(episodes_per_task=40),
    evaluation=EvaluationConfig(later_step_size=0.001),
)

if __name__ == "__main__":
    sys.exit(train(PRESET))
