"""Agents: batches, folders, and bad input in one sentence."""

import json
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from two_arms import TwoArms

import maml_rl
from maml_rl.experiments.table import LEARNERS

sys.path.insert(0, str(Path(__file__).parents[1] / "learners"))
import proof


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    given = {"num_iterations": 1, "num_tasks": 2, "episodes_per_task": 4, "evaluate_every": 0, "quiet": True}
    return maml_rl.train(TwoArms, output_dir=folder, **given).agent()


def test_a_batch_is_acted_on_row_by_row(agent):
    observations = np.random.default_rng(0).random((5, 1)).astype(np.float32)
    actions = agent.act(observations)
    assert actions.shape == (5,) and actions.dtype == agent.surroundings.action_space.dtype
    assert [agent.act(each) for each in observations] == actions.tolist()


def test_a_seed_decides_a_sampled_action(agent):
    observation = np.ones(1, np.float32)
    drawn = [int(agent.act(observation, deterministic=False, seed=seed)) for seed in range(30)]
    assert drawn == [int(agent.act(observation, deterministic=False, seed=seed)) for seed in range(30)]
    assert set(drawn) == {0, 1}


def test_adapting_gives_a_new_agent_and_leaves_the_old_one(agent):
    once = agent.adapt(TwoArms(), num_episodes=4, seed=1)
    twice = once.adapt(TwoArms(), num_episodes=4, seed=1)
    assert (agent.num_steps, once.num_steps, twice.num_steps) == (0, 1, 2)
    assert (agent.num_episodes, once.num_episodes, twice.num_episodes) == (0, 4, 8)


def test_a_saved_agent_acts_as_before_and_needs_no_environment(agent, tmp_path):
    adapted = agent.adapt(TwoArms(), num_episodes=4)
    adapted.save(tmp_path / "agent")
    loaded = maml_rl.load_agent(tmp_path / "agent")
    observations = np.random.default_rng(0).random((5, 1)).astype(np.float32)
    for deterministic in (True, False):
        ours, theirs = (each.act(observations, deterministic, seed=3) for each in (adapted, loaded))
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.num_steps == 1


def test_a_folder_of_another_version_is_refused(agent, tmp_path):
    agent.save(tmp_path)
    about = json.loads((tmp_path / "agent.json").read_text())
    (tmp_path / "agent.json").write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(maml_rl.AgentError, match="must have format_version 2, got 99: save it again from its run"):
        maml_rl.load_agent(tmp_path)


def test_a_folder_without_an_agent_or_with_a_damaged_one_is_refused(agent, tmp_path):
    with pytest.raises(maml_rl.AgentError, match=r"must hold agent.json and agent.safetensors as Agent.save writes"):
        maml_rl.load_agent(tmp_path / "nothing")
    agent.save(tmp_path)
    (tmp_path / "agent.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(maml_rl.AgentError):
        maml_rl.load_agent(tmp_path)


def test_another_environment_is_refused(agent):
    with pytest.raises(maml_rl.AgentError, match="env must have the observation_space that the agent was trained on"):
        agent.adapt(gymnasium.make("CartPole-v1"))
    with pytest.raises(maml_rl.AgentError, match=r"env must be one gymnasium.Env, got str"):
        agent.adapt("CartPole-v1")


class Hidden(gymnasium.Env):
    """Two arms of which nobody says that there are tasks."""

    observation_space, action_space = TwoArms.observation_space, TwoArms.action_space

    def __init__(self):
        self.reset, self.step = TwoArms().reset, TwoArms().step


def test_a_task_environment_may_be_wrapped_and_one_without_tasks_is_refused(agent):
    wrapped = gymnasium.wrappers.TimeLimit(gymnasium.wrappers.RecordEpisodeStatistics(TwoArms()), 1)
    bare, within = (agent.adapt(env, num_episodes=4, seed=1) for env in (TwoArms(), wrapped))
    for name, value in bare.adapted.params.items():
        assert torch.equal(value, within.adapted.params[name])
    plain = gymnasium.wrappers.TimeLimit(Hidden(), 1)
    sentence = r"env must be a task environment.*or record episodes yourself and call agent.adapt_to\(episodes\)$"
    with pytest.raises(maml_rl.AgentError, match=sentence):
        agent.adapt(plain)


def test_an_agent_of_an_environment_without_tasks_adapts_in_it(tmp_path):
    given = {"num_iterations": 1, "num_tasks": 2, "episodes_per_task": 2, "horizon": 5, "evaluate_every": 0}
    run = maml_rl.train("CartPole-v1", output_dir=tmp_path / "run", quiet=True, num_threads=1, **given)
    run.agent().save(tmp_path / "agent")
    loaded = maml_rl.load_agent(tmp_path / "agent")
    assert loaded.adapt(gymnasium.make("CartPole-v1"), num_episodes=2).num_steps == 1


EPISODE = {"observations": [[1.0], [1.0]], "actions": [0], "rewards": [1.0], "terminated": False}


@pytest.mark.parametrize(
    ("episodes", "sentence"),
    [
        ([], "episodes must hold at least one, got none"),
        ([{"observations": [[1.0], [1.0]], "actions": [0]}], "episode 0 must have observations, actions and rewards"),
        ([EPISODE, EPISODE | {"rewards": [1.0, 0.0]}], "episode 1 must have 1 to 1 rewards and as many actions, got 2"),
        ([EPISODE | {"observations": [[1.0]]}], "episode 0 must have one observation more than rewards, got 1 and 1"),
    ],
)
def test_recorded_episodes_that_do_not_fit_are_refused(agent, episodes, sentence):
    with pytest.raises(maml_rl.AgentError, match=sentence):
        agent.adapt_to(episodes)
    assert agent.adapt_to([EPISODE]).num_steps == 1


GIVEN = {"num_iterations": 1, "num_tasks": 2, "episodes_per_task": 4, "evaluate_every": 0, "quiet": True}


def test_an_exported_module_acts_as_the_agent_does_and_can_be_moved(tmp_path):
    trained = maml_rl.train(TwoArms, output_dir=tmp_path / "run", observations="normalised", **GIVEN).agent()
    observations, module = torch.rand(5, 1), trained.export_torch()
    assert module(observations).flatten().tolist() == trained.act(observations.numpy()).tolist()
    assert module.to("meta")(observations.to("meta")).device.type == "meta"


def test_an_agent_acts_without_the_gpu_that_trained_it(agent, tmp_path):
    agent.save(tmp_path)
    about = json.loads((tmp_path / "agent.json").read_text())
    about["config"]["device"] = "cuda:7"
    (tmp_path / "agent.json").write_text(json.dumps(about))
    assert maml_rl.load_agent(tmp_path).act(np.ones(1, np.float32)) == agent.act(np.ones(1, np.float32))


def test_a_policy_that_remembers_learns_from_recorded_episodes(tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS, "recurrent", proof.RECURRENT)
    remembering = maml_rl.train(TwoArms, learner="recurrent", output_dir=tmp_path / "run", **GIVEN).agent()
    remembering.act(np.ones((2, 1), np.float32))
    assert remembering.act(np.ones((3, 1), np.float32)).shape == (3,)  # other episodes begin
    env, episodes = TwoArms(), []
    for reward in (0.0, 1.0):
        observation, _ = env.reset(seed=0)
        length = remembering.surroundings.horizon
        seen, taken = np.stack([observation] * (length + 1)), np.zeros(length, int)
        episodes.append({"observations": seen, "actions": taken, "rewards": [reward] * length})
    begun, *learned = (remembering, *(remembering.adapt_to([episode, episode]) for episode in episodes))
    assert not begun.adapted.any() and all(each.adapted.any() for each in learned)
    assert not torch.equal(learned[0].adapted, learned[1].adapted)


def test_an_agent_and_a_run_are_shown_in_a_line(agent, tmp_path):
    assert repr(agent) == "<Agent of two_arms:TwoArms, learner maml, 0 episodes adapted to>"
    run = maml_rl.train(TwoArms, output_dir=tmp_path / "run", **GIVEN)
    assert repr(run) == f"<Run of two_arms:TwoArms, learner maml, seed 1, in {tmp_path / 'run'}>"
    with pytest.raises(ValueError, match="checkpoint must be best or last, got 'Best'"):
        run.agent("Best")
