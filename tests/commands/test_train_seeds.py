"""Training of several seeds as one experiment."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import maml_rl
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train
from maml_rl.experiments.config import SINUSOID
from maml_rl.experiments.experiment import read_experiment, runs_of
from maml_rl.training.trainer import Trainer, TrainingError

ROOT = Path(__file__).parents[2]
NAVIGATION = "maml/Navigation2D-v0"
TINY = ["--num-tasks", "2", "--evaluate-every", "0", "--episodes-per-task", "2", "--horizon", "5"]
TINY += ["--evaluation.episodes-per-task", "2", "--outer.step", "gradient", "--num-threads", "1"]


def numbers(run):
    """The columns of metrics.csv that are equal for equal seeds."""
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: cell for name, cell in row.items() if "seconds" not in name and "per_s" not in name} for row in rows]


def begin(folder, *flags, iterations="2"):
    return train(NAVIGATION, [*TINY, "--num-iterations", iterations, "--output-dir", str(folder), *flags])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds") / "experiment"
    assert begin(folder, "--seeds", "3", "1") == 0
    return folder


def test_each_seed_is_the_run_that_it_is_alone_and_side_by_side(experiment, tmp_path, capfd):
    assert begin(tmp_path / "alone", "--seed", "3") == 0
    capfd.readouterr()
    assert begin(tmp_path / "beside", "--seeds", "3", "1", "--jobs", "2") == 0
    assert runs_of([experiment]) == [experiment / "seed-3", experiment / "seed-1"]
    assert numbers(experiment / "seed-3") == numbers(tmp_path / "alone") == numbers(tmp_path / "beside" / "seed-3")
    assert numbers(experiment / "seed-1") == numbers(tmp_path / "beside" / "seed-1") != numbers(experiment / "seed-3")
    out, err = capfd.readouterr()
    assert json.loads(out)["runs"] == [str(tmp_path / "beside" / name) for name in ("seed-3", "seed-1")]
    assert {line.split(":")[0] for line in err.splitlines()} == {"seed 1", "seed 3"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_stops_all_seeds_and_says_the_command_that_goes_on(jobs, tmp_path):
    folder, script = tmp_path / "an experiment", str(ROOT / "scripts" / "train_navigation.py")
    flags = [*TINY, "--num-iterations", "100000", "--checkpoint-every", "3", "--seeds", "1", "2", "--jobs", str(jobs)]
    process = subprocess.Popen(
        [sys.executable, script, *flags, "--output-dir", str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    wanted = [folder / f"seed-{seed}" / "checkpoints" / "iteration-000003.json" for seed in range(1, jobs + 1)]
    deadline = time.monotonic() + 100
    while not all(path.exists() for path in wanted) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"to continue: {sys.executable} {script} --resume '{folder}'")
    assert json.loads(out)["interrupted_by"] == signal.SIGINT
    reached = max(len(numbers(run)) for run in runs_of([folder])) + 1
    pasted = shlex.split(last)
    resumed = [*pasted[pasted.index("--resume") : pasted.index("--resume") + 2], "--num-iterations", str(reached)]
    assert train(NAVIGATION, resumed) == 0  # one after the other, as that is quicker for a few iterations
    assert begin(tmp_path / "whole", "--seeds", "1", "2", iterations=str(reached)) == 0
    for name in ("seed-1", "seed-2"):
        assert numbers(folder / name) == numbers(tmp_path / "whole" / name)


def test_the_same_command_goes_on_and_takes_more_seeds(tmp_path, capfd):
    folder = tmp_path / "experiment"
    assert begin(folder, "--seeds", "1") == 0
    before = (folder / "seed-1" / "metrics.csv").read_bytes()
    assert begin(folder, "--seeds", "1", "4") == 0
    assert "seed-1: done before" in capfd.readouterr().err
    assert (folder / "seed-1" / "metrics.csv").read_bytes() == before
    assert read_experiment(folder).seeds == (1, 4) and len(numbers(folder / "seed-4")) == 2
    assert train(NAVIGATION, ["--resume", str(folder), "--num-iterations", "3"]) == 0
    assert [len(numbers(run)) for run in runs_of([folder])] == [3, 3]


def test_a_seed_that_fails_leaves_the_others_as_they_are(tmp_path, monkeypatch, capfd):
    run = Trainer.run

    def failing(trainer, resume):
        if trainer._seed == 1:
            raise TrainingError("loss must be finite, got nan")
        return run(trainer, resume)

    monkeypatch.setattr(Trainer, "run", failing)
    assert begin(tmp_path / "experiment", "--seeds", "1", "2") == 1
    out, err = capfd.readouterr()
    assert "error: seed 1: loss must be finite, got nan" in err and json.loads(out)["failed"] == [1]
    assert len(numbers(tmp_path / "experiment" / "seed-2")) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "1", "1"], "seeds must be different whole numbers of at least 0, got [1, 1]"),
        (["--seeds", "-1"], "seeds must be different whole numbers of at least 0, got [-1]"),
        (["--seeds", "1", "2", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["--jobs", "2"], "--jobs 2 applies to several --seeds: leave it out"),
        (["--seeds", "1", "2", "--seed", "3"], "--seed 3 must be left out with --seeds"),
        (["--seeds", "1", "--film-every", "-1"], "film_every must be at least 1"),
    ],
)
def test_seeds_that_make_no_sense_are_refused_before_anything_is_made(flags, message, tmp_path, capfd):
    try:
        status = begin(tmp_path / "new", *flags)
    except SystemExit as refused:  # by the parser
        status = refused.code
    shown = " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert status == 2 and message in shown
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_refused_and_left_as_it_is(experiment, tmp_path, capfd):
    before = sorted(experiment.rglob("*"))
    assert begin(experiment, "--seeds", "1", "--inner.step-size", "0.25") == 2
    assert "holds an experiment with other settings (method.inner.step_size was 0.5" in capfd.readouterr().err
    assert train(NAVIGATION, ["--resume", str(experiment), "--output-dir", str(tmp_path / "copy")]) == 2
    assert "--output-dir must be left out with --resume of an experiment" in capfd.readouterr().err
    assert train(NAVIGATION, ["--resume", str(experiment / "seed-1"), "--seeds", "5"]) == 2
    assert "which is a run of one seed" in capfd.readouterr().err
    (tmp_path / "mine").write_text("")
    assert begin(tmp_path, "--seeds", "1") == 2
    assert "must not exist or be empty" in capfd.readouterr().err
    (tmp_path / "experiment.json").write_text("{}")
    assert train(NAVIGATION, ["--resume", str(tmp_path)]) == 2
    assert "must hold an object with an object 'config'" in capfd.readouterr().err
    assert sorted(experiment.rglob("*")) == before


def test_evaluation_takes_an_experiment_for_its_runs(experiment, capfd):
    flags = ["--num-tasks", "3", "--num-steps", "1", "--json"]
    assert evaluate([str(experiment), *flags]) == 0
    together = json.loads(capfd.readouterr().out)
    assert (experiment / "evaluation.csv").exists()
    assert evaluate([str(experiment / "seed-3"), str(experiment / "seed-1"), *flags]) == 0
    assert json.loads(capfd.readouterr().out) == together


def test_python_trains_and_scores_seeds_together(experiment, tmp_path):
    options = {"num_tasks": 2, "num_iterations": 2, "evaluate_every": 0, "horizon": 5, "outer.step": "gradient"}
    options |= {"sampling__episodes_per_task": 2, "evaluation__episodes_per_task": 2, "num_threads": 1, "quiet": True}
    made = maml_rl.train_seeds(NAVIGATION, seeds=[3, 1], output_dir=tmp_path / "experiment", **options)
    assert made.seeds == [3, 1]
    assert [numbers(run.path) for run in made.runs] == [numbers(run) for run in runs_of([experiment])]
    found = maml_rl.load_experiment(experiment).evaluate(num_tasks=3, num_steps=1)
    assert [each.value for each in found.mean] == pytest.approx(
        [sum(column) / 2 for column in zip(*(each.mean for each in made.curves(num_tasks=3, num_steps=1)), strict=True)]
    )
    with pytest.raises(ValueError, match="seeds must name at least one seed"):
        maml_rl.train_seeds(NAVIGATION, seeds=[])
    with pytest.raises(ValueError, match="no experiment"):
        maml_rl.load_experiment(experiment / "seed-1")


def test_other_kinds_of_tasks_have_seeds_too(tmp_path):
    flags = ["--num-iterations", "2", "--num-tasks", "2", "--evaluate-every", "0", "--seeds", "1", "2"]
    assert train(SINUSOID, [*flags, "--output-dir", str(tmp_path / "sinusoid")]) == 0
    assert [len(numbers(run)) for run in runs_of([tmp_path / "sinusoid"])] == [2, 2]
