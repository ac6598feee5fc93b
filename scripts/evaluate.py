"""Score a trained run on fresh tasks: `python scripts/evaluate.py RUN_DIR --num-steps 3 --json`."""

import sys

from maml_rl.cli_evaluate import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
