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

import maml_rl
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train
from maml_rl.core.keys import EVALUATION, INITIALISATION, Key
from maml_rl.core.trees import stack
from maml_rl.experiments.build import build
from maml_rl.experiments.config import EnvironmentConfig
from maml_rl.experiments.environments import make_environment, measured
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.runs import read_config
from maml_rl.experiments.training import complete
from maml_rl.rl.experience import recipe_of
from maml_rl.sampling.local import SamplingConfig
from maml_rl.sampling.rollout import action_mapping
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
SMALL = dataclasses.replace(
    default_config("test/FarPush-v0", "maml"),
    num_threads=1,
    training=TrainingConfig(num_iterations=1, num_tasks=3, evaluate_every=0),
    task=EnvironmentConfig(observations="normalised", sampling=SamplingConfig(episodes_per_task=2)),
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(name, *flags, env="test/FarPush-v0", iterations=2):
    """A run's last parameters as they are on the disk."""
    assert train(env, [*flags, "--num-iterations", str(iterations), "--output-dir", name]) == 0
    return last(name)


def last(name):
    return Path(name, "checkpoints", "iteration-000002.safetensors").read_bytes()


def test_the_unit_of_observations_does_not_matter():
    assert trained("far", *NORMALISED) == trained("near", *NORMALISED, env="test/Push-v0")
    assert trained("raw", *FLAGS, env="test/Push-v0") != last("near")


def test_what_the_policy_sees_has_mean_0_and_deviation_1():
    # Under the first policy, not under random actions, and of 18 episodes beside those that were measured
    built = build(measured(SMALL))
    state, key = built.learner.init(Key(1, INITIALISATION, 0)), Key(7, EVALUATION, 0)
    tasks = built.family.source.sample_tasks(9, np.random.default_rng(7))
    actor = built.learner.actor(state, built.learner.begin(state, 9, key), key)
    seen = built.family.collector.collect(tasks, actor, key).observations.flatten(0, 2)
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
    assert train("test/FarPush-v0", [*NORMALISED, "--num-iterations", "1", "--output-dir", "run"]) == 0
    assert train(arguments=["--resume", "run", "--num-iterations", "2"]) == 0
    assert last("run") == last(whole)
    assert train(arguments=["--resume", "run", "--observations", "raw"]) == 2
    assert "observations was 'normalised', now 'raw'" in capfd.readouterr().err


def test_evaluation_and_films_see_through_the_saved_scale(whole):
    saved = json.loads((whole / "config.json").read_text())["config"]["task"]["observation_scale"]
    assert len(saved["mean"]) == len(saved["std"]) == 3 and min(saved["std"]) > 0.01 * UNIT
    scale = read_config(whole).task.observation_scale
    assert (list(scale.mean), list(scale.std)) == (saved["mean"], saved["std"])
    built = build(read_config(whole))
    assert recipe_of(built.family.collector).scale == scale  # which films record with, too
    built.close()
    means = []
    for flags in (["--num-threads", "1"], ["--num-threads", "2"], ["--num-threads", "1"]):
        assert evaluate([str(whole), "--num-tasks", "3", "--output", "score", *flags]) == 0
        means.append(json.loads(Path("score.json").read_text())["mean"])
    assert means[0] == means[1] == means[2]
    shutil.copytree(whole, "other")
    config = json.loads(Path("other", "config.json").read_text())
    config["config"]["task"]["observation_scale"]["std"] = [4 * each for each in saved["std"]]
    Path("other", "config.json").write_text(json.dumps(config))
    assert evaluate(["other", "--num-tasks", "3", "--output", "score", "--num-threads", "1"]) == 0
    assert json.loads(Path("score.json").read_text())["mean"] != means[0]


def test_an_agent_takes_the_environment_s_observations(whole):
    config, agent = read_config(whole), maml_rl.load(whole).agent()
    env = make_environment(config, 4)
    raw = env.reset(seed=3)[0]
    seen = config.task.observation_scale(torch.from_numpy(raw))
    policy = agent.learner.model.network
    outputs, _ = policy.step(stack(agent.state.params, 1), (), seen[None], None)
    expected = action_mapping(env.single_action_space)(policy.spec.distribution.mean_action(outputs[0]))
    assert np.array_equal(agent.act(raw), expected) and seen.abs().max() <= 10.0
    env.close()


def test_the_same_command_completes_a_run(here):
    assert complete(SMALL, Path("run")) is None
    longer = dataclasses.replace(SMALL, training=dataclasses.replace(SMALL.training, num_iterations=2))
    assert complete(longer, Path("run")) is None  # without knowing the scale
    assert read_config(Path("run")).task.observation_scale == measured(SMALL).task.observation_scale


def test_a_warm_start_sees_as_the_run_that_it_goes_on_from(whole, capfd):
    begin = ["--init-from", str(whole), "--seed", "5"]
    trained("warm", *NORMALISED, *begin)
    assert read_config(Path("warm")).task.observation_scale == read_config(whole).task.observation_scale
    assert train("test/FarPush-v0", [*FLAGS, *begin, "--output-dir", "raw"]) == 2
    assert "observations must be normalised, as in the run" in capfd.readouterr().err
    trained("near", *NORMALISED, *begin, "--init-from-any-env", env="test/Push-v0")  # another environment has its own
    assert read_config(Path("near")).task.observation_scale != read_config(whole).task.observation_scale


@pytest.mark.parametrize("env", ["sinusoid", "omniglot", "images"])
def test_only_environments_have_observations(env, capfd):
    assert train(env, ["--observations", "normalised", "--output-dir", "run"]) == 2
    error = f"--observations normalised applies to task environments, not to --env {env}: leave it out"
    assert error in capfd.readouterr().err and not Path("run").exists()


def test_a_scale_of_another_size_is_refused():
    config = dataclasses.replace(measured(SMALL), env="maml/Navigation2D-v0")
    with pytest.raises(ValueError, match=r"an observation_scale of 2 numbers, .*but the config has one of 3: is the"):
        build(config)
    with pytest.raises(ValueError, match="but the config has none"):
        build(SMALL)


def test_the_oracle_s_columns_are_normalised_as_well():
    told = dataclasses.replace(SMALL, task=dataclasses.replace(SMALL.task, oracle=True))
    scale = measured(told).task.observation_scale
    assert len(scale.mean) == 4 and 0.0 < scale.std[3] < 2.0  # places of +-1


def test_normalising_answers_the_warning_about_the_size(capfd):
    for observations, is_warned in (("raw", True), ("normalised", False)):
        flags = [*FLAGS, "--observations", observations, "--num-iterations", "0", "--output-dir", observations]
        assert train("test/FarPush-v0", flags) == 0
        assert ("far from 1, and hardly anything is learned" in capfd.readouterr().err) == is_warned
    assert Path("raw").is_dir()
