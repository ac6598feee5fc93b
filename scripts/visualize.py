"""See what a run has learned: `python scripts/visualize.py [RUN_DIR] --output-dir DIR` makes films and plots."""

import sys

from maml_rl.drawing import choose_backend

BACKEND = choose_backend()  # MuJoCo reads MUJOCO_GL when it is first imported, which the next line does

from maml_rl.cli_visualize import visualize  # noqa: E402

if __name__ == "__main__":
    sys.exit(visualize(BACKEND))
