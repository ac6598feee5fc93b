"""Meta-train on any task environment, your own too: `python scripts/train.py --env my_module:MyEnv`."""

import sys

from maml_rl.cli import train
from maml_rl.config import RunConfig

if __name__ == "__main__":
    sys.exit(train(RunConfig()))
