"""The visualization command: which pictures each world gets, and what happens where something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import mujoco
import pytest
from PIL import Image

from maml_rl.api.run import Run
from maml_rl.commands.train import train
from maml_rl.commands.visualize import SHIPPED_RUN, visualize
from maml_rl.experiments.config import SINUSOID

ROOT = Path(__file__).parents[2]
FEW = ["--num-tasks", "2", "--evaluation.num-tasks", "2"]
TINY = [*FEW, "--episodes-per-task", "2", "--horizon", "6"]
PLOTS = {"learning_curve.png", "adaptation_curve.png"}
FILMS = {"adaptation.gif", "adaptation.mp4", "tasks.mp4"}
CHEETAH, NAVIGATION = "maml/HalfCheetahVel-rllab-v0", "maml/Navigation2D-v0"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for env in (NAVIGATION, CHEETAH, SINUSOID):
        made[env] = folder / env.split("/")[-1]
        flags = [*(FEW if env == SINUSOID else TINY), "--outer.step", "gradient", "--evaluate-every", "1"]
        flags += ["--num-iterations", "2"]
        assert train(env, [*flags, "--output-dir", str(made[env])]) == 0
    return made


@pytest.fixture(scope="module")
def backend():
    try:
        model = mujoco.MjModel.from_xml_string("<mujoco/>")
        mujoco.Renderer(model, 32, 32).close()
    except Exception as error:
        pytest.skip(f"no backend draws here: {error!r}")
    return os.environ.get("MUJOCO_GL", "glfw")


def draw(run, folder, *flags, backend=None):
    return visualize(backend, [str(run), "--output-dir", str(folder), "--num-tasks", "4", *flags])


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_navigation_gets_films_and_paths_without_a_backend(runs, tmp_path, capfd):
    assert draw(runs[NAVIGATION], tmp_path / "new" / "folder") == 0
    assert names(tmp_path / "new" / "folder") == PLOTS | FILMS | {"paths.png"}
    said = capfd.readouterr().out.splitlines()
    assert {Path(line).name for line in said} == PLOTS | FILMS | {"paths.png"}


def test_the_sinusoid_gets_curves_and_no_film(runs, tmp_path):
    assert draw(runs[SINUSOID], tmp_path, "--num-steps", "6") == 0
    assert names(tmp_path) == PLOTS | {"curves.png"}


def test_a_checkpoint_without_metrics_gets_no_learning_curve(runs, tmp_path, capfd):
    alone = shutil.copytree(runs[SINUSOID], tmp_path / "alone")
    (alone / "metrics.csv").unlink()
    assert draw(alone, tmp_path / "pictures") == 0
    assert names(tmp_path / "pictures") == (PLOTS | {"curves.png"}) - {"learning_curve.png"}
    assert "alone has no metrics.csv: no learning curve" in capfd.readouterr().err


def test_a_robot_is_filmed(runs, backend, tmp_path):
    assert draw(runs[CHEETAH], tmp_path, "--num-shown", "2", "--num-steps", "1", backend=backend) == 0
    assert names(tmp_path) == PLOTS | FILMS
    assert Image.open(tmp_path / "adaptation.gif").width >= 2 * 320


@pytest.mark.parametrize("flags", [[], ["--oracle", "--inner.num-steps", "0"]])
def test_an_ant_with_a_goal_gets_a_film_and_paths_told_its_task_or_not(flags, backend, tmp_path):
    run = tmp_path / "run"
    assert train("AntGoal", [*TINY, "--num-iterations", "0", *flags, "--output-dir", str(run)]) == 0
    assert draw(run, tmp_path / "pictures", "--num-shown", "1", "--checkpoint", "last", backend=backend) == 0
    assert names(tmp_path / "pictures") == FILMS | {"adaptation_curve.png", "paths.png"}  # no iteration, no learning


def test_without_a_backend_a_robot_gets_plots_and_a_sentence(runs, tmp_path, capfd):
    assert draw(runs[CHEETAH], tmp_path) == 2
    assert names(tmp_path) == PLOTS
    error = capfd.readouterr().err
    assert "apt install libegl1 libgl1-mesa-dri" in error and error.count("\n") == 1
    assert draw(runs[CHEETAH], tmp_path, "--no-film") == 0


def test_without_ffmpeg_there_is_a_gif_and_a_sentence(runs, tmp_path, monkeypatch, capfd):
    def none():
        raise RuntimeError

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    assert draw(runs[NAVIGATION], tmp_path) == 2
    assert names(tmp_path) == PLOTS | {"paths.png", "adaptation.gif"}
    assert "apt install ffmpeg" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-steps", "-1"], "evaluation.num_steps must be at least 0, got -1"),
        (["--num-tasks", "0"], "evaluation.num_tasks must be at least 1, got 0"),
        (["--task-range", "2", "1"], "task_range must be two finite numbers, the lower first, got 2 1"),
    ],
)
def test_wrong_settings_are_refused_and_nothing_is_made(runs, flags, message, tmp_path, capfd):
    assert draw(runs[NAVIGATION], tmp_path / "out", *flags) == 2
    assert message in capfd.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_and_a_checkpoint_of_another_are_refused(runs, tmp_path, capfd):
    assert draw(tmp_path, tmp_path / "out") == 2
    assert "is no run folder" in capfd.readouterr().err
    shutil.copytree(runs[NAVIGATION], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.copytree(runs[CHEETAH] / "checkpoints", tmp_path / "run" / "checkpoints")
    assert draw(tmp_path / "run", tmp_path / "out") == 2
    assert "it is another run's" in capfd.readouterr().err
    (tmp_path / "file").write_text("")
    assert draw(runs[NAVIGATION], tmp_path / "file") == 2
    assert "file" in capfd.readouterr().err


def test_pictures_that_cannot_be_written_are_refused_before_anything_is_computed(runs, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Run, "opened", lambda *_: pytest.fail("computed"))
    (tmp_path / "adaptation.gif").mkdir()
    assert draw(runs[NAVIGATION], tmp_path) == 2
    assert "adaptation.gif is a folder" in capfd.readouterr().err


def test_no_step_shows_the_policy_as_it_is(runs, tmp_path):
    assert draw(runs[NAVIGATION], tmp_path, "--num-steps", "0", "--num-shown", "1", "--actions", "mean") == 0
    assert names(tmp_path) == PLOTS | FILMS | {"paths.png"}


def test_the_script_shows_the_shipped_run(tmp_path):
    assert SHIPPED_RUN.is_dir()
    flags = ["--no-film", "--num-tasks", "2", "--num-steps", "1", "--output-dir", str(tmp_path)]
    command = [sys.executable, str(ROOT / "scripts" / "visualize.py"), *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == PLOTS
