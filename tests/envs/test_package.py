"""The package as a whole: what it imports, and what importing it does."""

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


@pytest.mark.skipif(sys.platform != "linux", reason="the backend is chosen on Linux only")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"MUJOCO_GL": "disabled"}, "disabled"),
        ({"MUJOCO_GL": "glfw"}, "glfw"),
        ({"DISPLAY": ":0"}, None),
        ({}, ("egl", None)),
    ],
)
def test_the_drawing_backend_is_the_users_or_egl(given, expected):
    clean = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")}
    code = "import envs, os, sys; print(os.environ.get('MUJOCO_GL'), 'mujoco' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | given,
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    backend, mujoco_is_loaded = done.stdout.split()
    assert backend in [str(e) for e in (expected if isinstance(expected, tuple) else (expected,))]
    assert mujoco_is_loaded == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="the backend is chosen on Linux only")
@pytest.mark.parametrize("asked", ["crayons", "osmesa", "EGL "])
def test_a_backend_that_is_not_there_is_no_obstacle_to_physics(asked, tmp_path):
    # No library is found, whichever this machine has.
    code = """
import ctypes, os

def missing(name):
    raise OSError(name)

loads, ctypes.CDLL = ctypes.CDLL, missing
import envs
ctypes.CDLL = loads
import envs.robots.half_cheetah
print(os.environ["MUJOCO_GL"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MUJOCO_GL": asked},
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "disabled"), done.stderr


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
