"""The benchmark command on tiny settings: what it prints, how its numbers hang together, what it refuses."""

import json

import pytest

from maml_rl import cli_benchmark
from maml_rl.cli_benchmark import benchmark

TINY = ["--num-tasks", "2", "--episodes-per-task", "2", "--horizon", "5", "--hidden-sizes", "4", "--repeats", "1"]


def printed(capsys, *arguments):
    assert benchmark([*arguments, *TINY, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("physics", ["gym", "rllab"])
def test_sampling_is_put_beside_the_bare_physics(physics, capsys):
    result = printed(capsys, "sampling", "--physics", physics)
    assert result["env"] == f"maml/HalfCheetahVel-{physics}-v0"
    assert result["ratio"] == pytest.approx(result["sampling_steps_per_s"] / result["raw_physics_steps_per_s"])
    assert result["raw_physics_steps_per_s"] > 0


def test_an_iteration_is_its_parts(capsys):
    result = printed(capsys, "iteration", "--physics", "rllab")
    parts = sum(result[f"{part}_seconds"] for part in ("sample", "adapt", "outer"))
    assert 0 < parts <= result["seconds_per_iteration"]
    assert result["ratio_to_floor"] == pytest.approx(result["seconds_per_iteration"] / result["physics_floor_seconds"])
    assert all(result[f"{part}_seconds"] > 0 for part in ("gradient", "fisher", "line_search"))


def test_figures_are_drawn_and_their_numbers_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli_benchmark, "TASK_COUNTS", (1, 3))
    result = printed(capsys, "figures", "--output-dir", str(tmp_path / "new"))
    assert result["tasks"]["num_tasks"] == [1, 3]
    assert [each["env"] for each in result["iteration"]] == [f"maml/HalfCheetahVel-{p}-v0" for p in ("gym", "rllab")]
    assert json.loads((tmp_path / "new/benchmark.json").read_text()) == result
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "benchmark.json",
        "cost_per_task.png",
        "iteration.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "repeats must be at least 1, got 0"),
        (["--device", "cuda:99"], "device cuda:99 must be a GPU that torch can use"),
        (["--episodes-per-task", "0"], "episodes_per_task must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(arguments, message, capsys):
    assert benchmark(["sampling", *TINY, *arguments]) == 2
    assert message in capsys.readouterr().err
