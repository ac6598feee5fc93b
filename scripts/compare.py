"""The paper's comparison by one command: `python scripts/compare.py --env maml/Navigation2D-v0 --output-dir DIR`."""

import sys

from maml_rl.cli_compare import compare

if __name__ == "__main__":
    sys.exit(compare())
