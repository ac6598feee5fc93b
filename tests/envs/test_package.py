"""The package as a whole: what it imports."""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "envs"


def test_it_imports_nothing_of_the_project_and_no_torch():
    outside = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                outside |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                outside.add((node.module or "").split(".")[0])
    optional = {"metaworld"}  # imported by the function that needs it
    assert outside - set(sys.stdlib_module_names) == {"numpy", "gymnasium", "mujoco"} | optional
