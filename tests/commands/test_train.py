"""The training command as a user meets it: in a terminal's place, with right and wrong flags, stopped and resumed."""

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.metaworld import load_metaworld
from maml_rl.commands.train import MAIN_ENV, parse_command, train
from maml_rl.experiments.build import build
from maml_rl.experiments.config import SINUSOID
from maml_rl.experiments.films import make_filming
from maml_rl.experiments.presets import FASTER, default_config
from maml_rl.experiments.saved_config import to_dict
from maml_rl.experiments.training import Prepared, complete, default_folder
from maml_rl.pictures.backend import DrawingError
from maml_rl.storage.run_folder import RunFolder
from maml_rl.training.interrupts import ENDING
from maml_rl.training.trainer import TrainingResult

ROOT = Path(__file__).parents[2]
FEW = ["--num-tasks", "2", "--evaluation.num-tasks", "2"]
TINY = [*FEW, "--episodes-per-task", "2", "--horizon", "5"]
CLOCK = ("_seconds", "_per_s")
HUGE = str(10**20)


def rows(folder, without_clock=True):
    """metrics.csv as dicts, by default without the columns that differ from run to run."""
    with open(folder / "metrics.csv", newline="") as file:
        found = list(csv.DictReader(file))
    if without_clock:
        found = [{k: v for k, v in row.items() if not k.endswith(CLOCK)} for row in found]
    return found


def parameters(folder):
    name = (folder / "checkpoints" / "latest").read_text().strip()
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


def assert_same_run(one, other):
    assert rows(one) == rows(other)
    expected, found = parameters(one), parameters(other)
    assert expected.keys() == found.keys()
    for name in expected:
        assert expected[name].numpy().tobytes() == found[name].numpy().tobytes(), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-tasks", "0"], "num_tasks must be at least 1, got 0"),
        (["--num-iterations", "-1"], "num_iterations must be at least"),
        (["--episodes-per-task", "0"], "episodes_per_task must be at least 1, got 0"),
        (["--horizon", "0"], "horizon must be at least 1 step, got 0"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--num-threads", "-2"], "num_threads must be at least 1, or 0 for one per core, got -2"),
        (
            ["--sampler", "processes", "--num-workers", "0"],
            "num_workers must be at least 1, or left out for one per core",
        ),
        (["--task-timeout", "0"], "task_timeout must be positive and finite [s], got 0.0"),
        (["--ray-address", "ray://head:10001"], "ray_address must be auto or host:port, got 'ray://head:10001'"),
        (["--inner.step-size", "-0.1"], "inner.step_size must be positive and finite, got"),
        (["--inner.step-size", "nan"], "inner.step_size must be positive and finite, got"),
        (["--outer.trust-region.max-kl", "0"], "trust_region.max_kl must be positive and finite, got"),
        (["--advantage.discount", "1.5"], "advantage.discount must lie in [0, 1], got 1.5"),
        (["--policy.hidden-sizes", "0"], "policy.hidden_sizes must be at least 1 each, got"),
        (["--outer.step", "reptile"], "for learner maml, got 'reptile': take --learner reptile"),
        (
            ["--outer.step", "moon"],
            "for learner maml, got 'moon': leave it out",
        ),
        (["--learner", "reptile", "--inner.num-steps", "0"], "inner.num_steps must be at least 1 for outer.step"),
        (["--physics", "moon"], "invalid choice 'moon'"),
        (["--env", "maml/Nowhere-v0"], "env must be a registered task environment, got 'maml/Nowhere-v0'"),
        (
            ["--env", "nowhere:Walk"],
            "env must name a module that can be found, but 'nowhere' is neither on sys.path nor in",
        ),
        (["--env", "json:loads"], "env must name a module of yours, but 'json' belongs to Python"),
        (["--env", "tyro:cli"], "tyro:cli must be made by its name(), but that fails with TypeError"),
        (
            ["--env", "rich.table:Table"],
            "rich.table:Table is <class 'rich.table.Table'>: derive it from one of them",
        ),
        (
            ["--env", "push:Pash"],
            "has no 'Pash' and registers no id of that name; its environments are "
            "['EdgeVectorEnv', 'FragileVectorEnv', 'PushVectorEnv', 'ReachVectorEnv']",
        ),
        (
            ["--num-workers", "2"],
            "--num-workers 2 applies to --sampler processes or ray, not to --sampler local: leave it",
        ),
        (
            ["--sampler", "processes", "--ray-address", "auto"],
            "--ray-address auto applies to --sampler ray, not to --sampler processes: leave it out",
        ),
        (["--ways", "3"], "--ways 3 applies to few-shot classification, not to --env "),
        (
            ["--outer.gradient.learning-rate", "1"],
            "--outer.gradient.learning-rate 1 applies to --outer.step gradient, not to --outer.step trust",
        ),
        (
            ["--env", SINUSOID, "--split", "random-1200"],
            "--split random-1200 applies to few-shot classification, not to --env sin",
        ),
        (
            ["--env", SINUSOID, "--sampler", "processes"],
            "--sampler processes applies to task environments, not to --env sinusoid: leave it out",
        ),
        (["--env", SINUSOID, "--oracle"], "--oracle applies to task environments, not to --env sin"),
        (["--env", "AntVel", "--physics", "moon"], "invalid choice 'moon'"),
        (["--env", "Nowhere"], "env must be a registered task environment, got 'Nowhere'"),
        (["--num-taks", "3"], "--num-taks"),
        (["--resume", "nowhere"], "nowhere is no run folder"),
        (
            ["--preset", "fast", "--env", "AntGoal"],
            "preset fast exists for ['maml/AntDir-gym-v0', 'maml/AntDir-rllab-v0', 'maml/AntVel-gym-v0', ",
        ),
        (["--num-tasks", HUGE], "of memory"),
        (["--episodes-per-task", HUGE], "of memory"),
        (["--horizon", HUGE], "episodes_per_task or horizon, or make observations smaller"),
        (["--policy.hidden-sizes", HUGE], "lower policy.hidden_sizes"),
        (["--policy.hidden-sizes", "1000000", "1000000"], "for parameters, but this machine has"),
        (["--evaluation.num-tasks", HUGE], "for trajectories of evaluation"),
        (["--evaluation.episodes-per-task", HUGE], "for trajectories of evaluation"),
        (["--inner.num-steps", HUGE], f"inner.num_steps must be at most 10000, got {HUGE}"),
        (["--evaluation.num-steps", HUGE], f"evaluation.num_steps must be at most 10000, got {HUGE}"),
        (["--num-threads", HUGE], f"num_threads must be at most 10000, got {HUGE}"),
        (["--num-workers", HUGE], f"num_workers must be at most 10000, got {HUGE}"),
        (["--outer.trust-region.max-backtracks", HUGE], "trust_region.max_backtracks must be at most 1000"),
        (["--outer.trust-region.cg-iterations", HUGE], "trust_region.cg_iterations must be at most 1000"),
        (["--env", "sinusoid", "--num-tasks", HUGE], "this machine has"),
        (["--env", "sinusoid", "--sinusoid.num-examples", HUGE], "lower evaluation.num_tasks or sinusoid.num_examples"),
        (["--env", "sinusoid", "--sinusoid.hidden-sizes", HUGE], "lower sinusoid.hidden_sizes"),
        (["--env", "sinusoid", "--inner.num-steps", HUGE], "inner.num_steps must be at most 10000"),
        (["--film-every", "-1"], "film_every must be at least 1, or 0 for no films, got -1"),
        (["--env", "sinusoid", "--film-every", "1"], "film_every must be 0: sinusoid has no episodes to film"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_made(flags, message, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    try:
        status = train(MAIN_ENV, flags)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_an_environment_brings_its_own_protocol():
    named = parse_command(MAIN_ENV, ["--env", "maml/Bandit-K50-v0"]).run
    assert named == default_config("maml/Bandit-K50-v0", "maml") and named.task.sampling.episodes_per_task == 500
    said = parse_command(MAIN_ENV, ["--env", "AntDir", "--episodes-per-task", "7"]).run
    sizes = said.method.inner.test_step_sizes(2)
    assert said.task.sampling.episodes_per_task == 7 and sizes == (0.1, 0.001)  # the rest is the paper's
    other = parse_command("maml/Bandit-K5-v0", ["--env", "maml/AntGoal-gym-v0"]).run  # one without
    assert other == dataclasses.replace(default_config(MAIN_ENV, "maml"), env="maml/AntGoal-gym-v0")
    fast = parse_command(MAIN_ENV, ["--env", "AntDir", "--preset", "fast"]).run
    assert fast.task.sampling.episodes_per_task == 10 and fast.method.outer.trust_region.max_kl == 0.1


def test_a_preset_is_what_holds_where_nothing_is_said(tmp_path, capfd):
    run = tmp_path / "run"
    flags = [
        "--preset",
        "fast",
        "--outer.trust-region.max-kl",
        "0.5",
        "--num-iterations",
        "0",
        "--env",
        "HalfCheetahVel",
    ]
    assert train(MAIN_ENV, [*flags, "--seed", "3", "--output-dir", str(run)]) == 0
    saved = json.loads((run / "config.json").read_text())["config"]
    assert saved["task"]["sampling"]["episodes_per_task"] == 10 and saved["evaluation"]["episodes_per_task"] == 20
    assert saved["method"]["outer"]["trust_region"]["max_kl"] == 0.5 and saved["seed"] == 3
    capfd.readouterr()
    assert train(MAIN_ENV, ["--resume", str(run), "--preset", "fast"]) == 2
    assert "preset fast must be left out with resume" in capfd.readouterr().err


def test_films_every_other_iteration_leave_the_run_as_it_is(tmp_path):
    common = [*TINY, "--evaluate-every", "0", "--num-iterations", "4"]
    for name, flags in (("plain", []), ("filmed", ["--film-every", "2"])):
        folder = ["--output-dir", str(tmp_path / name)]
        assert train("maml/Navigation2D-v0", [*common, *flags, *folder]) == 0
    assert_same_run(tmp_path / "plain", tmp_path / "filmed")
    events = EventAccumulator(str(tmp_path / "filmed" / "tensorboard"))
    events.Reload()
    films = events.Images("film")
    assert [film.step for film in films] == [2, 4]
    picture = Image.open(io.BytesIO(films[0].encoded_image_string))
    assert picture.format == "GIF" and picture.n_frames > 1 and picture.width >= 2 * 240


def test_films_of_robots_are_refused_where_nothing_draws():
    built = build(parse_command(MAIN_ENV, TINY).run)
    with contextlib.closing(built), pytest.raises(DrawingError, match="apt install libegl1 libgl1-mesa-dri"):
        make_filming(built, 1, can_draw=lambda _: False)


def test_an_existing_folder_is_never_overwritten(tmp_path, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("all of it")
    assert train(MAIN_ENV, [*TINY, "--output-dir", str(tmp_path / "run")]) == 2
    assert "must not exist or be empty" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_run_leaves_all_its_files_and_one_json_line(tmp_path, capfd):
    folder = tmp_path / "run"
    assert train(MAIN_ENV, [*TINY, "--num-iterations", "2", "--evaluate-every", "2", "--output-dir", str(folder)]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["iteration"] == 2
    assert "iteration 1/2" in err and "iteration 2/2" in err
    assert json.loads((folder / "config.json").read_text())["config"]["training"]["num_iterations"] == 2
    first, second = rows(folder, without_clock=False)
    assert first["iteration"] == "1" and first["eval_return_3"] == "" and second["eval_return_3"] != ""
    columns = "return_before return_before_std return_before_ci95 return_after return_after_std return_after_ci95 kl "
    columns += "surrogate_loss_before surrogate_loss_after line_search_steps cg_residual explained_variance_after "
    columns += "entropy_after steps_per_s sample_seconds adapt_seconds outer_seconds"
    assert all(second[name] != "" for name in columns.split())
    assert (folder / "tensorboard").is_dir()
    assert (folder / "checkpoints" / "iteration-000002.safetensors").exists()
    assert not [path for path in folder.rglob("*") if "partial" in path.name or "tmp" in path.name]


@pytest.mark.parametrize("flags", [["--env", "maml/Navigation2D-v0"], ["--env", SINUSOID, "--outer.step", "gradient"]])
def test_stopped_and_resumed_equals_uninterrupted(flags, tmp_path):
    common = [*flags, *(FEW if SINUSOID in flags else TINY), "--evaluate-every", "2"]
    assert train(MAIN_ENV, [*common, "--num-iterations", "5", "--output-dir", str(tmp_path / "one")]) == 0
    assert train(MAIN_ENV, [*common, "--num-iterations", "3", "--output-dir", str(tmp_path / "two")]) == 0
    resume = ["--resume", str(tmp_path / "two"), "--num-iterations", "5", "--num-threads", "1"]
    assert train(MAIN_ENV, resume) == 0
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_a_run_may_go_on_in_other_processes(tmp_path):
    common = ["--env", "maml/Navigation2D-v0", *TINY, "--evaluate-every", "2"]
    assert train(MAIN_ENV, [*common, "--num-iterations", "4", "--output-dir", str(tmp_path / "one")]) == 0
    assert train(MAIN_ENV, [*common, "--num-iterations", "2", "--output-dir", str(tmp_path / "two")]) == 0
    resume = [
        "--resume",
        str(tmp_path / "two"),
        "--num-iterations",
        "4",
        "--sampler",
        "processes",
        "--num-workers",
        "1",
    ]
    assert train(MAIN_ENV, resume) == 0
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("sampler", "where"),
    [
        (["--sampler", "processes", "--num-workers", "1"], r"task . \(Place\(x=0\.9\d+\)\) under Key\(seed=1.*"),
        (["--num-threads", "1"], r"tasks \d to \d under Key\(seed=1.*"),  # those of a thread are stepped together
    ],
)
def test_an_error_of_the_environment_ends_the_run_and_says_where(sampler, where, tmp_path, capfd):
    # one task in forty lies where this world fails
    folder = tmp_path / "run"
    flags = [*TINY, *sampler, "--num-iterations", "1000", "--evaluate-every", "0"]
    assert train("test/Fragile-v0", [*flags, "--output-dir", str(folder)]) == 1
    error = capfd.readouterr().err
    assert 'raise ValueError(f"the ice breaks at {self._place.max()}")' in error  # its own traceback
    last = error.splitlines()[-1]
    found = re.fullmatch(rf"error: iteration (\d+), {where}intact", last)
    assert found is not None, last
    assert (folder / "checkpoints" / "latest").read_text().strip() == f"iteration-{int(found[1]) - 1:06d}"


def test_a_resumed_run_keeps_its_settings(tmp_path, capfd):
    folder = tmp_path / "run"
    assert train(MAIN_ENV, [*TINY, "--num-iterations", "1", "--output-dir", str(folder)]) == 0
    assert train(MAIN_ENV, ["--resume", str(folder), "--num-iterations", "2"]) == 0  # a preset's default is no flag
    assert train(MAIN_ENV, ["--resume", str(folder), "--inner.step-size", "0.2"]) == 2
    assert "inner.step_size was 0.1, now 0.2" in capfd.readouterr().err


def test_a_run_is_not_resumed_to_fewer_iterations_than_it_has_done(tmp_path, capfd):
    folder = tmp_path / "run"
    assert train(MAIN_ENV, [*TINY, "--num-iterations", "2", "--output-dir", str(folder)]) == 0
    before = (folder / "config.json").read_text()
    assert train(MAIN_ENV, ["--resume", str(folder), "--num-iterations", "1"]) == 2
    assert f"num_iterations must be at least the 2 that {folder} has done, got 1: raise it" in capfd.readouterr().err
    assert train(MAIN_ENV, ["--resume", str(folder)]) == 0
    assert f"note: {folder} has done all 2 iterations: raise num_iterations to go on" in capfd.readouterr().err
    assert (folder / "config.json").read_text() == before


def test_a_policy_network_is_found_in_the_current_folder(tmp_path):
    (tmp_path / "my_network.py").write_text("from torch.nn import Linear\n")
    script = f"import sys; sys.path.remove({str(tmp_path)!r}) if {str(tmp_path)!r} in sys.path else None\n"
    script += "from maml_rl.commands.train import train\n"
    script += (
        f"sys.exit(train('Navigation2D', {[*TINY, '--policy.network', 'my_network:Linear', '--output-dir', 'run']}))"
    )
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1"}
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=where, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_resuming_into_another_folder_leaves_the_first_as_it_was(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(MAIN_ENV, [*TINY, "--num-iterations", "1", "--output-dir", str(one)]) == 0
    assert train(MAIN_ENV, ["--resume", str(one), "--output-dir", str(two), "--num-iterations", "2"]) == 0
    assert len(rows(one)) == 1 and len(rows(two)) == 2
    assert json.loads((two / "config.json").read_text())["config"]["training"]["num_iterations"] == 2


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lost", ["checkpoints", "checkpoints/iteration-000002.json", "metrics.csv and tensorboard"])
def test_a_run_that_cannot_go_on_is_refused_and_left_as_it_is(lost, tmp_path, capfd):
    run, copy = tmp_path / "run", tmp_path / "copy"
    flags = ["--env", "maml/Navigation2D-v0", *TINY, "--evaluate-every", "0"]
    assert train(MAIN_ENV, [*flags, "--num-iterations", "2", "--output-dir", str(run)]) == 0
    for path in (run / name for name in lost.split(" and ")):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    before = everything(run)
    for place in ([], ["--output-dir", str(copy)]):
        capfd.readouterr()
        assert train(MAIN_ENV, ["--resume", str(run), "--num-iterations", "9", *place]) == 2
        error = capfd.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert everything(run) == before and not copy.exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_is_brought_to_its_end(tmp_path):
    flags = ["--env", "maml/Navigation2D-v0", *TINY, "--evaluate-every", "0", "--num-iterations", "1"]
    config = parse_command(MAIN_ENV, flags).run
    with RunFolder.create(tmp_path / "run", to_dict(config)) as folder:
        folder.checkpoints.rmdir()
    assert complete(config, tmp_path / "run") is None
    assert len(rows(tmp_path / "run")) == 1


def test_runs_without_a_name_get_folders_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_command(MAIN_ENV, ["--env", "maml/Navigation2D-v0"]).run
    name = default_folder(config, datetime(2030, 1, 1, 12))
    assert name == Path("runs/Navigation2D-v0-20300101-120000")
    for _ in range(3):  # that start in one second
        RunFolder.create(name, to_dict(config), or_beside=True).close()
    expected = [f"{name.name}{end}" for end in ("", "-2", "-3")]
    assert sorted(path.name for path in Path("runs").iterdir()) == expected
    assert train(MAIN_ENV, ["--env", "maml/Navigation2D-v0", *TINY, "--num-iterations", "0"]) == 0
    (made,) = {path.name for path in Path("runs").iterdir()} - set(expected)
    assert re.fullmatch(r"Navigation2D-v0-\d{8}-\d{6}", made)


@pytest.mark.parametrize("env", ["AntVel", "AntDir", "AntGoal", "HalfCheetahDir"])
@pytest.mark.parametrize("physics", ["rllab", "gym"])
def test_worlds_go_by_short_names(env, physics, tmp_path, capfd):
    flags = [*TINY, "--env", env, "--physics", physics, "--num-iterations", "1", "--evaluate-every", "0"]
    assert train(MAIN_ENV, [*flags, "--output-dir", str(tmp_path / "run")]) == 0
    assert json.loads(capfd.readouterr().out)["metrics"]["env_steps"] == 2 * 2 * 2 * 5  # nobody falls in five steps


def test_an_oracle_sees_its_task_and_stays_one(tmp_path, capfd):
    seen, blind = tmp_path / "seen", tmp_path / "blind"
    common = [*TINY, "--env", "AntGoal", "--num-iterations", "1", "--evaluate-every", "1", "--inner.num-steps", "0"]
    assert train(MAIN_ENV, [*common, "--oracle", "--output-dir", str(seen)]) == 0
    assert train(MAIN_ENV, [*common, "--output-dir", str(blind)]) == 0
    sizes_seen, sizes_blind = ({size for p in parameters(each).values() for size in p.shape} for each in (seen, blind))
    assert 125 + 2 in sizes_seen and 125 not in sizes_seen and 125 in sizes_blind
    assert rows(seen)[0]["eval_return_3"] != ""
    assert train(MAIN_ENV, ["--resume", str(seen), "--num-iterations", "2"]) == 0
    assert train(MAIN_ENV, ["--resume", str(seen), "--no-oracle"]) == 2
    assert "oracle was True, now False" in capfd.readouterr().err


def test_an_oracle_learns_what_nobody_can_who_is_not_told(tmp_path, capfd):
    # Navigation without adaptation: who does not know the goal can do no better than stay near the origin, at the mean
    # distance 0.3826 m of a unit square's points from its centre: a return of -38 in 100 steps.
    flags = ["--num-tasks", "20", "--episodes-per-task", "10", "--num-iterations", "12", "--evaluate-every", "0"]
    flags += ["--env", "maml/Navigation2D-v0", "--oracle", "--inner.num-steps", "0"]
    assert train(MAIN_ENV, [*flags, "--output-dir", str(tmp_path / "run")]) == 0
    assert json.loads(capfd.readouterr().out)["metrics"]["return_after"] > -25


def test_training_without_adaptation(tmp_path):
    folder = tmp_path / "run"
    flags = [*TINY, "--env", "maml/HalfCheetahVel-gym-v0", "--inner.num-steps", "0", "--evaluate-every", "1"]
    assert train(MAIN_ENV, [*flags, "--num-iterations", "1", "--output-dir", str(folder)]) == 0
    (row,) = rows(folder)
    assert row["return_before"] == row["return_after"]  # one batch, sampled once
    assert float(row["env_steps"]) == 2 * 2 * 5
    assert float(row["accepted"]) == 1.0 and 0.0 < float(row["kl"]) <= 0.01
    assert all(row[f"eval_return_{step}"] != "" for step in range(4))  # evaluation still adapts


def test_same_seed_same_run_and_another_seed_another(tmp_path):
    common = ["--env", "maml/Navigation2D-v0", *TINY, "--num-iterations", "2"]
    for name, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        assert train(MAIN_ENV, [*common, "--seed", seed, "--output-dir", str(tmp_path / name)]) == 0
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert rows(tmp_path / "one") != rows(tmp_path / "three")


def test_sampling_that_fails_stops_the_run_and_keeps_the_checkpoint(tmp_path, capfd):
    folder = tmp_path / "run"
    # a standard deviation of e^200 is infinite in single precision, so the first action is not a number
    flags = [*TINY, "--policy.init-std", "1e38", "--inner.step-size", "1e30", "--num-iterations", "3"]
    assert train("maml/Navigation2D-v0", [*flags, "--output-dir", str(folder)]) == 1
    error = capfd.readouterr().err
    assert "iteration 1" in error and "task" in error and "episode" in error and "Traceback" not in error
    assert (folder / "checkpoints" / "latest").read_text().strip() == "iteration-000000"


@pytest.mark.posix
@pytest.mark.parametrize(
    ("signum", "status", "flags"),
    [
        (signal.SIGINT, 130, []),
        (signal.SIGTERM, 143, []),
        (ENDING[-1], 128 + ENDING[-1], []),
        (signal.SIGINT, 130, ["--sampler", "processes"]),
        (ENDING[-1], 128 + ENDING[-1], ["--sampler", "processes"]),
    ],
)
def test_a_signal_ends_the_run_with_a_checkpoint(signum, status, flags, tmp_path):
    # Ctrl-C reaches every process of a terminal: a process group of its own, here.
    folder = tmp_path / "my run"
    script = str(ROOT / "scripts" / "train_navigation.py")
    command = [sys.executable, script, *TINY, *flags, "--output-dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--num-iterations", "100000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (folder / "checkpoints" / "iteration-000003.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"to continue: {sys.executable} {script} --resume '{folder}'"
    assert json.loads(out)["interrupted_by"] == signum
    done = json.loads(out)["iteration"]
    assert (folder / "checkpoints" / "latest").read_text().strip() == f"iteration-{done:06d}"
    assert len(rows(folder)) == done


def test_the_command_that_stands_after_a_stop_can_be_pasted(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Prepared, "train", lambda _: TrainingResult(3, signal.SIGINT, {}))
    folder = tmp_path / "it's mine"
    flags = ["--num-iterations", "0", "--film-every", "2", "--output-dir", str(folder)]
    assert train("maml/Navigation2D-v0", flags) == 130
    pasted = shlex.split(capfd.readouterr().err.splitlines()[-1].removeprefix("to continue: "))
    assert pasted[0] == sys.orig_argv[0]
    monkeypatch.undo()
    assert train(MAIN_ENV, pasted[pasted.index("--resume") :]) == 0
    assert parse_command(MAIN_ENV, pasted[pasted.index("--resume") :]).film_every == 2


def test_a_terminal_gets_words_and_a_pipe_gets_json(tmp_path):
    mine, theirs = pty.openpty()
    script = str(ROOT / "scripts" / "train_navigation.py")
    command = [sys.executable, script, *TINY, "--num-iterations", "3", "--max-minutes", "5"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    process = subprocess.Popen(
        [*command, "--output-dir", "run"], cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while piece := os.read(mine, 4096):
            seen += piece
    os.close(mine)
    assert process.wait(timeout=60) == 0
    text = seen.decode()
    assert "{" not in text
    assert text.splitlines()[-1].removeprefix("\x1b[?25h").startswith("run: 3 iterations done, return_before -")
    for part in ("run on cpu: ", "iteration 3/3", "of 0:05:00", "left ", "steps_per_s"):
        assert part in text, part


@pytest.mark.parametrize(
    "script",
    [
        "train_halfcheetah_vel",
        "train_halfcheetah_dir",
        "train_ant_vel",
        "train_ant_dir",
        "train_navigation",
        "train_bandit",
        "train_tabular_mdp",
        "train_sinusoid",
    ],
)
def test_every_preset_of_a_script_runs(script, tmp_path):
    flags = FEW if script == "train_sinusoid" else TINY
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *flags, "--num-iterations", "1"]
    finished = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["iteration"] == 1


@pytest.mark.parametrize("learner", ["maml", "promp"])
@pytest.mark.parametrize("env_id", FASTER)
def test_the_fast_preset_runs_wherever_there_is_one(env_id, learner, tmp_path):
    flags = ["--env", env_id, "--learner", learner, "--preset", "fast", *TINY, "--evaluation.episodes-per-task", "2"]
    flags += ["--num-iterations", "1", "--evaluate-every", "1"]
    assert train(MAIN_ENV, [*flags, "--output-dir", str(tmp_path / "run")]) == 0
    (row,) = rows(tmp_path / "run")
    assert all(math.isfinite(float(value)) for value in row.values() if value)


def test_without_metaworld_one_sentence_says_how_to_install_it(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)  # as if it were not there
    load_metaworld.cache_clear()
    assert train("maml/ML1-reach-v0", ["--output-dir", str(tmp_path / "run")]) == 2
    error = capfd.readouterr().err
    assert "pip install --no-deps -r requirements-metaworld.txt" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    load_metaworld.cache_clear()


@pytest.mark.parametrize("env_id", ["maml/Bandit-K5-v0", "maml/Bandit-K10-v0", "maml/TabularMDP-v0"])
def test_adaptation_finds_out_what_nobody_is_told(env_id, tmp_path, capfd):
    # Nobody who knows nothing expects more than 0.5 a pull, or 1 a step of a tabular process.
    ignorant, better = {"maml/TabularMDP-v0": (10.0, 11.0)}.get(env_id, (0.5, 0.6))
    flags = ["--num-iterations", "6", "--evaluate-every", "6", "--evaluation.num-steps", "2"]
    assert train(env_id, [*flags, "--output-dir", str(tmp_path / "run")]) == 0
    row = rows(tmp_path / "run")[-1]
    before, after = (float(row[f"eval_return_{step}"]) for step in (0, 2))
    assert before == pytest.approx(ignorant, rel=0.15) and after > better and after > before + 0.1 * ignorant


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "least"),
    # of 1 a pull: the best arm of K is worth K / (K + 1), 0.83, 0.91 and 0.98; of 10 steps of 1 on average
    [
        ("maml/Bandit-K5-v0", 0.75),
        ("maml/Bandit-K10-v0", 0.8),
        ("maml/Bandit-K50-v0", 0.75),
        ("maml/TabularMDP-v0", 13),
    ],
)
def test_a_preset_beats_the_policy_that_is_not_adapted(env_id, least, tmp_path):
    assert train(env_id, ["--output-dir", str(tmp_path / "run")]) == 0
    row = rows(tmp_path / "run")[-1]
    assert float(row["eval_return_3"]) > least > 1.2 * float(row["eval_return_0"])
