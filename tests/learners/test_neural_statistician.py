"""The Neural Statistician: what it knows of a set, how it classifies, what it imagines."""

import dataclasses

import numpy as np
import pytest
import torch
from pictures import write_folders
from torch.distributions import Independent, Normal, kl_divergence

import maml_rl
from maml_rl.core.adam import AdamConfig
from maml_rl.core.keys import EVALUATION, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import as_leaves, named
from maml_rl.experiments.presets import default_config
from maml_rl.learners import neural_statistician, statistic
from maml_rl.learners.number_statistician import NumberConfig, NumberStatistician
from maml_rl.learners.statistic import Batch, BoundConfig, Summary, draw_noise
from maml_rl.networks.blocks import by_batch
from maml_rl.networks.statistician import Sizes
from maml_rl.supervised.augmentation import AugmentationConfig
from maml_rl.supervised.distributions import (
    Distribution,
    DistributionCollector,
    DistributionConfig,
    Numbers,
)

KEY = Key(0, EVALUATION, 0)
NAME = "neural-statistician"


def seen(learner, state, support):
    return learner.adapt(state, learner.begin(state, len(support.labels), KEY), support, KEY)


def test_a_class_is_known_by_its_pictures_whatever_their_order_and_in_whatever_batches(make_problem):
    problem = make_problem(NAME, shots=3)
    learner, state = problem.learner, problem.trained(3)
    support, _ = problem.episodes(2)
    whole = learner.about(state, seen(learner, state, support))
    assert whole.mean.shape == (2, 5, 32)
    order = torch.from_numpy(np.random.default_rng(0).permutation(15))
    shuffled = support._replace(images=support.images[:, order], labels=support.labels[:, order])
    torch.testing.assert_close(learner.about(state, seen(learner, state, shuffled)), whole, rtol=1e-4, atol=1e-5)
    adapted = learner.begin(state, 2, KEY)
    for rows in (slice(0, 4), slice(4, 15)):  # the first has pictures of two classes only
        part = support._replace(images=support.images[:, rows], labels=support.labels[:, rows])
        adapted = learner.adapt(state, adapted, part, KEY)
    torch.testing.assert_close(learner.about(state, adapted), whole, rtol=1e-4, atol=1e-5)


def test_of_an_unseen_class_the_prior_is_believed(make_problem):
    problem = make_problem(NAME)
    found = problem.learner.about(problem.trained(2), Summary(torch.zeros(1, 3, 64), torch.zeros(1, 3)))
    assert not found.mean.any() and not found.log_variance.any()


@pytest.mark.parametrize("divergence", ["of_class", "of_query"])
def test_scores_are_minus_torch_s_divergences(divergence, make_problem):
    problem = make_problem(NAME, change=lambda config: dataclasses.replace(config, divergence=divergence))
    learner, state = problem.learner, problem.trained(3)
    support, query = problem.episodes(1)
    classes = learner.about(state, seen(learner, state, support))
    found = problem.predict(state, support, query)[0, 0]
    one_each = query._replace(labels=torch.arange(query.labels.shape[1]).unsqueeze(0))
    queries = learner.about(state, seen(learner, state, one_each))

    def as_torch(gaussian, place):
        return Independent(Normal(gaussian.mean[0, place], (0.5 * gaussian.log_variance[0, place]).exp()), 1)

    for i in (0, 7):
        for c in range(5):
            pair = as_torch(classes, c), as_torch(queries, i)
            expected = -kl_divergence(*(pair if divergence == "of_class" else pair[::-1]))
            torch.testing.assert_close(found[i, c], expected, rtol=1e-3, atol=1e-3)


def test_a_picture_of_the_support_is_the_nearest_to_its_class(make_problem):
    problem = make_problem(NAME)
    state = problem.trained(5)
    support, _ = problem.episodes(3)
    scores = problem.predict(state, support, support)[0]
    torch.testing.assert_close(scores.diagonal(dim1=1, dim2=2), torch.zeros(3, 5), rtol=0.0, atol=1e-4)
    assert (scores <= 1e-4).all()


def test_with_bfloat16_it_learns_and_gives_the_same_bits_with_any_number_of_threads(make_problem):
    def rounding(config):
        return dataclasses.replace(config, network=dataclasses.replace(config.network, precision="bfloat16"))

    one, two = (make_problem(NAME, change=rounding, num_threads=number) for number in (1, 2))
    states = [problem.trained(30) for problem in (one, two)]
    for name, value in named(states[0]).items():
        assert torch.equal(value, named(states[1])[name]), name
    support, query = one.episodes(4)
    scores = one.predict(states[0], support, query)[0]
    assert scores.dtype == torch.float32
    assert (scores.argmax(dim=-1) == query.labels).double().mean() > 0.5  # of five classes


def test_sample_dropout_keeps_every_number_equally_often_and_never_none():
    noise = draw_noise(Sizes(), 4000, 5, torch.Generator().manual_seed(0))
    counts = noise.kept.sum(dim=1)
    shares = [(counts == number).float().mean().item() for number in range(1, 6)]
    assert shares == pytest.approx([0.2] * 5, abs=0.03)
    assert noise.kept.mean(dim=0).tolist() == pytest.approx([0.6] * 5, abs=0.03)  # whichever they are


def test_randomness_is_new_in_each_iteration_and_follows_the_key(make_problem, monkeypatch):
    problem = make_problem(NAME)
    met = []

    def spying(self, state, batches, key):
        met.append((batches[0].sets, draw_noise(Sizes(), 2, 5, key.torch_generator(0, statistic.NOISE)).context))
        return state, {}

    monkeypatch.setattr(statistic.NeuralStatistician, "ascend", spying)
    tasks = problem.training.sample(2, np.random.default_rng(0))
    for iteration in (0, 0, 1):
        problem.learner.meta_step(problem.state, tasks, Key(1, TRAINING, iteration))
    for first, again, next_one in zip(*met, strict=True):
        assert torch.equal(first, again) and not torch.equal(first, next_one)
    assert set(met[0][0].unique().tolist()) == {0.0, 1.0} and met[0][0].shape[:2] == (5, 5)


def test_the_reconstruction_weighs_more_at_first():
    config = BoundConfig(extra_weight=1.0, halving_steps=100)
    assert [config.weight_after(steps) for steps in (0, 99, 100, 250)] == [2.0, 2.0, 1.5, 1.25]
    assert BoundConfig(extra_weight=0.0).weight_after(0) == 1.0


@pytest.mark.parametrize("extra_weight", [0.0, 1.0])
def test_what_is_descended_is_minus_the_bound_of_one_observation(extra_weight, make_problem):
    config = BoundConfig(extra_weight=extra_weight)
    problem = make_problem(NAME, change=lambda given: dataclasses.replace(given, bound=config))
    learner, state = problem.learner, problem.trained(2)
    support, _ = problem.episodes(3)
    batch = Batch((support.images > 0.5).float(), 3)  # three sets of five pictures
    leaves, weight = as_leaves(state.params), config.weight_after(0)
    found, _, _ = learner._slope(leaves, batch, weight, torch.Generator().manual_seed(0), state.running)
    noise = draw_noise(learner.model.sizes, 3, 5, torch.Generator().manual_seed(0))
    bound, _, _ = learner.model.bound(leaves, batch.sets, noise, by_batch(leaves, {}))
    # the parts of `total`: the reconstruction counts 1 + a times, the divergences 1 / (1 + a) times
    total = bound.total if not extra_weight else 2.0 * bound.reconstruction - 0.5 * (bound.context + bound.latents)
    slopes = torch.autograd.grad(-total.sum() / 15, list(leaves.values()))
    torch.testing.assert_close(found, torch.cat([slope.flatten() for slope in slopes]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extra_weight": -1.0}, r"bound\.extra_weight must be at least 0"),
        ({"halving_steps": 0}, r"bound\.halving_steps must be at least 1"),
        ({"max_slope": 0.0}, r"bound\.max_slope must be positive"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        BoundConfig(**settings)


def test_a_step_is_no_larger_than_the_largest_slope_allows(make_problem):
    def with_limit(limit):
        bound = BoundConfig(max_slope=limit)
        return make_problem(NAME, change=lambda config: dataclasses.replace(config, bound=bound))

    tasks = with_limit(1.0).training.sample(1, np.random.default_rng(0))
    norms = []
    for limit in (1e9, 1e-3):
        problem = with_limit(limit)
        norms.append(problem.learner.meta_step(problem.state, tasks, Key(1, TRAINING, 0))[1].metrics["gradient_norm"])
        count = sum(value.numel() for value in problem.state.params.values())
    assert norms[1] <= 1e-3 * count**0.5 < norms[0]


def test_imagined_drawings_have_the_data_s_ink_and_resemble_their_class(make_problem):
    adam = AdamConfig(learning_rate=0.01, decay="cosine", decay_steps=200)

    def changed(config):
        outer = dataclasses.replace(config.outer, gradient=adam)
        return dataclasses.replace(config, outer=outer, augmentation=AugmentationConfig(max_angle=0.0))

    problem = make_problem(NAME, noise=0.02, shots=4, change=changed)
    state, learner = problem.trained(200), problem.learner
    support, _ = problem.episodes(12)
    contexts = learner.about(state, seen(learner, state, support)).mean.flatten(0, 1)
    drawn = learner.imagine(state, contexts, 10, KEY)
    assert drawn.shape == (60, 10, 16, 16, 1)
    assert drawn.mean().item() == pytest.approx(support.images.mean().item(), rel=0.1)
    of_class = drawn.mean(dim=1).flatten(1).unflatten(0, (12, 5))
    true = support.images.unflatten(1, (5, 4)).mean(dim=2).flatten(2)
    nearest = torch.cdist(of_class, true).argmin(dim=-1)
    assert (nearest == torch.arange(5)).float().mean() >= 0.7  # 0.2 by chance


def test_colour_pictures_and_other_tasks_are_refused_before_anything_is_made(tmp_path, own_cache):
    write_folders(tmp_path / "data", mode="RGB")
    given = {"learner": NAME, "output_dir": tmp_path / "run", "quiet": True, "num_iterations": 1}
    with pytest.raises(ValueError, match=r"channels must be grey for learner neural-statistician.*--channels grey"):
        sizes = {"ways": 3, "train_ways": 3, "train_shots": 3, "test_queries": 2, "image_size": 16}
        maml_rl.train("images", data_root=str(tmp_path / "data"), **sizes, **given)
    with pytest.raises(ValueError, match=r"learner neural-statistician takes .*, not regression tasks"):
        maml_rl.train("sinusoid", **given)
    with pytest.raises(ValueError, match=r"learner maml takes .*, not densities of numbers"):
        maml_rl.train("distributions", **(given | {"learner": "maml"}))
    assert not (tmp_path / "run").exists()


def test_the_preset_for_two_cores_is_a_smaller_network_on_the_same_sets():
    paper, fast = (default_config("omniglot", NAME, preset) for preset in ("paper", "fast"))
    assert paper.task == fast.task and sum(paper.task.training[1:]) == 5
    assert paper.method.network.sizes == Sizes(512, 16, 1, 256) and fast.method.network.sizes == Sizes(512, 4, 1, 256)
    assert fast.method.network.num_filters < paper.method.network.num_filters == 64
    assert neural_statistician.ENTRY.any_ways


# --- distributions over the real line ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers():
    """A learner that has seen some distributions, and its state."""
    threads = Threads(1)
    collector = DistributionCollector(DistributionConfig(num_examples=60), torch.device("cpu"), threads)
    config = NumberConfig(
        sizes=Sizes(context_size=3, latent_size=4, hidden_size=32, num_hidden=1, num_pooled=1),
        bound=BoundConfig(halving_steps=50),
    )
    config = dataclasses.replace(
        config,
        outer=dataclasses.replace(
            config.outer, gradient=dataclasses.replace(config.outer.gradient, learning_rate=5e-3)
        ),
    )
    learner = NumberStatistician(config, collector, threads, torch.device("cpu"))
    state = learner.init(KEY)
    rng = np.random.default_rng(0)
    for iteration in range(300):
        tasks = [
            Distribution("Gaussian", float(rng.uniform(-2.0, 2.0)), float(rng.uniform(0.1, 1.0))) for _ in range(8)
        ]
        state, _ = learner.meta_step(state, tasks, Key(1, TRAINING, iteration))
    return learner, state


def predicted(learner, state, adapted, at):
    with torch.no_grad():
        return learner.actor(state, adapted, KEY).step((), Numbers(at.expand(len(adapted.counts), -1, 1)), None)[0]


def test_a_predicted_density_adds_up_to_one_and_comes_near_the_truth(numbers):
    learner, state = numbers
    task = Distribution("Gaussian", 1.2, 0.3)
    shown = torch.from_numpy(task.draw(np.random.default_rng(5), 60)).float().view(1, 60, 1)
    before = learner.begin(state, 1, KEY)
    after = learner.adapt(state, before, Numbers(shown), KEY)
    at = torch.linspace(-6.0, 6.0, 600).view(1, -1, 1)
    asked = torch.from_numpy(task.draw(np.random.default_rng(6), 400)).float().view(1, 400, 1)
    truth = np.log(task.density(asked.flatten().numpy())).mean()
    scores = [predicted(learner, state, adapted, asked).mean().item() for adapted in (before, after)]
    assert scores[0] < scores[1] - 0.2 and scores[1] < truth + 0.1
    assert scores[1] > truth - 0.3
    mass = predicted(learner, state, after, at).exp().sum().item() * 12.0 / 599
    assert mass == pytest.approx(1.0, abs=0.1)


def test_numbers_in_two_batches_and_any_order_are_one_set(numbers):
    learner, state = numbers
    shown = torch.randn(2, 10, 1, generator=torch.Generator().manual_seed(0))
    begun = learner.begin(state, 2, KEY)
    whole = learner.adapt(state, begun, Numbers(shown), KEY)
    parts = learner.adapt(state, begun, Numbers(shown[:, 6:]), KEY)
    parts = learner.adapt(state, parts, Numbers(shown[:, :6]), KEY)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_a_single_task_is_enough_for_a_step(numbers):
    learner, state = numbers
    moved, report = learner.meta_step(state, [Distribution("uniform", 0.0, 1.0)], Key(1, TRAINING, 0))
    assert np.isfinite(report.metrics["log_density_after"])
    assert not torch.equal(named(moved)["adam/first"], named(state)["adam/first"])
