"""Ant forward or backward, by the protocol of Finn et al. 2017: 40 episodes per task in place of 20.

From new parameters an ant hardly learns to walk here, unless it sees which way. So train an ant that does, and let it
guide the one that adapts (docs/learners.md):
`python scripts/train_ant_dir.py --preset fast --oracle --inner.num-steps 0 --output-dir runs/ant_told`, then
`python scripts/train_ant_dir.py --preset fast --learner gmps --expert runs/ant_told`.
"""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train

    sys.exit(train("maml/AntDir-rllab-v0"))
