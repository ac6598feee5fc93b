"""HalfCheetah forward or backward, by the protocol of Finn et al. 2017; their published run used max KL 0.02."""

import sys

from maml_rl.cli import train
from maml_rl.presets import PRESETS

if __name__ == "__main__":
    sys.exit(train(PRESETS["maml/HalfCheetahDir-rllab-v0"]))
