"""The evaluation command: a table for people, one JSON line for programs, refusals in a sentence."""

import json

import pytest

from maml_rl.cli import train
from maml_rl.cli_evaluate import evaluate
from maml_rl.config import SINUSOID, RunConfig

TINY = [
    "--num-tasks",
    "2",
    "--episodes-per-task",
    "2",
    "--horizon",
    "5",
    "--evaluate-every",
    "0",
    "--num-iterations",
    "2",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for env in ("maml/Navigation2D-v0", SINUSOID):
        flags = [*TINY, "--outer.step", "gradient", "--output-dir", str(folder / env.split("/")[-1])]
        assert train(RunConfig(env=env), flags) == 0
    return {"return": folder / "Navigation2D-v0", "mse": folder / SINUSOID}


@pytest.mark.parametrize("metric", ["return", "mse"])
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_scores_after_each_step(runs, metric, checkpoint, capfd):
    flags = ["--num-tasks", "3", "--num-steps", "2", "--checkpoint", checkpoint, "--json"]
    assert evaluate([str(runs[metric]), *flags]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["metric"] == metric and result["num_tasks"] == 3
    assert len(result["mean"]) == len(result["ci95"]) == 3
    assert len(result["step_sizes"]) == 2
    assert "3 fresh tasks" in err


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(runs, capfd):
    found = []
    for seed in ("1", "1", "2"):
        assert evaluate([str(runs["return"]), "--num-tasks", "2", "--num-steps", "1", "--seed", seed, "--json"]) == 0
        found.append(json.loads(capfd.readouterr().out)["mean"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-steps", "-1"], "evaluation.num_steps must be at least 0, got -1"),
        (["--num-tasks", "0"], "evaluation.num_tasks must be at least 1, got 0"),
        (["--first-step-size", "0"], "evaluation.first_step_size must be positive and finite, got 0.0"),
        (["--num-examples", "5"], "num_examples applies to sinusoid alone"),
    ],
)
def test_wrong_settings_are_refused(runs, flags, message, capfd):
    assert evaluate([str(runs["return"]), *flags]) == 2
    assert message in capfd.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capfd):
    assert evaluate([str(tmp_path)]) == 2
    assert "is no run folder" in capfd.readouterr().err
