"""2-D navigation with 20 tasks and inner steps of 0.5 (Finn et al. 2017): learns in about a minute."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train

    sys.exit(train("maml/Navigation2D-v0"))
