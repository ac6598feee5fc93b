"""Commands on learners whose predictions are distributions: scores, pictures, refusals."""

import csv
import itertools
import json
import re

import matplotlib.image
import numpy as np
import pytest
from pictures import write_folders

from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train
from maml_rl.commands.visualize import visualize
from maml_rl.experiments.forecasts import NUM_READINGS, drawn_functions
from maml_rl.experiments.runs import load_trained, read_config

SMALL = ["--num-tasks", "3", "--num-iterations", "2", "--num-threads", "1", "--evaluation.num-tasks", "4"]
LINES = ["--env", "sinusoid-or-line", "--sinusoid.hidden-sizes", "8", "8", "--evaluate-every", "2"]
AMBIGUOUS = ["--ways", "2", "--rotations", "ambiguous", "--test-rotations", "ambiguous", "--queries", "2"]
AS_AT_TEST = ["--train-ways", "2", "--train-shots", "1"]  # in training, whatever the learner's preset says


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for learner in ("platipus", "maml"):
        found[learner] = folder / learner
        flags = [*LINES, *SMALL, "--learner", learner, "--output-dir", str(found[learner])]
        assert train("sinusoid", flags) == 0
    return found


def scored(run, capfd, *flags):
    assert evaluate([str(run), "--num-tasks", "6", "--json", *flags]) == 0
    out, err = capfd.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize("learner", ["platipus", "maml"])
def test_likelihood_and_calibration_stand_beside_the_error(learner, runs, capfd):
    result, err = scored(runs[learner], capfd, "--num-steps", "2")
    assert len(result["nll"]["mean"]) == len(result["nll"]["ci95"]) == len(result["calibration_error"]) == 3
    # with noise of 0.3 and one function the likelihood is the error's: mse / (2 * 0.3^2) + log(0.3 sqrt(2 pi))
    if learner == "maml":
        expected = [error / 0.18 - 0.2850342 for error in result["mean"]]
        assert result["nll"]["mean"] == pytest.approx(expected, rel=1e-4)
    assert all(0.0 <= error <= 1.0 for error in result["calibration_error"])
    assert sum(row["share"] for row in result["reliability"]) == pytest.approx(1.0)
    assert "nll" in err and "calib" in err
    with open(runs[learner] / "evaluation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"amplitude", "phase", "slope", "intercept"} <= rows[0].keys()
    assert all((row["slope"] == "") == (row["amplitude"] != "") for row in rows)


def test_the_table_keeps_its_digits_in_80_columns(runs, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result, err = scored(runs["platipus"], capfd, "--num-steps", "2")
    rows = [line.split() for line in err.splitlines() if re.match(r" +[012] +\d+ ", line)]
    assert [row[-1] for row in rows] == [f"{error:.3g}" for error in result["calibration_error"]]


def test_the_number_of_draws_is_asked_for(runs, capfd):
    one, many = (scored(runs["platipus"], capfd, "--num-draws", count)[0] for count in ("1", "30"))
    assert one["mean"] != many["mean"]
    assert many["nll"]["mean"][0] < one["nll"]["mean"][0]  # the mixture of draws from the prior is the wider one


@pytest.mark.parametrize(
    ("learner", "flags", "message"),
    [
        ("platipus", ["--num-draws", "0"], "evaluation.num_draws must be at least 1, got 0"),
        ("maml", ["--num-draws", "3"], "--num-draws 3 applies to --learner platipus, not to --learner maml: leave it"),
    ],
)
def test_draws_that_cannot_be_taken_are_refused(learner, flags, message, runs, tmp_path, capfd):
    assert evaluate([str(runs[learner]), *flags, "--output", str(tmp_path / "scores")]) == 2
    assert message in capfd.readouterr().err and not list(tmp_path.iterdir())


def test_pictures_show_drawn_functions_and_reliability(runs, tmp_path):
    for learner in ("platipus", "maml"):
        flags = ["--output-dir", str(tmp_path / learner), "--num-tasks", "6"]
        assert visualize(None, [str(runs[learner]), *flags]) == 0
        made = {path.name for path in (tmp_path / learner).iterdir()}
        assert "reliability.png" in made and ("functions.png" in made) == (learner == "platipus")
        for path in (tmp_path / learner).iterdir():
            assert matplotlib.image.imread(path).std() > 0.01


def test_more_examples_of_a_function_are_the_same_ones_and_further_ones(runs):
    trained = load_trained(runs["platipus"], read_config(runs["platipus"]), "last")
    rows = drawn_functions(trained)
    trained.built.close()
    assert len(rows) == 2  # a sinusoid and a line
    for row in rows:
        assert [len(panel.examples[0]) for panel in row] == [1, 5, 10]
        for fewer, more in itertools.pairwise(row):
            count = len(fewer.examples[0])
            assert fewer.task == more.task
            assert all((some == part[:count]).all() for some, part in zip(fewer.examples, more.examples, strict=True))
            assert not np.allclose(fewer.drawn, more.drawn, atol=1e-3)  # each panel's draws are from its own examples


def train_ambiguously(learner, folder):
    """Train on episodes of small drawings that can be read two ways; return the exit status."""
    data = write_folders(folder / "data")
    flags = ["--env", "images", "--data-root", str(data), "--image-size", "16", "--learner", learner]
    flags += [] if learner == "pixels" else ["--num-filters", "4"]
    flags += [*SMALL, *AMBIGUOUS, *AS_AT_TEST, "--evaluate-every", "2"]
    return train("omniglot", [*flags, "--output-dir", str(folder / "run")])


@pytest.mark.parametrize("learner", ["platipus", "maml", "prototypical", "matching", "pixels"])
def test_ambiguous_episodes_are_trained_scored_and_drawn(learner, own_cache, tmp_path, capfd):
    run = tmp_path / "run"
    assert train_ambiguously(learner, tmp_path) == 0
    assert visualize(None, [str(run), "--output-dir", str(tmp_path / "pictures"), "--num-tasks", "3"]) == 0
    made = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {"readings.png", "readings.csv", "reliability.png"} <= made and "episodes.png" not in made
    with open(tmp_path / "pictures" / "readings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (NUM_READINGS if learner == "platipus" else 1)
    assert all(0.0 <= float(row["upright"]) <= 1.0 for row in rows)
    assert evaluate([str(run), "--num-tasks", "4", "--json"]) == 0
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert found["metric"] == "accuracy" and found["learner"] == learner


def test_ambiguous_episodes_have_no_showings(own_cache, tmp_path, capfd):
    assert train_ambiguously("prototypical", tmp_path) == 0
    before = sorted(tmp_path.rglob("*"))
    assert evaluate([str(tmp_path / "run"), "--protocol", "showings", "--output", str(tmp_path / "scores")]) == 2
    err = " ".join(capfd.readouterr().err.split())
    assert "rotations must be classes, random or none with protocol showings, got ambiguous: a showing has one" in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--ways", "5"],
            "2 ways and 1 shot in training and test, got rotations ambiguous, test_rotations ambiguous, in training 5",
        ),
        (["--test-rotations", "none"], "got rotations ambiguous, test_rotations none, in training 2 ways and 1 shots"),
        (["--posterior.num-draws", "0"], "posterior.num_draws must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(flags, message, tmp_path, capfd):
    given = [*AMBIGUOUS, *flags, "--learner", "platipus", "--data-root", str(tmp_path), "--output-dir"]
    try:
        status = train("omniglot", [*given, str(tmp_path / "run")])
    except SystemExit as ended:
        status = ended.code
    err = " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert status == 2 and message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("learner", "flags"),
    [
        ("reptile", []),
        ("joint", []),
        ("neural-statistician", []),
        ("memory", []),
        ("memory", ["--memory.keep"]),
    ],
)
def test_learners_of_an_episodes_classes_refuse_ambiguous_ones(learner, flags, tmp_path, capfd):
    given = [*SMALL, *AMBIGUOUS, *AS_AT_TEST, "--learner", learner, *flags]
    assert train("omniglot", [*given, "--output-dir", str(tmp_path / "run")]) == 2
    err = " ".join(capfd.readouterr().err.split())
    assert f"rotations must be classes, random or none for learner {learner}, got ambiguous" in err
    assert not (tmp_path / "run").exists()
