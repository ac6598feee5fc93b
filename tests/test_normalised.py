"""Normalised observations: the unit of an environment no longer matters, and a run sees them in one way everywhere."""

import dataclasses
import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from push import PushVectorEnv

from maml_rl.build import build, make_vector_env, measured
from maml_rl.cli import complete, train
from maml_rl.cli_evaluate import evaluate
from maml_rl.config import RunConfig
from maml_rl.core.maml import params_of
from maml_rl.core.params import stack
from maml_rl.core.protocols import EVALUATION, INITIALISATION, Key
from maml_rl.sampling.local import SamplingConfig
from maml_rl.trained import read_config
from maml_rl.training.trainer import TrainingConfig

UNIT = 2.0**20  # a power of two: all numbers scale without rounding


class FarPushVectorEnv(PushVectorEnv):
    """Push, observed in units of about a millionth."""

    def _step_rows(self, actions, alive):
        observations, *rest = super()._step_rows(actions, alive)
        return UNIT * observations, *rest

    def _observe(self):
        return UNIT * super()._observe()


if "test/FarPush-v0" not in gymnasium.registry:
    gymnasium.register("test/FarPush-v0", vector_entry_point=FarPushVectorEnv)

FLAGS = ["--num-tasks", "3", "--episodes-per-task", "2", "--evaluate-every", "2"]
NORMALISED = [*FLAGS, "--observations", "normalised"]
SMALL = RunConfig(
    env="test/FarPush-v0",
    observations="normalised",
    training=TrainingConfig(num_iterations=1, num_tasks=3, evaluate_every=0),
    sampling=SamplingConfig(episodes_per_task=2, num_threads=1),
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(name, *flags, env="test/FarPush-v0", iterations=2):
    """A run's last parameters as they are on the disk."""
    assert train(RunConfig(env=env), [*flags, "--num-iterations", str(iterations), "--output-dir", name]) == 0
    return last(name)


def last(name):
    return Path(name, "checkpoints", "iteration-000002.safetensors").read_bytes()


def test_the_unit_of_observations_does_not_matter():
    assert trained("far", *NORMALISED) == trained("near", *NORMALISED, env="test/Push-v0")
    assert trained("raw", *FLAGS, env="test/Push-v0") != last("near")


def test_what_the_policy_sees_has_mean_0_and_deviation_1():
    # Under the first policy, not under random actions, and of 18 episodes beside those that were measured
    built = build(measured(SMALL))
    theta = params_of(built.learner.init(Key(1, INITIALISATION, 0)))
    tasks = built.family.sample_tasks(9, np.random.default_rng(7))
    seen = built.family.collect(tasks, stack(theta, 9), Key(7, EVALUATION, 0)).observations.flatten(0, 2)
    built.close()
    assert (seen.mean(dim=0).abs() < 1.5).all() and (seen.std(dim=0) < 3.0).all() and (seen.std(dim=0) > 0.3).all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of two iterations on one thread."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    trained(str(folder), *NORMALISED, "--num-threads", "1")
    return folder


@pytest.mark.parametrize("flags", [["--num-threads", "2"], ["--sampler", "processes", "--num-workers", "2"]])
def test_a_run_is_the_same_on_threads_and_in_processes(flags, whole):
    assert trained("other", *NORMALISED, *flags) == last(whole)


def test_a_resumed_run_goes_on_with_the_scale_that_it_has(whole, capfd):
    assert train(RunConfig(env="test/FarPush-v0"), [*NORMALISED, "--num-iterations", "1", "--output-dir", "run"]) == 0
    assert train(RunConfig(), ["--resume", "run", "--num-iterations", "2"]) == 0
    assert last("run") == last(whole)
    assert train(RunConfig(), ["--resume", "run", "--observations", "raw"]) == 2
    assert "observations was 'normalised', now 'raw'" in capfd.readouterr().err


def test_evaluation_and_films_see_through_the_saved_scale(whole):
    saved = json.loads((whole / "config.json").read_text())["config"]["observation_scale"]
    assert len(saved["mean"]) == len(saved["std"]) == 3 and min(saved["std"]) > 0.01 * UNIT
    scale = read_config(whole).observation_scale
    assert (list(scale.mean), list(scale.std)) == (saved["mean"], saved["std"])
    built = build(read_config(whole))
    assert built.family.policy.scale == scale  # which films record with, too
    built.close()
    means = []
    for flags in (["--num-threads", "1"], ["--num-threads", "2"], ["--num-threads", "1"]):
        assert evaluate([str(whole), "--num-tasks", "3", "--output", "score", *flags]) == 0
        means.append(json.loads(Path("score.json").read_text())["mean"])
    assert means[0] == means[1] == means[2]
    shutil.copytree(whole, "other")
    config = json.loads(Path("other", "config.json").read_text())
    config["config"]["observation_scale"]["std"] = [4 * each for each in saved["std"]]
    Path("other", "config.json").write_text(json.dumps(config))
    assert evaluate(["other", "--num-tasks", "3", "--output", "score", "--num-threads", "1"]) == 0
    assert json.loads(Path("score.json").read_text())["mean"] != means[0]


def test_the_predictor_takes_the_environment_s_observations(whole):
    built = build(read_config(whole))
    raw = torch.from_numpy(make_vector_env("test/FarPush-v0", None, 4).reset(seed=3)[0])
    theta = params_of(built.learner.init(Key(1, INITIALISATION, 0)))
    policy = built.family.policy
    expected = policy.mean_action(policy.outputs(theta, policy.see(raw)))
    assert torch.equal(built.family.predictor(theta)(raw), expected) and policy.see(raw).abs().max() <= 10.0
    built.close()


def test_the_same_command_completes_a_run(here):
    assert complete(SMALL, Path("run")) is None
    longer = dataclasses.replace(SMALL, training=dataclasses.replace(SMALL.training, num_iterations=2))
    assert complete(longer, Path("run")) is None  # without knowing the scale
    assert read_config(Path("run")).observation_scale == measured(SMALL).observation_scale


def test_a_warm_start_sees_as_the_run_that_it_goes_on_from(whole, capfd):
    begin = ["--init-from", str(whole), "--seed", "5"]
    trained("warm", *NORMALISED, *begin)
    assert read_config(Path("warm")).observation_scale == read_config(whole).observation_scale
    assert train(RunConfig(env="test/FarPush-v0"), [*FLAGS, *begin, "--output-dir", "raw"]) == 2
    assert "observations must be normalised, as in the run" in capfd.readouterr().err
    trained("near", *NORMALISED, *begin, "--init-from-any-env", env="test/Push-v0")  # another environment has its own
    assert read_config(Path("near")).observation_scale != read_config(whole).observation_scale


@pytest.mark.parametrize("env", ["sinusoid", "omniglot", "images"])
def test_only_environments_have_observations(env):
    with pytest.raises(ValueError, match=f"observations normalised applies to task environments, not to {env}"):
        RunConfig(env=env, observations="normalised")


def test_a_scale_of_another_size_is_refused():
    config = dataclasses.replace(measured(SMALL), env="maml/Navigation2D-v0")
    with pytest.raises(ValueError, match=r"an observation_scale of 2 numbers, .*but the config has one of 3: is the"):
        build(config)
    with pytest.raises(ValueError, match="but the config has none"):
        build(SMALL)


def test_the_oracle_s_columns_are_normalised_as_well():
    scale = measured(dataclasses.replace(SMALL, oracle=True)).observation_scale
    assert len(scale.mean) == 4 and 0.0 < scale.std[3] < 2.0  # places of +-1


def test_normalising_answers_the_warning_about_the_size(capfd):
    for observations, is_warned in (("raw", True), ("normalised", False)):
        flags = [*FLAGS, "--observations", observations, "--num-iterations", "0", "--output-dir", observations]
        assert train(RunConfig(env="test/FarPush-v0"), flags) == 0
        assert ("far from 1, and hardly anything is learned" in capfd.readouterr().err) == is_warned
    assert Path("raw").is_dir()
