"""The comparison command: every method trained once, scored on the same tasks, drawn; nothing is done twice."""

import csv
import dataclasses
import json

import pytest

from maml_rl.commands.compare import CompareCommand, base_config, compare, method_config
from maml_rl.commands.leaderboard import leaderboard
from maml_rl.commands.train import train
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.experiments.environments import full_id
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.published import PUBLISHED
from maml_rl.experiments.runs import read_config
from maml_rl.experiments.training import Prepared
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.training.trainer import TrainingResult

NAVIGATION = "maml/Navigation2D-v0"
METHODS = ("maml", "fomaml", "pretrained", "random", "oracle")


def arguments(folder, *more):
    return ["--env", NAVIGATION, "--output-dir", str(folder), "--num-tasks", "3", "--json", *more]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    assert compare(arguments(folder, "--num-iterations", "1")) == 0
    return folder


def test_every_method_is_scored_with_its_own_steps(compared):
    result = json.loads((compared / "comparison.json").read_text())
    assert tuple(result["methods"]) == METHODS
    lengths = {method: len(found["mean"]) for method, found in result["methods"].items()}
    assert lengths == {"maml": 5, "fomaml": 5, "pretrained": 5, "random": 5, "oracle": 1}
    assert result["methods"]["random"]["step_sizes"] == [0.5, 0.25, 0.25, 0.25]
    assert result["published"]["maml"] == list(PUBLISHED[NAVIGATION].maml)
    with open(compared / "comparison.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(lengths.values())
    assert [float(row["published"]) for row in rows if row["method"] == "maml"] == list(PUBLISHED[NAVIGATION].maml)
    assert (compared / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_before_adaptation_all_untrained_policies_score_the_same(compared, tmp_path, capsys):
    # Without an iteration maml, pretrained and random are the same initial policy on the same tasks and noise.
    assert compare(arguments(tmp_path, "--num-iterations", "0", "--methods", "maml", "pretrained", "random")) == 0
    methods = json.loads(capsys.readouterr().out)["methods"]
    assert len({found["mean"][0] for found in methods.values()}) == 1


def test_what_is_done_is_not_done_again(compared, monkeypatch, capsys):
    before = json.loads((compared / "comparison.json").read_text())
    monkeypatch.setattr(Prepared, "train", lambda *_: pytest.fail("trained again"))
    assert compare(arguments(compared, "--num-iterations", "1")) == 0
    assert json.loads(capsys.readouterr().out) == before


def test_every_run_is_trained_and_scored_on_observations_that_it_has_normalised(tmp_path, monkeypatch, capsys):
    flags = ["--methods", "random", "oracle", "--num-iterations", "0", "--observations"]
    command = arguments(tmp_path, *flags, "normalised")
    assert compare(command) == 0
    scores = json.loads(capsys.readouterr().out)["methods"]
    tasks = [read_config(tmp_path / name).task for name in ("random", "oracle")]
    assert {task.observations for task in tasks} == {"normalised"}
    assert [len(task.observation_scale.mean) for task in tasks] == [2, 4]  # the oracle sees the goal, too
    monkeypatch.setattr(Prepared, "train", lambda *_: pytest.fail("trained again"))
    assert compare(command) == 0  # the numbers are measured anew, and are the same
    assert json.loads(capsys.readouterr().out)["methods"] == scores
    assert compare(arguments(tmp_path, *flags, "raw")) == 2
    assert "random holds another run" in capsys.readouterr().err


def test_a_run_cut_short_goes_on(compared, tmp_path, monkeypatch, capsys):
    flags = ["--methods", "maml", "random", "--num-iterations"]
    assert compare(arguments(tmp_path, *flags, "1")) == 0
    assert compare(arguments(tmp_path, *flags, "2")) == 0
    assert len((tmp_path / "maml/metrics.csv").read_text().splitlines()) == 1 + 2
    assert "random: done before" in capsys.readouterr().err


def test_a_signal_stops_the_command_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Prepared, "train", lambda *_: TrainingResult(0, 2, {}))
    assert compare(arguments(tmp_path, "--num-iterations", "1")) == 130
    assert "stopped in maml; to continue: " in capsys.readouterr().err
    assert not (tmp_path / "comparison.json").exists()


def test_finished_runs_may_be_loaded(compared, tmp_path, capsys):
    loaded = ["--methods", "maml", "--load", "maml", str(compared / "maml")]
    assert compare(arguments(tmp_path, *loaded)) == 0
    found = json.loads(capsys.readouterr().out)["methods"]["maml"]
    before = json.loads((compared / "comparison.json").read_text())["methods"]["maml"]
    assert found["mean"] == before["mean"]
    assert not (tmp_path / "maml").exists()


def test_a_run_of_another_method_is_not_loaded(compared, tmp_path, capsys):
    assert compare(arguments(tmp_path / "new", "--load", "maml", str(compared / "oracle"))) == 2
    assert "load must name a run of maml, but in" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_loaded_run_keeps_its_own_step_size(tmp_path, capsys):
    size = ["--inner.step-size", "0.125", "--inner.test-step-size", "0.25"]
    run = ["--num-iterations", "0", "--output-dir", str(tmp_path / "run"), *size]
    assert train(NAVIGATION, run) == 0
    capsys.readouterr()
    flags = ["--methods", "maml", "pretrained", "--load", "maml", str(tmp_path / "run"), "--num-iterations", "0"]
    assert compare(arguments(tmp_path / "new", *flags, "--checkpoint", "last")) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert found["maml"]["step_sizes"] == [0.25, 0.125, 0.125, 0.125]
    assert found["pretrained"]["step_sizes"] == [0.5, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(("method", "run"), [("maml", "fomaml"), ("fomaml", "maml"), ("pretrained", "maml")])
def test_a_run_of_another_learner_is_not_loaded(method, run, compared, tmp_path, capsys):
    load = ["--methods", method, "--load", method, str(compared / run)]
    assert compare(arguments(tmp_path / "new", *load)) == 2
    name = "inner.num_steps of 0" if method == "pretrained" else "learner"
    assert f"load must name a run of {method}, but in {compared / run} {name} is" in capsys.readouterr().err


def test_an_episode_that_fails_ends_in_a_sentence(compared, monkeypatch, capsys):
    def fail(*_):
        raise SamplingError("task 1, episode 2, step 3: action is not finite", 1, 2)

    monkeypatch.setattr(Evaluation, "curve", fail)
    assert compare(arguments(compared, "--num-iterations", "1")) == 1
    assert "error: task 1, episode 2, step 3: action is not finite" in capsys.readouterr().err


@pytest.mark.parametrize("env", [*PUBLISHED, "maml/AntGoal-rllab-v0", "maml/HalfCheetahDir-gym-v0"])
def test_methods_differ_from_maml_in_what_their_names_say(env, tmp_path):
    command = CompareCommand(env, tmp_path)
    base = base_config(command)
    configs = {method: method_config(method, command) for method in METHODS}
    assert {config.env for config in configs.values()} == {env}
    assert [configs[m].learner for m in METHODS] == ["maml", "fomaml", "maml", "maml", "maml"]
    assert configs["fomaml"].method.inner.first_order and not configs["maml"].method.inner.first_order
    assert [configs[m].method.inner.num_steps for m in METHODS] == [1, 1, 0, 0, 0]
    assert {configs[m].method.outer for m in METHODS} == {base.method.outer}
    assert [m for m in METHODS if configs[m].task.oracle] == ["oracle"]
    assert [m for m in METHODS if configs[m].training.num_iterations == 0] == ["random"]
    assert {configs[m].task.sampling for m in METHODS} == {base.task.sampling}


@pytest.fixture
def dict_tasks(tmp_path, monkeypatch):
    """The module of an environment whose tasks are dicts."""
    source = """
from push import Place, PushVectorEnv

class DictTasks(PushVectorEnv):
    task_type = dict

    def __init__(self, num_envs=1, horizon=10, render_mode=None):
        super().__init__(num_envs, horizon, render_mode)
        self._tasks = [{"x": 0.0}] * num_envs

    def sample_tasks(self, num_tasks, rng):
        return [{"x": task.x} for task in super().sample_tasks(num_tasks, rng)]

    def _reset_rows(self, rows, tasks):
        super()._reset_rows(rows, [Place(task["x"]) for task in tasks])
"""
    (tmp_path / "dict_tasks.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)


def test_other_methods_than_the_oracle_need_no_numbers_as_tasks(dict_tasks, tmp_path):
    flags = ["--env", "dict_tasks:DictTasks", "--methods", "random", "--num-iterations", "0"]
    assert compare(arguments(tmp_path / "new", *flags)) == 0


@pytest.mark.parametrize("name", ["comparison.csv", "comparison.png", "oracle"])
def test_outputs_that_cannot_be_written_are_refused_before_any_training(name, tmp_path, capsys):
    new = tmp_path / "new"
    (new / name / "something").mkdir(parents=True)
    assert compare(arguments(new, "--num-iterations", "1")) == 2
    assert name in capsys.readouterr().err
    assert [path.name for path in new.iterdir()] == [name]


def test_a_folder_that_cannot_be_made_is_refused_before_any_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Prepared, "train", lambda *_: pytest.fail("trained"))
    assert compare(arguments(tmp_path / "file", "--num-iterations", "1")) == 2
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--num-steps", "-1"], "num_steps must be at least 0, got -1"),
        (["--load", "best", "runs/x"], "load must name methods among"),
        (["--methods", "maml", "maml"], "methods must be named once each"),
        (["--load", "maml", "nowhere"], "nowhere is no run folder"),
        (["--env", "sinusoid"], "env must be a task environment"),
        (["--env", "maml/Nowhere-v0"], "env must be a registered task environment"),
        (["--num-tasks", "0"], "evaluation.num_tasks must be at least 1, got 0"),
        (["--env", "dict_tasks:DictTasks"], "oracle must be left out: an oracle's task must consist of numbers, got {"),
    ],
)
def test_bad_input_is_refused_before_any_training(changes, message, dict_tasks, tmp_path, capsys):
    try:
        status = compare(arguments(tmp_path / "new", "--num-iterations", "1", *changes))
    except SystemExit as refusal:  # by the parser
        status = refusal.code
    assert status == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("command", "flags"), [(compare, ["--env", NAVIGATION, "--methods", "maml"]), (leaderboard, ["--learners", "maml"])]
)
def test_an_experiment_in_place_of_a_run_is_refused_with_the_names_of_its_runs(command, flags, tmp_path, capsys):
    several = ["--seeds", "1", "2", "--num-iterations", "0", "--evaluate-every", "0", "--num-threads", "1"]
    assert train(NAVIGATION, [*several, "--output-dir", str(tmp_path / "both")]) == 0
    capsys.readouterr()
    both, new = tmp_path / "both", tmp_path / "new"
    assert command([*flags, "--load", "maml", str(both), "--output-dir", str(new)]) == 2
    refusal = capsys.readouterr().err
    assert f"error: {both} is no run folder" in refusal and f"such as {both}/seed-1, {both}/seed-2" in refusal
    assert not new.exists()


def test_another_run_s_folder_is_refused(compared, capsys):
    assert compare(arguments(compared, "--seed", "5", "--num-iterations", "1")) == 2
    assert "holds another run (seed was 1, now 5): choose another --output-dir" in capsys.readouterr().err


def test_methods_are_compared_on_published_tasks(compared, tmp_path, capsys):
    load = [each for method in ("maml", "random") for each in (method, str(compared / method))]
    flags = ["--env", NAVIGATION, "--output-dir", str(tmp_path), "--methods", "maml", "random", "--load", *load]
    assert compare([*flags, "--tasks", "published", "--num-steps", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["num_tasks"] == 40 and found["tasks"]["name"] == "published" and "40 published tasks" in err
    for method in found["methods"].values():
        assert method["gain"] == pytest.approx([0.0, method["mean"][1] - method["mean"][0]])
        assert len(method["share_worse"]) == 2
    likely = found["probability_of_improvement"]["maml over random"]
    assert 0.0 <= likely["low"] <= likely["value"] <= likely["high"] <= 1.0
    assert "gain, worse" in err and "maml over random" in err
    with open(tmp_path / "comparison.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["gain"]) == pytest.approx(float(rows[1]["return"]) - float(rows[0]["return"]))


def test_task_lists_that_do_not_exist_are_refused_before_training(tmp_path, capsys):
    flags = ["--env", NAVIGATION, "--output-dir", str(tmp_path / "new"), "--tasks"]
    assert compare([*flags, "publishd"]) == 2
    assert "did you mean published?" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        compare([*flags, "published", "--num-tasks", "3"])
    assert "--num-tasks 3 must be left out with --tasks" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("preset", ["paper", "fast"])
@pytest.mark.parametrize("given", [None, "raw"])
def test_a_preset_keeps_its_settings_of_the_tasks_where_none_are_given(preset, given, tmp_path):
    command = CompareCommand("HalfCheetahVel", tmp_path, preset=preset, observations=given)
    expected = default_config(full_id("HalfCheetahVel", None), "maml", preset).task
    expected = dataclasses.replace(expected, observations=given or expected.observations)
    assert base_config(command).task == expected
