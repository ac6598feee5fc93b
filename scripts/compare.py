"""The paper's comparison by one command: `python scripts/compare.py --env maml/Navigation2D-v0 --output-dir DIR`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.compare import compare

    sys.exit(compare())
