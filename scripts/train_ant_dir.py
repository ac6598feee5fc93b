"""Ant forward or backward, by the protocol of Finn et al. 2017: 40 episodes per task in place of 20.

From new parameters an ant hardly learns to walk here. Learn to walk on Ant-Vel first and go on from that run:
`python scripts/train_ant_vel.py --preset fast --output-dir runs/ant_vel`, then
`python scripts/train_ant_dir.py --preset fast --init-from runs/ant_vel --init-from-any-env` (docs/howto/warm_start.md).
"""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train

    sys.exit(train("maml/AntDir-rllab-v0"))
