"""See what a run has learned: `python scripts/visualize.py [RUN_DIR] --output-dir DIR` makes films and plots."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()
    from maml_rl.pictures.backend import choose_backend

    backend = choose_backend()  # MuJoCo reads MUJOCO_GL when it is first imported, which the next line does
    from maml_rl.commands.visualize import visualize

    sys.exit(visualize(backend))
