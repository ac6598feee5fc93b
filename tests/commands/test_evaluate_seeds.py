"""Evaluation on given tasks, and of an experiment's seeds together."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

import maml_rl
from maml_rl.commands import evaluate as evaluate_command
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train
from maml_rl.evaluation.statistics import interquartile_mean
from maml_rl.experiments.config import SINUSOID
from maml_rl.experiments.published import PUBLISHED
from maml_rl.experiments.published_tasks import PUBLISHED_TASKS

NAVIGATION = "maml/Navigation2D-v0"
TINY = ["--num-tasks", "2", "--evaluate-every", "0", "--episodes-per-task", "2", "--horizon", "5"]
TINY += ["--evaluation.episodes-per-task", "2", "--outer.step", "gradient"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Seeds of one experiment, of another length, with another step size, two that begin with earlier runs, and two
    that each have their own expert."""
    folder = tmp_path_factory.mktemp("experiment")
    variants = {f"seed{seed}": ["--seed", str(seed), "--num-iterations", "1"] for seed in (1, 2, 3)}
    variants["longer"] = ["--seed", "4", "--num-iterations", "2"]
    variants["other"] = ["--seed", "5", "--num-iterations", "1", "--inner.step-size", "0.25"]
    for seed in (1, 2):
        begin = ["--init-from", str(folder / f"seed{seed}")]
        variants[f"begun{seed}"] = ["--seed", str(seed), "--num-iterations", "1", *begin]
        told = ["--oracle", "--inner.num-steps", "0"]
        variants[f"expert{seed}"] = ["--seed", str(seed), "--num-iterations", "1", *told]
        guide = ["--learner", "gmps", "--expert", str(folder / f"expert{seed}")]
        variants[f"guided{seed}"] = ["--seed", str(seed), "--num-iterations", "1", *guide]
    for name, flags in variants.items():
        assert train(NAVIGATION, [*TINY, *flags, "--output-dir", str(folder / name)]) == 0
    return folder


@pytest.fixture
def score(experiment, tmp_path, capfd):
    """Evaluate runs of the experiment by name; return the result as JSON and what was printed."""

    def score(*names, flags=("--num-tasks", "4")):
        capfd.readouterr()
        runs = [str(experiment / name) for name in names]
        assert evaluate([*runs, "--num-steps", "1", "--json", "--output", str(tmp_path / "scores"), *flags]) == 0
        out, err = capfd.readouterr()
        return json.loads(out), err

    return score


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_published_tasks_are_scored_beside_the_published_returns(score, tmp_path):
    found, printed = score("seed1", flags=["--tasks", "published"])
    goals = PUBLISHED_TASKS[NAVIGATION].tasks()
    scored = [(float(row["x"]), float(row["y"])) for row in rows_of(tmp_path / "scores.csv")]
    assert scored == [(goal.x, goal.y) for goal in goals]
    assert found["num_tasks"] == 40 and found["tasks"]["name"] == "published"
    assert found["tasks"]["source"] == PUBLISHED_TASKS[NAVIGATION].source
    assert found["published"] == list(PUBLISHED[NAVIGATION].maml)
    assert "40 published tasks" in printed and "-40.4" in printed


def test_the_tasks_of_a_table_are_those_that_it_was_made_of(score, tmp_path):
    fresh, _ = score("seed1")
    shutil.copy(tmp_path / "scores.csv", tmp_path / "earlier.csv")
    again, printed = score("seed1", flags=["--tasks", str(tmp_path / "earlier.csv")])
    assert again["mean"] == fresh["mean"] and again["published"] == [] == fresh["published"]
    assert fresh["tasks"] == {"name": "fresh", "source": "drawn with seed 1"}
    assert again["tasks"]["name"] == str(tmp_path / "earlier.csv") and "4 tasks of" in printed


def test_python_scores_the_same_tasks(experiment, score, tmp_path):
    run = maml_rl.load(experiment / "seed1")
    tasks = run.sample_tasks(4)
    fresh = run.evaluate(num_tasks=4, num_steps=1)
    assert run.evaluate(tasks=tasks, num_steps=1).mean == fresh.mean
    (tmp_path / "tasks.json").write_text(json.dumps([{"x": task.x, "y": task.y} for task in tasks]))
    assert run.evaluate(tasks=tmp_path / "tasks.json", num_steps=1).mean == fresh.mean
    published, _ = score("seed1", flags=["--tasks", "published"])
    assert run.evaluate(tasks="published", num_steps=1).mean == published["mean"]
    with pytest.raises(ValueError, match="num_tasks must be left out where tasks are given, got 3"):
        run.evaluate(num_tasks=3, tasks=tasks)
    with pytest.raises(ValueError, match="num_tasks must be at least 1, got 0"):
        run.evaluate(num_tasks=0)


def test_seeds_are_scored_on_the_same_tasks_and_taken_together(score, tmp_path):
    alone = [score(name)[0] for name in ("seed1", "seed2", "seed3")]
    found, printed = score("seed1", "seed2", "seed3")
    assert found["mean"] == pytest.approx(np.mean([each["mean"] for each in alone], axis=0))
    assert found["gain"] == pytest.approx(np.mean([each["gain"] for each in alone], axis=0))
    assert [each["mean"] for each in found["runs"]] == [each["mean"] for each in alone]
    assert found["seeds"] == [1, 2, 3] == [each["seed"] for each in found["runs"]]
    rows = rows_of(tmp_path / "scores.csv")
    assert [(row["seed"], row["task"]) for row in rows] == [(s, t) for s in "123" for t in "0123"]
    assert len({(row["x"], row["y"]) for row in rows}) == 4
    scores = np.array([[float(row["return_1"]) for row in rows]])
    assert found["interquartile_mean"][1] == pytest.approx(float(interquartile_mean(scores)))
    for name in ("mean", "interquartile_mean", "gain", "share_worse"):
        for value, (low, high) in zip(found[name], found[f"{name}_interval"], strict=True):
            assert low <= value <= high
    assert "seeds 1, 2, 3" in printed and "IQM" in printed and "return of each run" in printed


@pytest.mark.parametrize("name", ["begun", "guided"])
def test_each_seed_may_have_its_own_earlier_run(score, name):
    found, _ = score(f"{name}1", f"{name}2")
    assert found["seeds"] == [1, 2]


def test_results_of_several_runs_lie_in_their_folder(experiment, tmp_path, capfd):
    shutil.copytree(experiment, tmp_path / "runs")
    runs = [str(tmp_path / "runs" / name) for name in ("seed1", "seed2")]
    assert evaluate([*runs, "--num-tasks", "2", "--num-steps", "0"]) == 0
    assert (tmp_path / "runs" / "evaluation.json").exists() and (tmp_path / "runs" / "evaluation.csv").exists()
    assert evaluate([runs[0], str(experiment / "seed2")]) == 2
    assert "output must be given for runs that lie in different folders" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("names", "flags", "message"),
    [
        (
            ["seed1", "other"],
            [],
            "but from .*seed1 to .*other method.inner.step_size was 0.5, now 0.25",
        ),
        (["seed1", "begun2"], [], "but from .*seed1 to .*begun2 init_from was None, now .*seed2"),
        (["seed1", "seed1"], [], "runs must differ in their seed, but .*seed1 and .*seed1 both have seed 1"),
        (["seed1", "longer"], [], "runs must have come equally far, but .*seed1 is at iteration 1 and .*longer at 2"),
        (["seed1"], ["--tasks", "publishd"], "did you mean published?"),
        (["seed1"], ["--tasks", "published", "--num-tasks", "3"], "--num-tasks 3 must be left out with --tasks"),
        (["seed1"], ["--tasks", "published", "--split", "train"], "--split train must be left out with --tasks"),
    ],
)
def test_what_cannot_be_taken_together_is_refused_before_anything_is_computed(
    names, flags, message, experiment, monkeypatch, capfd
):
    monkeypatch.setattr(evaluate_command, "_curve", lambda *_: pytest.fail("computed"))
    runs = [str(experiment / name) for name in names]
    assert evaluate([*runs, "--output", str(experiment / "none"), *flags]) == 2
    error = capfd.readouterr().err
    assert re.search(message, error.replace("\n", " ")), error
    assert not list(experiment.glob("none*"))


def test_no_run_at_all_is_refused(capfd):
    with pytest.raises(SystemExit, match="2"):
        evaluate([])
    assert "RUNS must name the folder of a run, got none" in capfd.readouterr().err


def test_tasks_of_another_kind_are_refused_before_anything_is_computed(experiment, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(evaluate_command, "_curve", lambda *_: pytest.fail("computed"))
    (tmp_path / "speeds.json").write_text('[{"speed": 1.0}]')
    assert evaluate([str(experiment / "seed1"), "--tasks", str(tmp_path / "speeds.json")]) == 2
    error = capfd.readouterr().err
    assert "consist of x, y, but task 1 of" in error and "has speed: list objects or rows with x, y" in error
    (tmp_path / "far.json").write_text('[{"x": 0.1, "y": 0.9}]')
    assert evaluate([str(experiment / "seed1"), "--tasks", str(tmp_path / "far.json")]) == 2
    assert "must lie in -0.5 to 0.5, the range of maml/Navigation2D-v0, got 0.9: widen" in capfd.readouterr().err


def test_a_wider_range_lets_tasks_beyond_that_of_training_in(score, tmp_path):
    (tmp_path / "far.json").write_text('[{"x": 0.1, "y": 0.9}]')
    found, _ = score("seed1", flags=["--tasks", str(tmp_path / "far.json"), "--task-range", "-1", "1"])
    assert found["num_tasks"] == 1


def test_sinusoids_of_a_file(tmp_path, capfd):
    few = ["--num-tasks", "2", "--evaluate-every", "0", "--num-iterations", "1"]
    assert train(SINUSOID, [*few, "--output-dir", str(tmp_path / "run")]) == 0
    (tmp_path / "tasks.csv").write_text("amplitude,phase\n0.5,1.0\n4.0,2.0\n")
    capfd.readouterr()
    given = ["--tasks", str(tmp_path / "tasks.csv"), "--num-steps", "1", "--json"]
    assert evaluate([str(tmp_path / "run"), *given]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["metric"] == "mse" and found["num_tasks"] == 2
    assert found["gain"][1] == pytest.approx(found["mean"][0] - found["mean"][1])  # of an error, less is better
    assert evaluate([str(tmp_path / "run"), "--tasks", "published"]) == 2
    assert "tasks published are not known for sinusoid" in capfd.readouterr().err
