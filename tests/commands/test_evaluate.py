"""The evaluation command: a table for people, one JSON line for programs, refusals in a sentence."""

import csv
import json
import shutil

import pytest

from maml_rl.api.run import Run
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train
from maml_rl.experiments.config import SINUSOID

FEW = ["--num-tasks", "2", "--evaluate-every", "0", "--num-iterations", "2"]
TINY = [*FEW, "--episodes-per-task", "2", "--horizon", "5"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for env in ("maml/Navigation2D-v0", SINUSOID, "test/Reach-v0"):
        flags = [*(FEW if env == SINUSOID else TINY), "--outer.step", "gradient"]
        flags += ["--output-dir", str(folder / env.split("/")[-1])]
        assert train(env, flags) == 0
    return {"return": folder / "Navigation2D-v0", "mse": folder / SINUSOID, "success": folder / "Reach-v0"}


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


@pytest.mark.parametrize("metric", ["return", "success"])
def test_one_task_has_no_interval(runs, metric, capfd):
    assert evaluate([str(runs[metric]), "--num-tasks", "1", "--num-steps", "1", "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["ci95"] == [None, None] and "+-" not in err
    assert all(each["ci95"] == [None, None] for each in result["further"].values())


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(runs, capfd):
    found = []
    for seed in ("1", "1", "2"):
        assert evaluate([str(runs["return"]), "--num-tasks", "2", "--num-steps", "1", "--seed", seed, "--json"]) == 0
        found.append(json.loads(capfd.readouterr().out)["mean"])
    assert found[0] == found[1] != found[2]


def test_the_number_of_episodes_is_the_evaluations_own(runs, tmp_path, capfd):
    # what training writes in its evaluation columns is what the command finds at that iteration and seed
    run = tmp_path / "run"
    own = ["--evaluation.episodes-per-task", "3", "--evaluation.num-tasks", "2", "--evaluation.num-steps", "1"]
    flags = [*TINY, "--evaluate-every", "2", *own, "--output-dir", str(run)]
    assert train("maml/Navigation2D-v0", flags) == 0
    row = list(csv.DictReader((run / "metrics.csv").open()))[-1]
    capfd.readouterr()
    found = {}
    for count in (None, 3, 4):
        more = [] if count is None else ["--episodes-per-task", str(count)]
        arguments = [str(run), "--num-tasks", "2", "--num-steps", "1", "--seed", "0", "--json", *more]
        assert evaluate(arguments) == 0
        found[count] = json.loads(capfd.readouterr().out)
        assert f"{count or 3} new episodes per task" in found[count]["episodes"]
    assert found[None]["mean"] == [float(row["eval_return_0"]), float(row["eval_return_1"])]
    assert found[None]["mean"] == found[3]["mean"] != found[4]["mean"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-steps", "-1"], "evaluation.num_steps must be at least 0, got -1"),
        (["--episodes-per-task", "0"], "evaluation.episodes_per_task must be at least 1, got 0"),
        (["--num-tasks", "0"], "evaluation.num_tasks must be at least 1, got 0"),
        (["--first-step-size", "0"], "error: first_step_size must be positive and finite, got 0.0"),
        (["--later-step-size", "-1"], "error: later_step_size must be positive and finite, got -1.0"),
        (["--later-step-size", "inf"], "error: later_step_size must be positive and finite, got inf"),
        (["--num-examples", "5"], "num_examples applies to regression alone"),
        (["--task-range", "1", "1"], "task_range must be two finite numbers, the lower first, got 1 1"),
        (["--task-range", "0", "inf"], "task_range must be two finite numbers, the lower first, got 0 inf"),
        (["--output", "/nowhere/at/all"], "name another by --output"),
    ],
)
def test_wrong_settings_are_refused(runs, flags, message, capfd):
    assert evaluate([str(runs["return"]), *flags]) == 2
    assert message in capfd.readouterr().err


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_computed(runs, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Run, "opened", lambda *_: pytest.fail("computed"))
    (tmp_path / "a.json").mkdir()
    assert evaluate([str(runs["return"]), "--output", str(tmp_path / "a")]) == 2
    assert "a.json is a folder; choose another" in capfd.readouterr().err
    assert evaluate([str(runs["return"]), "--output", str(tmp_path / ("a" * 254))]) == 2
    assert "File name too long" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("metric", "flags", "message"),
    [
        (
            "mse",
            ["--split", "train"],
            "--split train applies to task environments, not to --env sinusoid: leave it out",
        ),
        ("mse", ["--episodes-per-task", "3"], "--episodes-per-task 3 applies to task environments, not to --env sin"),
        ("return", ["--part", "train"], "part applies to few-shot classification alone, but the run's environment is"),
    ],
)
def test_settings_that_the_run_would_ignore_are_refused(metric, runs, flags, message, capfd):
    assert evaluate([str(runs[metric]), *flags]) == 2
    assert message in capfd.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capfd):
    assert evaluate([str(tmp_path)]) == 2
    assert "is no run folder" in capfd.readouterr().err


def result(run, capfd, *flags):
    assert evaluate([str(run), "--num-tasks", "4", "--num-steps", "1", *flags, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def table(path):
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("metric", ["return", "mse"])
def test_files_beside_the_run_say_what_stdout_says(runs, metric, tmp_path, capfd):
    shutil.copytree(runs[metric], tmp_path / "run")
    found = result(tmp_path / "run", capfd)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == found
    rows = table(tmp_path / "run" / "evaluation.csv")
    assert len(rows) == 4
    for step in (0, 1):
        assert sum(row[f"{metric}_{step}"] for row in rows) / 4 == pytest.approx(found["mean"][step])
    sign = 1 if metric == "return" else -1
    for row in rows:
        assert row["gain"] == pytest.approx(sign * (row[f"{metric}_1"] - row[f"{metric}_0"]))
    assert found["share_worse"][1] == sum(row["gain"] < 0 for row in rows) / 4
    assert found["gain"][1] == pytest.approx(sum(row["gain"] for row in rows) / 4)


@pytest.mark.parametrize(("metric", "names"), [("return", ["x", "y"]), ("mse", ["amplitude"])])
def test_tasks_come_from_the_range_that_is_asked_for(runs, metric, names, tmp_path, capfd):
    found = result(runs[metric], capfd, "--task-range", "7", "8", "--output", str(tmp_path / "far"))
    assert found["task_range"] == [7.0, 8.0]
    assert all(7.0 <= row[name] <= 8.0 for row in table(tmp_path / "far.csv") for name in names)


def test_mean_actions_are_another_measure_and_say_so(runs, tmp_path, capfd):
    sampled = result(runs["return"], capfd, "--output", str(tmp_path / "a"))
    mean = result(runs["return"], capfd, "--actions", "mean", "--output", str(tmp_path / "b"))
    assert sampled["mean"] != mean["mean"]
    assert "sampled actions; the next step adapts on the same" in sampled["episodes"]
    assert "mean actions; adapted on as many others" in mean["episodes"]
    assert evaluate([str(runs["mse"]), "--actions", "mean"]) == 2
    assert "mean actions need a policy" in capfd.readouterr().err


def test_a_checkpoint_of_another_environment_is_refused(runs, tmp_path, capfd):
    shutil.copytree(runs["return"], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.copytree(runs["mse"] / "checkpoints", tmp_path / "run" / "checkpoints")
    assert evaluate([str(tmp_path / "run")]) == 2
    error = capfd.readouterr().err
    assert "must fit maml/Navigation2D-v0" in error and "it is another run's" in error and error.count("\n") == 1


def test_tasks_without_a_range_are_refused(tmp_path, capfd):
    flags = [*TINY, "--outer.step", "gradient", "--output-dir", str(tmp_path / "run"), "--num-iterations", "0"]
    assert train("maml/HalfCheetahDir-rllab-v0", flags) == 0
    assert evaluate([str(tmp_path / "run"), "--task-range", "0", "1"]) == 2
    assert "are drawn from no range" in capfd.readouterr().err


def test_diverging_adaptation_ends_in_a_sentence_or_in_null(runs, tmp_path, capfd):
    flags = ["--first-step-size", "1e30", "--num-steps", "1", "--output", str(tmp_path / "a")]
    assert evaluate([str(runs["return"]), *flags]) == 1
    assert "is not finite" in capfd.readouterr().err
    found = result(runs["mse"], capfd, *flags)
    assert found["mean"][1] is None and found["share_worse"][1] == 1.0


def test_success_stands_beside_the_return(runs, tmp_path, capfd):
    assert (
        evaluate(
            [str(runs["success"]), "--num-tasks", "6", "--num-steps", "1", "--output", str(tmp_path / "a"), "--json"]
        )
        == 0
    )
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert found["metric"] == "return" and found["further"].keys() == {"success"} and "success" in err
    rows = table(tmp_path / "a.csv")
    for step in (0, 1):
        rates = [row[f"success_{step}"] for row in rows]
        assert set(rates) <= {0.0, 0.5, 1.0}  # of two episodes each
        assert sum(rates) / 6 == pytest.approx(found["further"]["success"]["mean"][step])
    assert result(runs["return"], capfd)["further"] == {}


def test_tasks_are_those_set_aside_unless_those_of_training_are_asked_for(runs, tmp_path, capfd):
    for flags, is_aside in (([], True), (["--split", "train"], False)):
        found = result(runs["success"], capfd, *flags, "--output", str(tmp_path / "a"))
        assert found["split"] == ("test" if is_aside else "train")
        assert all((abs(row["x"]) > 1.0) == is_aside for row in table(tmp_path / "a.csv"))


def test_success_is_in_the_log_of_training(tmp_path):
    flags = [*TINY, "--outer.step", "gradient", "--output-dir", str(tmp_path / "run"), "--evaluate-every", "1"]
    assert train("test/Reach-v0", [*flags, "--evaluation.num-steps", "1", "--evaluation.num-tasks", "2"]) == 0
    (last,) = table(tmp_path / "run" / "metrics.csv")[-1:]
    assert {"success_before", "success_after", "eval_success_0", "eval_success_1_ci95"} <= last.keys()
    assert 0.0 <= last["success_after"] <= 1.0
