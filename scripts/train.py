"""Meta-train on any task environment: `python scripts/train.py --env maml/Navigation2D-v0`, or `--env my_module:MyEnv`."""

import sys

from maml_rl.cli import train
from maml_rl.config import RunConfig

if __name__ == "__main__":
    sys.exit(train(RunConfig()))
