"""The one evaluator: which data it asks for, and what it makes of them."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from pictures import drawings
from small_policy import make_small

import envs  # noqa: F401 - registers the ids
from maml_rl.core.contracts import Actor, TaskFamily
from maml_rl.core.inner import InnerConfig, adapt_tasks
from maml_rl.core.keys import EVALUATION, INITIALISATION, JUDGED, Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import named, stack
from maml_rl.evaluation.adaptation_curve import EvaluationConfig, evaluation_tasks
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.experiments.build import picture_spec
from maml_rl.learners.maml import MAML
from maml_rl.learners.pixels import PixelNeighbour
from maml_rl.supervised.classification import Accuracy, EpisodeCollector, EpisodeSource
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream
from maml_rl.supervised.images import ImageSet
from maml_rl.supervised.sinusoid import (
    RegressionModel,
    SinusoidCollector,
    SinusoidConfig,
    SinusoidSource,
    SquaredError,
)

CONFIG = EvaluationConfig(num_tasks=4, num_steps=3, seed=9)
INNER = InnerConfig(step_size=0.1, test_step_size=0.02, later_ratio=0.5)
KEY, CPU = Key(9, EVALUATION, 5), torch.device("cpu")


@pytest.fixture(scope="module")
def threads():
    return Threads(1)


class RecordedSource:
    """A source that keeps its tasks, and the generator that they were drawn from."""

    def __init__(self, source):
        self._source, self.tasks, self.generator_state = source, None, None

    def sample_test_tasks(self, num_tasks, rng):
        self.generator_state = rng.bit_generator.state
        self.tasks = self._source.sample_test_tasks(num_tasks, rng)
        return self.tasks


class RecordedCollector:
    """A collector that keeps the keys of its data."""

    def __init__(self, collector):
        self.resamples, self._collector, self.keys = collector.resamples, collector, []

    def collect(self, tasks, actor, key):
        self.keys.append(key)
        return self._collector.collect(tasks, actor, key)


def recorded(family):
    return TaskFamily(RecordedSource(family.source), RecordedCollector(family.collector), family.measure)


class Regression(NamedTuple):
    family: TaskFamily
    learner: MAML


def sinusoid(threads):
    config = SinusoidConfig(init_std=0.3)
    family = TaskFamily(SinusoidSource(config), SinusoidCollector(config, CPU, threads), SquaredError())
    model = RegressionModel(config, CPU)
    return Regression(family, MAML(model, family.collector, family.measure, INNER, GradientOuter().make(), threads))


def navigation(threads):
    return make_small("maml/Navigation2D-v0", threads, inner=INNER)


def curve_of(family, learner, config=CONFIG, key=KEY, judge=None):
    """The curve of the learner as it begins."""
    evaluation = Evaluation(family, range(config.num_steps + 1), judge)
    state = learner.init(Key(1, INITIALISATION, 0))
    return evaluation.curve(learner, state, evaluation_tasks(family.source, config), key)


def test_scores_of_regression_are_errors_on_one_query_set(threads):
    plain, learner = sinusoid(threads)
    family = recorded(plain)
    curve = curve_of(family, learner)
    assert set(family.collector.keys) == {KEY.at_phase(0), KEY.at_phase(1)}  # support, query; nothing else
    support, query = (plain.collector.collect(family.source.tasks, None, KEY.at_phase(p)) for p in (0, 1))
    assert curve.metric == "mse" and curve.per_task.shape == (4, 4)
    theta, model = learner.init(Key(1, INITIALISATION, 0)).params, learner.model
    for steps in range(4):
        sizes = (0.02, 0.01, 0.01)[:steps]
        params = adapt_tasks(model, stack(theta, 4), [support] * steps, sizes, threads)
        errors = (model.linearize(params, query).outputs - query.targets).square().mean(dim=(1, 2))
        torch.testing.assert_close(curve.per_task[steps], errors.double(), rtol=1e-5, atol=1e-6)
    assert curve.mean == pytest.approx(curve.per_task.mean(dim=1).tolist())


def test_scores_of_rl_are_returns_of_fresh_episodes_after_every_step(threads):
    plain, _, learner = navigation(threads)
    family = recorded(plain)
    curve = curve_of(family, learner)
    assert family.collector.keys == [KEY.at_phase(phase) for phase in range(4)]
    state = learner.init(Key(1, INITIALISATION, 0))
    first = plain.collector.collect(family.source.tasks, learner.actor(state, learner.begin(state, 4, KEY), KEY), KEY)
    assert curve.metric == "return" and curve.per_task.shape == (4, 4)
    torch.testing.assert_close(curve.per_task[0], first.rewards.sum(dim=-1).double().mean(dim=1))


def test_a_curve_says_what_each_score_has_cost(threads):
    # fresh episodes for each adaptation, one support of examples for all
    for (family, *_, learner), used in ((navigation(threads), [0, 3, 6, 9]), (sinusoid(threads), [0, 10, 10, 10])):
        curve = curve_of(family, learner)
        assert (list(curve.used), list(curve.gradient_steps), list(curve.steps)) == (used, [0, 1, 2, 3], [0, 1, 2, 3])


def test_equal_calls_give_equal_curves_and_other_iterations_other_data(threads):
    plain, learner = sinusoid(threads)
    family = recorded(plain)
    curve, tasks = curve_of(family, learner), family.source.tasks
    assert torch.equal(curve_of(family, learner).per_task, curve.per_task)
    other = curve_of(family, learner, key=KEY._replace(iteration=6))
    assert not torch.equal(other.per_task, curve.per_task)
    assert family.source.tasks == tasks  # drawn once


def test_the_state_is_left_as_it_is(threads):
    family, learner = sinusoid(threads)
    state = learner.init(Key(1, INITIALISATION, 0))
    before = {name: value.clone() for name, value in named(state).items()}
    Evaluation(family, (0, 3)).curve(learner, state, evaluation_tasks(family.source, CONFIG), KEY)
    assert all(torch.equal(value, before[name]) for name, value in named(state).items())


def test_no_step_gives_one_score(threads):
    family, learner = sinusoid(threads)
    assert curve_of(family, learner, EvaluationConfig(num_tasks=2, num_steps=0)).per_task.shape == (1, 2)


def test_the_tasks_noise_is_not_that_of_any_data(threads):
    # Otherwise the first task's inputs would be its tasks' amplitudes in other units.
    plain, learner = sinusoid(threads)
    family = recorded(plain)
    curve_of(family, learner, key=Key(CONFIG.seed, EVALUATION, 0))
    for key in family.collector.keys:
        for task in range(CONFIG.num_tasks):
            state = key.rng(task).bit_generator.state
            assert not np.array_equal(state["state"]["key"], family.source.generator_state["state"]["key"])


@pytest.mark.parametrize(("num_steps", "sizes"), [(0, ()), (1, (0.3,)), (3, (0.3, 0.15, 0.15))])
def test_at_test_the_first_step_has_a_size_of_its_own(num_steps, sizes):
    assert InnerConfig(step_size=0.1, test_step_size=0.3, later_ratio=0.5).test_step_sizes(num_steps) == sizes
    assert InnerConfig(step_size=0.3, later_ratio=0.5).test_step_sizes(num_steps) == sizes


@pytest.mark.parametrize("name", ["test_step_size", "later_ratio"])
def test_step_sizes_at_test_are_checked(name):
    with pytest.raises(ValueError, match=rf"inner\.{name} must be positive and finite, got 0.0"):
        InnerConfig(**{name: 0.0})


def test_a_judge_scores_other_episodes_and_leaves_adaptation_as_it_is(threads):
    plain, mean_actions, learner = navigation(threads)
    family, judge = recorded(plain), RecordedCollector(mean_actions)
    state = learner.init(Key(1, INITIALISATION, 0))
    tasks = plain.source.sample_tasks(4, np.random.default_rng(0))
    own = list(Evaluation(family, range(4)).stages(learner, state, tasks, KEY))
    judged = list(Evaluation(family, range(4), judge).stages(learner, state, tasks, KEY))
    for one, other in zip(own, judged, strict=True):
        assert all(torch.equal(value, other.adapted.params[name]) for name, value in one.adapted.params.items())
    assert not set(judge.keys) & set(family.collector.keys)
    assert judge.keys == [KEY.at_phase(JUDGED + phase) for phase in range(4)] == [stage.key for stage in judged]
    # without noise, in an environment without any, all episodes of a task are the same one
    returns, noisy = (plain.measure.score(stages[-1].scored) for stages in (judged, own))
    assert torch.equal(returns, returns[:, :1].expand_as(returns))
    assert not torch.equal(noisy, noisy[:, :1].expand_as(noisy))


def test_success_is_scored_beside_the_return_over_the_same_episodes(threads):
    plain, _, learner = make_small("test/Reach-v0", threads, inner=INNER)
    family = recorded(plain)
    curve = curve_of(family, learner)
    state, tasks = learner.init(Key(1, INITIALISATION, 0)), family.source.tasks
    first = plain.collector.collect(tasks, learner.actor(state, learner.begin(state, 4, KEY), KEY), KEY)
    # Observed before each step but the first: all distances after a step except the last one's.
    places = first.observations.new_tensor([task.x for task in tasks]).view(4, 1, 1)
    near = (places - first.observations[..., 0]).abs()
    assert (first.successes[..., 0] >= (near[..., 1:] < 0.5).any(dim=-1)).all()
    assert 0 < first.successes.sum() < first.successes.numel()
    own, success = curve.measures
    assert own.metric == "return" and torch.equal(own.per_task, curve.per_task)
    assert success.metric == "success" and success.higher_is_better and success.per_task.shape == (4, 4)
    assert torch.equal(success.per_task[0], first.successes.double().mean(dim=(1, 2)))
    assert success.mean == pytest.approx(success.per_task.mean(dim=1).tolist())


def test_environments_that_report_no_success_have_one_measure(threads):
    for family, *_, learner in (sinusoid(threads), navigation(threads)):
        assert [each.metric for each in curve_of(family, learner).measures] == [family.measure.metric]


# --- given pictures ---------------------------------------------------------------------------------------------


@pytest.fixture
def stream():
    pictures = drawings(10, 6, 8, np.random.default_rng(0), noise=0.3).reshape(-1, 8, 8, 1)
    data = ImageSet(pictures, np.arange(0, 61, 6), tuple(map(str, range(10))))
    return EpisodeStream(data, np.arange(10), "classes", EpisodeSize(4, 1, 2))


def pictures_of(stream, threads, norm="batch"):
    return TaskFamily(EpisodeSource(stream, stream), EpisodeCollector(stream.data, norm, CPU, threads), Accuracy())


@dataclasses.dataclass(frozen=True)
class Guess:
    """A network that reads the labels where `params["share"]` is large, and else answers with the first class."""

    is_recurrent = False

    def step(self, params, memory, observation, previous):
        right = torch.nn.functional.one_hot(observation.labels, 4).float()
        first = torch.zeros_like(right)
        first[..., 0] = 1.0
        return torch.where(params["share"].view(-1, 1, 1) > 0.5, right, first), memory


class Slow:
    """A learner whose answers are all right once it has adapted five times, each adaptation being two steps."""

    def begin(self, state, num_tasks, key):
        return {"count": torch.zeros(num_tasks)}

    def adapt(self, state, adapted, data, key):
        return {"count": adapted["count"] + 1}

    def actor(self, state, adapted, key):
        return Actor(Guess(), {"share": (adapted["count"] >= 5).float()})

    def num_gradient_steps(self, adapted):
        return 2 * int(adapted["count"][0])


def test_accuracy_is_the_share_of_right_answers_after_each_number_of_adaptations(stream, threads):
    # after 5 adaptations all is right; before the first class is always the answer, which is right once in four ways
    family = pictures_of(stream, threads)
    tasks = evaluation_tasks(family.source, EvaluationConfig(num_tasks=7, seed=3))
    curve = Evaluation(family, (0, 5)).curve(Slow(), (), tasks, KEY)
    assert curve.metric == "accuracy" and list(curve.steps) == [0, 10] and len(curve.tasks) == 7
    assert curve.per_task.tolist() == [[0.25] * 7, [1.0] * 7]


@pytest.mark.parametrize("block_size", [1, 2, 9])
def test_neither_learner_nor_blocks_change_the_episodes(block_size, stream, threads):
    family = pictures_of(stream, threads)
    shape = picture_spec(stream).shape
    learner = PixelNeighbour(shape, family.collector, family.measure, threads, CPU)

    def curve(family, seed=3, block_size=None):
        tasks = evaluation_tasks(family.source, EvaluationConfig(num_tasks=9, seed=seed))
        return Evaluation(family, (1,), block_size=block_size).curve(learner, (), tasks, KEY)

    one, whole = curve(family, block_size=block_size), curve(pictures_of(stream, threads, "support"))
    assert one.tasks == whole.tasks and torch.equal(one.per_task, whole.per_task)
    assert list(one.steps) == [0] and list(one.used) == [4]
    assert curve(family, seed=4).tasks != whole.tasks


class Posterior(Slow):
    """A learner that acts as a draw: all answers of the first one are right, those of the second are not, and so on."""

    def __init__(self):
        self.keys = []

    def actor(self, state, adapted, key):
        self.keys.append(key)
        share = float(len(set(self.keys)) % 2 == 1)
        return Actor(Guess(), {"share": torch.full_like(adapted["count"], share)})


@pytest.mark.parametrize(("num_draws", "share", "accuracy"), [(1, 1.0, 1.0), (2, 0.5, 0.25), (3, 2 / 3, 1.0)])
def test_draws_of_the_actor_on_given_data_predict_together(num_draws, share, accuracy, stream, threads):
    # A draw gives its answer the probability e / (e + 3). Draws that are wrong all name the first class, which is right
    # for a quarter of the queries and named where there is a tie.
    family, learner = pictures_of(stream, threads), Posterior()
    tasks = evaluation_tasks(family.source, EvaluationConfig(num_tasks=2, seed=3))
    evaluation = Evaluation(family, (0,), num_draws=num_draws)
    curve = evaluation.curve(learner, (), tasks, KEY)
    assert len(set(learner.keys)) == num_draws  # each draw has its own noise
    assert curve.mean == pytest.approx([accuracy])
    high, low = math.e / (math.e + 3), 1 / (math.e + 3)
    nll = -0.25 * math.log(high) - 0.75 * math.log(share * high + (1 - share) * low)
    assert curve.likelihood.mean == pytest.approx([nll], rel=1e-5) and not curve.likelihood.higher_is_better
    confidence = 0.25 * high + 0.75 * (share * high + (1 - share) * low)
    if num_draws != 2:
        assert curve.calibration_error == pytest.approx([abs(1.0 - confidence)], rel=1e-5)


def test_blocks_change_neither_likelihood_nor_calibration(stream, threads):
    family = pictures_of(stream, threads)
    tasks = evaluation_tasks(family.source, EvaluationConfig(num_tasks=5, seed=3))
    whole, cut = (Evaluation(family, (0, 5), block_size=size).curve(Slow(), (), tasks, KEY) for size in (None, 2))
    assert torch.equal(whole.nll, cut.nll) and whole.nll.shape == (2, 5)
    assert whole.calibration_error == pytest.approx(cut.calibration_error)
    assert len(whole.reliability) == 2


def test_where_outputs_are_no_distribution_there_is_neither(threads):
    family, learner = sinusoid(threads)
    curve = curve_of(family, learner)
    assert curve.likelihood is None and curve.calibration_error == []
