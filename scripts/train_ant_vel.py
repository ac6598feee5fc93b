"""Ant at a target velocity, by the protocol of Finn et al. 2017."""

import sys

from maml_rl.cli import train
from maml_rl.presets import PRESETS

if __name__ == "__main__":
    sys.exit(train(PRESETS["maml/AntVel-rllab-v0"]))
