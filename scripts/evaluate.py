"""Score a trained run on fresh tasks: `python scripts/evaluate.py RUN_DIR --num-steps 3 --json`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.evaluate import evaluate

    sys.exit(evaluate())
