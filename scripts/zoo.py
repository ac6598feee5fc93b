"""List the trained runs of the zoo, or show one's card: `python scripts/zoo.py halfcheetah-vel`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.zoo import zoo

    sys.exit(zoo())
