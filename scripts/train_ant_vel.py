"""Ant at a target velocity, by the protocol of Finn et al. 2017 (RunConfig's defaults: 20 episodes, max KL 0.01)."""

import sys

from maml_rl.cli import train
from maml_rl.config import RunConfig

PRESET = RunConfig(env="maml/AntVel-rllab-v0")

if __name__ == "__main__":
    sys.exit(train(PRESET))
