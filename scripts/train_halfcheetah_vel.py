"""HalfCheetah at a target velocity, by the protocol of Finn et al. 2017 (RunConfig's defaults)."""

import sys

from maml_rl.cli import train
from maml_rl.config import RunConfig

if __name__ == "__main__":
    sys.exit(train(RunConfig(env="maml/HalfCheetahVel-rllab-v0")))
