"""Guided Meta-Policy Search: adaptation that leads to what an expert does who is told the task."""

import copy
import dataclasses
import shutil

import gymnasium
import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

import maml_rl
from maml_rl.core.clock import Clock
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.proximal import ProximalConfig, Surrogate
from maml_rl.core.trees import flatten, from_names, map_params, named
from maml_rl.experiments.build import build
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.warm_start import warm_start, with_settings_of_start
from maml_rl.learners.guided import CloneConfig
from maml_rl.policies.policy import PolicyConfig
from maml_rl.storage.checkpoint import load_latest
from maml_rl.training.trainer import first_checkpoint

NAVIGATION = "maml/Navigation2D-v0"
SMALL = {"num_tasks": 3, "episodes_per_task": 4, "horizon": 6, "evaluate_every": 0, "quiet": True, "num_threads": 1}
TOLD = {"oracle": True, "inner.num_steps": 0}
KEY = Key(5, TRAINING, 0)


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """A run that was told its tasks."""
    folder = tmp_path_factory.mktemp("expert") / "run"
    maml_rl.train(NAVIGATION, num_iterations=2, observations="normalised", output_dir=folder, **TOLD, **SMALL)
    return folder


@pytest.fixture(params=[PolicyConfig(), PolicyConfig(hidden_sizes=(8,), activation="tanh")], ids=["alike", "unlike"])
def guided(expert, request):
    """(learner, state) of a new run that it guides, whose network is like the expert's or another one."""
    config = default_config(NAVIGATION, "gmps")
    method = dataclasses.replace(config.method, expert=str(expert), policy=request.param)
    sampling = dataclasses.replace(config.task.sampling, episodes_per_task=4, horizon=6)
    task = dataclasses.replace(config.task, observations="normalised", sampling=sampling)
    config = with_settings_of_start(dataclasses.replace(config, method=method, task=task, num_threads=1))
    built = build(config)
    initial = first_checkpoint(built.learner, 1)
    begun = warm_start(config, initial)
    template = built.learner.init(KEY)
    yield built, from_names(template, begun.state), begun
    built.close()


def collected(guided, num_tasks=3):
    built, state, _ = guided
    tasks = built.family.source.sample_tasks(num_tasks, np.random.default_rng(3))
    return tasks, built.learner._collect(state, tasks, KEY, maml_rl.core.clock.Clock())


def test_the_expert_answers_what_its_run_s_agent_would_do(guided, expert):
    tasks, data = collected(guided)
    query, scale = data.batches[-1], guided[0].config.task.observation_scale
    mean, std = (value.float() for value in scale.tensors)
    for n, task in enumerate(tasks):
        agent = maml_rl.load(expert).agent().told(task)
        played = query.mask[n].bool()
        seen = (query.observations[n][played] * std + mean).numpy()
        answers = query.expert[n][played][:, :2].clamp(-1.0, 1.0).numpy()  # the mean, as far as the action goes
        space = gymnasium.make(NAVIGATION).action_space
        np.testing.assert_allclose(agent.act(seen), answers * space.high, atol=1e-5)


def test_what_the_expert_cost_is_counted_and_it_stays_as_it_was(guided, expert):
    built, state, begun = guided
    found = load_latest(expert / "checkpoints")
    assert begun.counters == {name: found.counters[name] for name in begun.counters}
    moved, report = built.learner.meta_step(state, collected(guided)[0], KEY)
    for name, value in named(state.expert).items():
        assert torch.equal(named(moved.expert)[name], value)
    for name, value in moved.expert.params.items():
        assert torch.equal(value, found.state[f"params/{name}"])
    assert any(not torch.equal(moved.params[name], value) for name, value in state.params.items())
    assert report.metrics["surrogate_loss_after"] < report.metrics["surrogate_loss_before"]


def test_the_outer_loss_is_the_divergence_from_the_expert(guided):
    built, state, _ = guided
    query = collected(guided)[1].batches[-1]
    model = built.learner.model
    one = type(query)(*(value[1] for value in query))
    outputs = model.outputs(state.params, one)

    def of(outputs):
        mean, log_std = outputs.chunk(2, dim=-1)
        return Independent(Normal(mean, log_std.exp()), 1)

    wanted = kl_divergence(of(outputs), of(one.expert.flatten(0, 1))) * one.mask.flatten()
    torch.testing.assert_close(model.outer_loss_at(outputs, one), wanted.sum() / one.mask.sum())
    same = one._replace(expert=outputs.detach().view_as(one.expert))
    torch.testing.assert_close(model.outer_loss_at(outputs, same), torch.zeros(()), atol=1e-6, rtol=0.0)


def test_the_first_gradient_is_that_of_the_divergence_after_a_step_written_down_anew(guided):
    built, state, _ = guided
    *supports, query = collected(guided)[1].batches
    learner = built.learner
    objective = MetaObjective(learner.model, learner.inner, supports, query, built.threads, learner.inner.step_sizes)
    slope = Surrogate(objective, ProximalConfig(inner_kl=(0.0,)), [0.0]).linearize(state.params)
    model, alpha = learner.model, learner.inner.step_size

    def loss(theta):
        total = torch.zeros(())
        for n in range(3):
            support, asked = (type(each)(*(value[n] for value in each)) for each in (supports[0], query))
            inner = torch.func.grad(lambda p, d=support: model.inner_loss_at(model.outputs(p, d), d))(theta)
            adapted = {name: value - alpha * inner[name] for name, value in theta.items()}
            total = total + model.outer_loss_at(model.outputs(adapted, asked), asked) / 3
        return total

    gradient, value = torch.func.grad_and_value(loss)(map_params(lambda p: p.clone(), state.params))
    assert slope.loss == pytest.approx(value.item(), rel=1e-4)
    torch.testing.assert_close(slope.gradient.float(), flatten(gradient), rtol=1e-3, atol=1e-5)


def cloning(guided, **settings):
    """The learner and state of `guided`, whose first iteration clones the expert."""
    built, state, _ = guided
    learner = copy.copy(built.learner)
    learner._clone = CloneConfig(num_iterations=1, **settings)
    return learner, state


def test_cloning_descends_the_divergence_of_theta_itself_from_the_expert(guided):
    tasks, (learner, state) = collected(guided)[0], cloning(guided, epochs=1, batch_size=10**6, learning_rate=0.01)
    batches = learner._collect(state, tasks, KEY, Clock()).batches
    moved, report = learner.meta_step(state, tasks, KEY)
    model = learner.model

    def loss(theta):
        total, count = torch.zeros(()), 0.0
        for batch in batches:
            for n in range(len(tasks)):
                one = type(batch)(*(value[n] for value in batch))
                steps = one.mask.sum()
                total, count = total + steps * model.outer_loss_at(model.outputs(theta, one), one), count + steps
        return total / count

    slope, value = torch.func.grad_and_value(loss)(map_params(lambda p: p.clone(), state.params))
    assert report.metrics["surrogate_loss_before"] == pytest.approx(value.item(), rel=1e-4)
    for name, before in state.params.items():  # Adam's first step is as long as its rate, against the slope
        sure = slope[name].abs() > 1e-4
        expected = torch.where(sure, -0.01 * slope[name].sign(), moved.params[name] - before)
        torch.testing.assert_close(moved.params[name] - before, expected, rtol=0.01, atol=0.0)
    assert loss(moved.params).item() == pytest.approx(report.metrics["surrogate_loss_after"], rel=1e-4)
    assert report.metrics["surrogate_loss_after"] < report.metrics["surrogate_loss_before"]


def test_cloning_learns_from_episodes_of_theta_of_adapted_policies_and_of_the_expert(guided, expert):
    tasks, (learner, state) = collected(guided)[0], cloning(guided)
    data = learner._collect(state, tasks, KEY, Clock())
    support, shown, query = data.batches
    assert len(learner._collect(state, tasks, KEY._replace(iteration=1), Clock()).batches) == 2
    scale = guided[0].config.task.observation_scale
    mean, std = (value.float() for value in scale.tensors)
    for n, task in enumerate(tasks):
        agent = maml_rl.load(expert).agent().told(task)
        played = shown.mask[n].bool()
        wanted = agent.act((shown.observations[n][played] * std + mean).numpy())
        noise = shown.actions[n][played] - torch.from_numpy(wanted / gymnasium.make(NAVIGATION).action_space.high)
        assert noise.mean(dim=0).abs().max() < 4.0 * noise.std() / len(noise) ** 0.5 + 0.05
    steps = sum(float(each.mask.sum()) for each in (support, shown, query))
    assert learner.meta_step(state, tasks, KEY)[1].metrics["env_steps"] == steps


@pytest.mark.parametrize("num_threads", [2, 3])
def test_cloning_has_the_same_bits_on_any_number_of_threads(num_threads, expert, tmp_path):
    given = {"learner": "gmps", "expert": str(expert), "observations": "normalised", "num_iterations": 2, **SMALL}
    given |= {"clone.num_iterations": 1, "clone.batch_size": 7}
    alone = maml_rl.train(NAVIGATION, output_dir=tmp_path / "alone", **given)
    several = maml_rl.train(NAVIGATION, output_dir=tmp_path / "several", **given | {"num_threads": num_threads})
    for name, value in load_latest(alone.path / "checkpoints").state.items():
        assert torch.equal(value, load_latest(several.path / "checkpoints").state[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_iterations": -1}, "clone.num_iterations must be at least 0, got -1"),
        ({"epochs": 0}, "clone.epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "clone.batch_size must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "clone.learning_rate must be positive and finite, got 0.0"),
    ],
)
def test_settings_of_cloning_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        CloneConfig(**settings)


class Way(gymnasium.Env):
    """A push to the left or to the right, which nothing but the reward tells."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    horizon, next_way = 1, 1.0

    def sample_tasks(self, num_tasks, rng):
        return rng.choice([-1.0, 1.0], num_tasks).tolist()

    def set_task(self, task):
        self.next_way = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), float(self.next_way * action[0]), False, True, {}


def test_adaptation_comes_to_do_what_the_expert_does(tmp_path):
    given = {"num_tasks": 10, "episodes_per_task": 20, "evaluate_every": 0, "quiet": True, "num_iterations": 30}
    given |= {"policy.hidden_sizes": (16,), "max_kl": 0.1}
    told = maml_rl.train(Way, output_dir=tmp_path / "told", **TOLD, **given)
    assert told.metrics["return_after"][-5:].mean() > 0.6
    run = maml_rl.train(Way, learner="gmps", expert=str(told.path), output_dir=tmp_path / "guided", **given)
    before, after = (run.metrics[f"return_{when}"] for when in ("before", "after"))
    assert abs(before[-5:].mean()) < 0.2 and after[0] < 0.3
    assert after[-5:].mean() > 0.6


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"expert": None}, "learner gmps needs expert, the folder of a run that was told its tasks, got none"),
        ({"env": "maml/Bandit-K5-v0"}, "expert must name a run of maml/Bandit-K5-v0, but .* is one of maml/Navigation"),
        (
            {"clone.num_iterations": 2, "inner.num_steps": 0},
            "clone.num_iterations must be 0 where inner.num_steps is 0",
        ),
        ({"observations": "raw"}, "observations must be normalised, as in the run .* of the expert"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(given, sentence, expert, tmp_path):
    given = {"env": NAVIGATION, "expert": str(expert), "observations": "normalised", "num_iterations": 1, **given}
    with pytest.raises(ValueError, match=sentence):
        maml_rl.train(learner="gmps", output_dir=tmp_path / "run", quiet=True, **given)
    assert not (tmp_path / "run").exists()


def test_an_expert_must_have_been_told_its_tasks(tmp_path):
    maml_rl.train(NAVIGATION, num_iterations=1, output_dir=tmp_path / "blind", **SMALL)
    with pytest.raises(ValueError, match=r"expert must name a run that was told its tasks, but .*blind was not"):
        maml_rl.train(NAVIGATION, learner="gmps", expert=str(tmp_path / "blind"), output_dir=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{}, {"policy.hidden_sizes": (8,)}, {"clone.num_iterations": 1}])
def test_a_run_goes_on_and_is_used_without_its_expert_s_folder(settings, expert, tmp_path):
    moved = tmp_path / "told"
    shutil.copytree(expert, moved)
    given = {"learner": "gmps", "expert": str(moved), "observations": "normalised", **SMALL}
    given |= settings
    whole = maml_rl.train(NAVIGATION, output_dir=tmp_path / "whole", num_iterations=2, **given)
    part = maml_rl.train(NAVIGATION, output_dir=tmp_path / "part", num_iterations=1, **given)
    shutil.rmtree(moved)
    resumed = maml_rl.train(resume=part.path, num_iterations=2, quiet=True)
    for name, value in load_latest(whole.path / "checkpoints").state.items():
        assert torch.equal(value, load_latest(resumed.path / "checkpoints").state[name])
    assert resumed.evaluate(num_tasks=3).mean == whole.evaluate(num_tasks=3).mean
    resumed.agent().save(tmp_path / "agent")
    assert maml_rl.load_agent(tmp_path / "agent").num_steps == 0
