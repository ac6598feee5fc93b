"""The package as a whole: what it imports."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "envs"


def test_it_imports_nothing_of_the_project_and_no_torch():
    outside = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                outside |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                outside.add((node.module or "").split(".")[0])
    optional = {"metaworld"}  # imported by the function that needs it
    assert outside - set(sys.stdlib_module_names) == {"numpy", "gymnasium", "mujoco"} | optional


MINE = """
import gymnasium

class MyEnv(gymnasium.Env):
    pass
"""


@pytest.mark.parametrize("is_package", [True, False])
@pytest.mark.parametrize("imports", ["import envs.mine, maml_rl", "import maml_rl, envs.mine"])
def test_a_user_s_folder_of_the_same_name_does_no_harm(imports, is_package, tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "mine.py").write_text(MINE)
    if is_package:
        (tmp_path / "envs" / "__init__.py").touch()
    code = f"""
{imports}
import gymnasium
from maml_rl.experiments.environments import find_world
print(find_world("envs.mine:MyEnv").make is envs.mine.MyEnv, gymnasium.make("maml/Navigation2D-v0").spec.id)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True", "maml/Navigation2D-v0"], done.stderr
