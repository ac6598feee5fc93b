"""Few-shot classification by its commands: training with each learner, resuming, evaluation, refusals."""

import ast
import csv
import json

import pytest
from pictures import write_folders
from safetensors.torch import load_file

from maml_rl.cli import train, train_omniglot
from maml_rl.cli_evaluate import evaluate
from maml_rl.cli_visualize import visualize
from maml_rl.config import RunConfig
from maml_rl.presets import FEW_SHOT_PRESETS, omniglot
from maml_rl.trained import read_config

pytestmark = pytest.mark.usefixtures("own_cache")

LEARNERS = ("maml", "fomaml", "anil", "meta-sgd", "reptile", "joint", "prototypical", "matching", "pixels")
SMALL = ["--env", "images", "--image-size", "16", "--num-filters", "4", "--ways", "3", "--num-tasks", "2"]
SMALL += ["--evaluation.num-tasks", "4", "--evaluate-every", "2", "--test-queries", "2", "--queries", "2"]
SMALL += ["--checkpoint-every", "1", "--num-threads", "1"]
CLOCK = ("_seconds", "_per_s")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("pictures") / "data")


def small(learner, data, folder, *flags):
    shape = ["--train-shots", "3"] if learner == "reptile" else []
    shape += ["--train-ways", "6"] if learner in ("prototypical", "matching") else []
    return [*SMALL, "--learner", learner, "--data-root", str(data), "--output-dir", str(folder), *shape, *flags]


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith(CLOCK)} for row in csv.DictReader(file)]


def state(folder):
    name = (folder / "checkpoints" / "latest").read_text().strip()
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_resumed_run_is_the_run_that_never_stopped_and_can_be_evaluated(learner, data, tmp_path, capfd):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_omniglot(small(learner, data, whole, "--num-iterations", "4")) == 0
    assert train_omniglot(small(learner, data, parts, "--num-iterations", "2")) == 0
    assert train(RunConfig(), ["--resume", str(parts), "--num-iterations", "4"]) == 0
    assert rows(whole) == rows(parts) and len(rows(whole)) == 4
    ones, others = state(whole), state(parts)
    assert ones.keys() == others.keys()
    assert all(ones[name].numpy().tobytes() == others[name].numpy().tobytes() for name in ones)
    capfd.readouterr()
    assert evaluate([str(whole), "--num-tasks", "5", "--data-root", str(data), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    config = omniglot(learner, 3, 1)
    assert found["metric"] == "accuracy" and found["num_tasks"] == 5 and found["learner"] == learner
    assert found["norm"] == config.network.norm and found["steps"][-1] == config.evaluation.num_steps
    assert len(found["mean"]) == len(found["ci95"]) == len(found["steps"])
    assert all(0.0 <= mean <= 1.0 for mean in found["mean"])
    with open(whole / "evaluation.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 5


@pytest.mark.parametrize("learner", sorted(FEW_SHOT_PRESETS["fast"]))
def test_the_fast_preset_is_what_holds_where_nothing_is_said(learner, data, tmp_path):
    flags = small(learner, data, tmp_path / "run", "--preset", "fast", "--num-iterations", "1")
    assert train_omniglot(flags) == 0
    config, paper = read_config(tmp_path / "run"), omniglot(learner, 3, 1)
    assert config.outer.gradient.decay == "cosine" and config.learner == learner
    assert config.network.norm == paper.network.norm and config.inner.only == paper.inner.only
    assert config.training.num_tasks == 2  # what is said holds
    if learner not in ("prototypical", "matching"):
        assert config.inner.step_size == 0.4 and config.evaluation.step_sizes == (0.4,) * 3


def test_a_learner_without_a_fast_preset_is_told_so(data, tmp_path, capfd):
    assert train_omniglot(small("reptile", data, tmp_path / "run", "--preset", "fast")) == 2
    assert "preset fast exists for the learners ['anil', 'fomaml', " in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("learner", "plots"), [("reptile", {"adaptation_curve.png"}), ("prototypical", set())])
def test_pictures_of_a_run_show_episodes(learner, plots, data, tmp_path, capfd):
    run, pictures = tmp_path / "run", tmp_path / "pictures"
    assert train_omniglot(small(learner, data, run, "--num-iterations", "2")) == 0
    capfd.readouterr()
    flags = ["--output-dir", str(pictures), "--data-root", str(data), "--num-tasks", "3", "--num-shown", "2"]
    assert visualize(None, [str(run), *flags]) == 0
    expected = {"learning_curve.png", "episodes.png"} | plots
    assert {path.name for path in pictures.iterdir()} == expected  # nothing that was written aside is left
    assert {line.split("/")[-1] for line in capfd.readouterr().out.splitlines()} == expected
    assert visualize(None, [str(run), *flags, "--actions", "mean"]) == 2
    assert "mean actions do not apply to images" in capfd.readouterr().err


def test_normalisation_of_a_run_may_be_judged_both_ways(data, tmp_path, capfd):
    assert train_omniglot(small("maml", data, tmp_path / "run", "--num-iterations", "1")) == 0
    for norm in ("batch", "support"):
        capfd.readouterr()
        flags = ["--norm", norm, "--data-root", str(data), "--num-tasks", "3", "--json"]
        assert evaluate([str(tmp_path / "run"), *flags]) == 0
        assert json.loads(capfd.readouterr().out)["norm"] == norm


def test_a_run_may_be_asked_episodes_of_another_size(data, tmp_path, capfd):
    run = tmp_path / "run"
    assert train_omniglot(small("maml", data, run, "--num-iterations", "1", "--train-ways", "6")) == 0
    flags = [str(run), "--data-root", str(data), "--num-tasks", "3", "--json"]
    capfd.readouterr()
    assert evaluate([*flags, "--ways", "6", "--shots", "2"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["ways"], found["shots"]) == (6, 2) and read_config(run).episodes.shots == 1
    assert evaluate([*flags, "--ways", "7"]) == 2
    assert "train_ways must be at least ways, 7, for learner maml, got 6" in capfd.readouterr().err
    assert evaluate([*flags, "--shots", "0"]) == 2
    assert "shots must be at least 1, got 0" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ways", "100"], "ways must be at most the number of classes, 48, got 100"),
        (["--ways", "30"], "ways must be at most the number of classes, 24, got 30"),
        (["--shots", "5"], "every class must have shots + queries = 5 + 2 pictures, but train/c00 has 6"),
        (["--ways", "5", "--train-ways", "4"], "train_ways must be at least ways, 5, for learner maml, got 4"),
        (["--norm", "running"], "norm must be batch, support or none for learner maml, got running"),
        (["--learner", "fomaml", "--inner.no-first-order"], "learner fomaml needs first_order True in inner"),
        (["--learner", "prototypical", "--image-size", "8", "--train-ways", "6"], "image_size must be at least 16"),
        (
            ["--image-size", "1000000"],
            "image_size must let the network's first maps of one picture of each class fit into",
        ),
        (["--image-size", "1000000", "--learner", "pixels"], "image_size must let 108 pictures fit into"),
        (["--inner.only", "tail"], "inner.only must name some of the parameters"),
        (["--data-root", "nowhere"], "nowhere must hold train/ and test/"),
        (["--env", "omniglot", "--data-root", "nowhere"], "--data-root must name a folder that holds omniglot/"),
        (["--env", "sinusoid", "--learner", "prototypical"], "learner prototypical classifies pictures, but the run's"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(flags, message, data, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    assert train_omniglot([*small("maml", data, tmp_path / "run"), "--num-iterations", "1", *flags]) == 2
    assert message in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_evaluation_refuses_what_a_run_cannot_do(data, tmp_path, capfd):
    assert train_omniglot(small("pixels", data, tmp_path / "run", "--num-iterations", "0")) == 0
    assert evaluate([str(tmp_path / "run"), "--one-shot-runs", "--data-root", str(data)]) == 2
    needs = "one_shot_runs needs a run trained with --env omniglot --split background-evaluation"
    assert needs in capfd.readouterr().err
    assert evaluate([str(tmp_path / "run"), "--norm", "batch", "--data-root", str(data)]) == 2
    assert "norm must stay none, with which the run was trained, got batch" in capfd.readouterr().err
    assert evaluate([str(tmp_path / "run"), "--split", "train", "--data-root", str(data)]) == 2
    assert "split does not apply to images: choose episodes by --part and --test-queries" in capfd.readouterr().err


def test_evaluation_asks_about_the_classes_it_is_told(data, tmp_path, capfd):
    assert train_omniglot(small("pixels", data, tmp_path / "run", "--num-iterations", "0")) == 0
    asked = {}
    for part in ("train", "test"):
        capfd.readouterr()
        flags = ["--part", part, "--num-tasks", "30", "--data-root", str(data), "--json"]
        assert evaluate([str(tmp_path / "run"), *flags]) == 0
        captured = capfd.readouterr()
        assert json.loads(captured.out)["part"] == part
        assert f"30 {'tasks of training' if part == 'train' else 'fresh tasks'}" in captured.err
        with open(tmp_path / "run" / "evaluation.csv", newline="") as file:
            asked[part] = {c for row in csv.DictReader(file) for c in ast.literal_eval(row["classes"])}
    assert len(asked["train"]) == 12 and len(asked["test"]) == 6 and not asked["train"] & asked["test"]


def test_the_real_omniglot_is_learned_from_and_judged_by_its_one_shot_runs(real_data, tmp_path, capfd):
    flags = ["--learner", "prototypical", "--split", "background-evaluation", "--data-root", real_data]
    flags += ["--num-iterations", "12", "--train-ways", "10", "--num-filters", "16", "--evaluate-every", "0"]
    flags += ["--outer.gradient.learning-rate", "0.01"]
    run = tmp_path / "run"
    assert train_omniglot([*flags, "--output-dir", str(run)]) == 0
    for question, chance in ((["--num-tasks", "20"], 0.2), (["--one-shot-runs"], 0.05)):
        capfd.readouterr()
        assert evaluate([str(run), "--data-root", real_data, "--json", *question]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["mean"][0] > 1.5 * chance and found["num_tasks"] == 20
    assert found["part"] == "one-shot runs"
