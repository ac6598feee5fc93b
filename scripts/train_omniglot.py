"""Few-shot classification by the protocol of a learner's paper: `python scripts/train_omniglot.py --learner maml`."""

import sys

from maml_rl.cli import train_omniglot

if __name__ == "__main__":
    sys.exit(train_omniglot())
