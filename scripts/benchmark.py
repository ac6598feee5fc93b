"""Measure speed as ratios to the bare physics: `python scripts/benchmark.py sampling --json`."""

import sys

from maml_rl.cli_benchmark import benchmark

if __name__ == "__main__":
    sys.exit(benchmark())
