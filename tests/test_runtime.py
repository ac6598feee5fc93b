"""What is set for the whole process: in one file, before it matters, and restored where a run has set it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import maml_rl
from maml_rl.runtime import environment_variables, keep_ray_quiet, product_threads

ROOT = Path(__file__).parents[1]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the backend is chosen on Linux only")


def test_no_other_file_sets_anything_for_the_process():
    setting = re.compile(
        r"environ\[[^]]*\] *=[^=]|del os\.environ|environ\.(setdefault|update|pop|clear)|putenv|set_num_threads|mallopt"
    )
    files = [path for package in ("maml_rl", "envs", "scripts") for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if setting.search(path.read_text(encoding="utf-8"))}
    assert found == {str(Path("maml_rl", "runtime.py"))}


def printed(code, environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


REPORT = "import os, sys; print(os.environ.get('MUJOCO_GL'), 'mujoco' in sys.modules, 'torch' in sys.modules)"


@on_linux
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"MUJOCO_GL": "disabled"}, ["disabled"]),
        ({"MUJOCO_GL": "glfw"}, ["glfw"]),
        ({"DISPLAY": ":0"}, ["None"]),
        ({}, ["egl", "None"]),
    ],
)
def test_the_rendering_backend_is_the_user_s_or_egl_before_mujoco_is_imported(given, expected):
    clean = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")}
    backend, *loaded = printed(f"import maml_rl; {REPORT}", clean | given)
    assert backend in expected
    assert loaded == ["False", "False"]
    alone = printed(f"import envs; {REPORT}", clean | given)
    assert alone[0] == given.get("MUJOCO_GL", "None")  # nothing is set


@on_linux
@pytest.mark.parametrize("asked", ["crayons", "osmesa", "EGL "])
def test_a_backend_that_is_not_there_is_no_obstacle_to_physics(asked):
    # No library is found, whichever this machine has.
    code = """
import ctypes, os

def missing(name):
    raise OSError(name)

loads, ctypes.CDLL = ctypes.CDLL, missing
import maml_rl
ctypes.CDLL = loads
import envs.robots.mujoco_batch
print(os.environ["MUJOCO_GL"])
"""
    assert printed(code, os.environ | {"MUJOCO_GL": asked}) == ["disabled"]


def test_products_have_their_threads_back_when_the_last_run_is_closed():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = product_threads(1), product_threads(1)
        first.__enter__()
        second.__enter__()
        assert torch.get_num_threads() == 1
        first.__exit__(None, None, None)
        assert torch.get_num_threads() == 1
        second.__exit__(None, None, None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_run_restores_the_threads_of_products(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        given = {"num_iterations": 1, "num_tasks": 2, "episodes_per_task": 2, "horizon": 5, "evaluate_every": 0}
        run = maml_rl.train("Navigation2D", output_dir=tmp_path / "run", quiet=True, num_threads=1, **given)
        assert torch.get_num_threads() == 3
        run.evaluate(num_tasks=2, num_steps=1)
        assert torch.get_num_threads() == 3
        with pytest.raises(ValueError, match="task_range must be"):
            run.evaluate(num_tasks=2, task_range=(2.0, 1.0))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_variables_of_other_processes_are_restored(monkeypatch):
    monkeypatch.setenv("OURS", "before")
    monkeypatch.delenv("NEW", raising=False)
    with environment_variables({"OURS": "1", "NEW": "2"}):
        assert (os.environ["OURS"], os.environ["NEW"]) == ("1", "2")
    assert os.environ["OURS"] == "before" and "NEW" not in os.environ


def test_what_the_user_has_set_for_ray_stays(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", raising=False)
    keep_ray_quiet()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"
