"""The proximal step: its gradient against the plain surrogate's, finite differences and automatic differentiation."""

import dataclasses

import pytest
import torch

from maml_rl.core.adam import AdamConfig, adam_step, init_moments
from maml_rl.core.contracts import SampledModel
from maml_rl.core.inner import InnerConfig, adapt_tasks, join_step_sizes
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.proximal import Proximal, ProximalConfig, Surrogate, adapted_coefficients
from maml_rl.core.trees import flatten, stack, take_task, unflatten
from maml_rl.policies.categorical import Categorical
from maml_rl.policies.policy import MLPPolicy, PolicySpec
from maml_rl.rl.model import AdvantageConfig, Batch, PolicyModel


def elsewhere(params, size=0.05, seed=0):
    """Parameters near the given ones: the ratios are no longer 1, nor the KL 0."""
    vector = flatten(params)
    noise = torch.randn(len(vector), generator=torch.Generator().manual_seed(seed), dtype=vector.dtype)
    return unflatten(vector + size * noise, params)


def differences(function, params, step=1e-6):
    """Central differences of a function of the parameters."""
    vector = flatten(params)
    found = torch.empty_like(vector)
    for i in range(len(vector)):
        ends = [vector.clone(), vector.clone()]
        ends[0][i] += step
        ends[1][i] -= step
        above, below = (function(unflatten(end, params)) for end in ends)
        found[i] = (above - below) / (2 * step)
    return found


def surrogate(problem, coefficients=(0.0,), **settings):
    """The objective around theta."""
    config = ProximalConfig(inner_kl=coefficients, **settings)
    made = Surrogate(problem.objective, config, coefficients)
    return made, made.linearize(problem.theta)


@pytest.mark.parametrize("num_steps", [0, 1, 2])
@pytest.mark.parametrize("estimator", ["stored_ratio", "ratio"])
def test_at_theta_old_the_gradient_is_the_plain_surrogate_s(navigation, num_steps, estimator):
    # The ratios are 1 and inside the clip, the KL is 0 and flat: neither shows in the first epoch. There the ratio to
    # the stored log-probabilities has the derivatives of pi / stop(pi).
    problem = navigation(3, num_steps, estimator)
    made, at = surrogate(problem, (0.7,), clip=0.1)
    plain = navigation(3, num_steps, "ratio").objective.linearize(problem.theta, fisher_share=0.0)
    assert at.gradient.norm() > 0.01
    # single precision collected the data, double precision computes here
    torch.testing.assert_close(at.gradient, plain.gradient, rtol=1e-5, atol=1e-6)
    assert at.loss == pytest.approx(plain.loss, abs=1e-6)
    scores = made.evaluate(problem.theta)
    assert scores.loss == pytest.approx(at.loss) and scores.clip_fraction == at.kl == 0.0
    assert abs(scores.kl) < 1e-15 and (scores.inner_kls.abs() < 1e-15).all() and len(scores.inner_kls) == num_steps
    assert at.gradient_norm == pytest.approx(at.gradient.norm().item())


def test_a_clip_that_nothing_reaches_leaves_the_plain_surrogate(navigation):
    problem = navigation(3, 1, "stored_ratio")
    near = elsewhere(problem.theta)
    made, _ = surrogate(problem, clip=0.999, max_kl=1.0)
    at, scores = made.linearize(near), made.evaluate(near)
    objective = problem.objective
    objective.linearize(problem.theta, fisher_share=0.0)
    evaluation, plain = objective.evaluate(near), problem.objective.linearize(near, fisher_share=0.0)
    assert scores.clip_fraction == 0.0 and evaluation.divergence > 1e-3
    assert at.kl == pytest.approx(evaluation.divergence) and scores.kl == pytest.approx(evaluation.divergence)
    assert at.loss == pytest.approx(evaluation.loss) and scores.loss == pytest.approx(evaluation.loss)
    torch.testing.assert_close(at.gradient, plain.gradient, rtol=1e-9, atol=1e-12)
    # a narrow one is felt
    made, _ = surrogate(problem, clip=0.01)
    narrow = made.linearize(near)
    assert 0.1 < made.evaluate(near).clip_fraction < 1.0 and narrow.loss > at.loss
    assert (narrow.gradient - at.gradient).norm() > 0.1 * at.gradient.norm()


@pytest.mark.parametrize(("num_steps", "coefficients"), [(1, (0.6,)), (2, (0.6,)), (2, (0.3, 0.9))])
@pytest.mark.parametrize(("make", "clip"), [("navigation", 0.05), ("sinusoid", 0.5)])
def test_the_gradient_in_later_epochs_against_central_differences(make, clip, num_steps, coefficients, request):
    # Clipped surrogate and penalty, through the inner steps. At H = 1 there is nothing to clip.
    arguments = (3, num_steps, "stored_ratio") if make == "navigation" else (3, num_steps)
    problem = request.getfixturevalue(make)(*arguments)
    made, _ = surrogate(problem, coefficients, clip=clip)
    near = elsewhere(problem.theta)
    weights = torch.tensor(coefficients, dtype=torch.float64).expand(num_steps) / num_steps

    def value(params):
        at = made.evaluate(params)
        return at.loss + (weights @ at.inner_kls).item()

    at, inner_kls = made.linearize(near), made.evaluate(near).inner_kls
    assert inner_kls.min() > 1e-4 and len(inner_kls) == num_steps
    torch.testing.assert_close(at.gradient, differences(value, near), rtol=1e-5, atol=1e-7)
    without = Surrogate(problem.objective, ProximalConfig(inner_kl=(0.0,), clip=clip), (0.0,))
    without.linearize(problem.theta)
    assert (without.linearize(near).gradient - at.gradient).norm() > 1e-3 * at.gradient.norm()


def loss_before_steps(problem, theta, clip):
    """The mean over tasks of the losses before each inner step."""
    model, losses = problem.model, []
    for i in range(3):
        params = theta
        for support, size in zip(problem.supports, problem.inner.step_sizes, strict=True):
            own = take_task(support, i)
            outputs = model.outputs(params, own)
            is_sampled = isinstance(model, SampledModel)
            losses.append(
                model.clipped_loss_at(outputs, own, clip) if is_sampled else model.outer_loss_at(outputs, own)
            )
            slope = torch.func.grad(lambda at, own=own: model.inner_loss_at(model.outputs(at, own), own))(params)
            params = {name: value - size * slope[name] for name, value in params.items()}
    return torch.stack(losses).sum() / 3


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("make", ["navigation", "sinusoid"])
def test_the_losses_before_the_steps_join_the_gradient(make, num_steps, request):
    # In the first epoch as in the later ones, where its ratios are clipped as those after adaptation are.
    problem = request.getfixturevalue(make)(3, num_steps)
    weighed = problem._replace(inner=dataclasses.replace(problem.inner, before_weight=0.7))
    for params in problem.theta, elsewhere(problem.theta):
        at = [surrogate(each, clip=0.05)[0].linearize(params) for each in (problem, weighed)]
        added = flatten(torch.func.grad(lambda at: loss_before_steps(problem, at, 0.05))(params))
        assert added.norm() > 1e-2
        torch.testing.assert_close(at[1].gradient, at[0].gradient + 0.7 * added, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_without_second_derivatives_the_penalty_acts_at_the_parameters_before_each_step(navigation, num_steps):
    # First order: d theta'' / d theta' = 1, so that each KL's own gradient is added to that at theta'.
    problem = navigation(2, num_steps, "stored_ratio")
    problem = problem._replace(inner=dataclasses.replace(problem.inner, first_order=True))
    near, gradients = elsewhere(problem.theta), []
    for coefficient in (0.0, 1.0):
        made, _ = surrogate(problem, (coefficient,))
        gradients.append(made.linearize(near).gradient)
    expected = torch.zeros_like(gradients[0])
    for i in range(2):
        now, old = near, problem.theta
        for support in problem.supports:
            own = take_task(support, i)

            def loss(params, own=own):
                return problem.model.inner_loss_at(problem.model.outputs(params, own), own)

            def divergence(params, own=own, old=old):
                outputs = problem.model.outputs
                return problem.model.divergence(outputs(old, own), outputs(params, own), own)

            expected += flatten(torch.func.grad(divergence)(now)) / (2 * num_steps)
            now, old = (
                {
                    name: p - 0.3 * slope
                    for (name, p), slope in zip(at.items(), torch.func.grad(loss)(at).values(), strict=True)
                }
                for at in (now, old)
            )
    torch.testing.assert_close(gradients[1] - gradients[0], expected, rtol=1e-8, atol=1e-10)


def all_outcomes(theta, num_steps):
    """Two tasks (PAY [task, state, action]) of one step, 2 states and 3 actions, as batches that hold every outcome
    with its probability as its weight, so that means over the data are expectations. Float64."""
    policy = MLPPolicy(PolicySpec(2, Categorical(3)), (), "relu")
    model = PolicyModel(policy, AdvantageConfig(), "stored_ratio", Threads(1), torch.device("cpu"))
    states, actions = torch.cartesian_prod(torch.arange(2), torch.arange(3)).T

    def batch(params):
        log_probs = all_log_probs(params)[:, states, actions].unsqueeze(-1)
        weights = FIRST[states].view(1, -1, 1) * log_probs.exp()
        observations = torch.eye(2, dtype=torch.float64)[states].view(1, 6, 1, 2).expand(2, -1, -1, -1)
        taken = actions.double().view(1, 6, 1, 1).expand(2, -1, -1, -1)
        gains = PAY[:, states, actions].unsqueeze(-1)
        return Batch(observations, taken, log_probs, gains, weights, gains, torch.zeros(2).double())

    params, supports, inner = stack(theta, 2), [], InnerConfig(num_steps=num_steps, step_size=SIZE)
    for _ in range(num_steps):
        supports.append(batch(params))
        params = adapt_tasks(model, params, supports[-1:], [SIZE], Threads(1))
    return MetaObjective(model, inner, supports, batch(params), Threads(1))


FIRST, SIZE = torch.tensor([0.3, 0.7], dtype=torch.float64), 0.8  # probabilities of the first state; the inner step
PAY = 2.0 * torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def all_log_probs(params):
    """[task, state, action]"""
    return (params["0.weight"] + params["0.bias"].unsqueeze(-2)).log_softmax(dim=-1)


def exact_return_after(vector, theta, num_steps):
    """The mean over tasks of the expected pay after inner steps along the exact gradient of the expected pay."""
    total = 0.0
    for pay in PAY:
        params = unflatten(vector, theta)
        for _ in range(num_steps):
            slope = torch.func.grad(lambda p, pay=pay: FIRST @ (all_log_probs(p).exp() * pay).sum(dim=-1))(params)
            params = {name: value + SIZE * slope[name] for name, value in params.items()}
        total = total + FIRST @ (all_log_probs(params).exp() * pay).sum(dim=-1)
    return total / len(PAY)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_every_epoch_has_the_exact_meta_gradient_where_all_outcomes_are_known(num_steps):
    # One step an episode, means as expectations: the ratio to the stored log-probabilities makes the inner gradient
    # exact at any theta, and the clip, when nothing reaches it, leaves the return after adaptation itself.
    generator = torch.Generator().manual_seed(1)
    theta = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in (("0.weight", (2, 3)), ("0.bias", (3,)))
    }
    config = ProximalConfig(inner_kl=(0.0,), clip=0.999)
    made = Surrogate(all_outcomes(theta, num_steps), config, config.inner_kl)
    made.linearize(theta)
    for params in (theta, elsewhere(theta, 0.1), elsewhere(theta, 0.1, seed=1)):
        vector, found = flatten(params), made.linearize(params)
        wanted = torch.func.grad(lambda v: exact_return_after(v, theta, num_steps))(vector)
        assert made.evaluate(params).clip_fraction == 0.0 and wanted.norm() > 0.05
        assert -found.loss == pytest.approx(exact_return_after(vector, theta, num_steps).item())
        torch.testing.assert_close(found.gradient, -wanted, rtol=1e-8, atol=1e-10)


def test_exploration_credits_the_actions_before_adaptation(navigation):
    # E-MAML's term: minus the mean over tasks of (mean standardised reward of the query) x (mean log pi of the
    # support's actions), for each inner step.
    problem = navigation(3, 2, "stored_ratio")
    near, gradients = elsewhere(problem.theta), []
    for weight in (0.0, 0.7):
        made, _ = surrogate(problem, exploration=weight)
        gradients.append(made.linearize(near).gradient)
    rewards, mask = problem.query.rewards, problem.query.mask.bool()
    scaled = (rewards - rewards[mask].mean()) / rewards[mask].std(correction=0)
    means = [scaled[i][mask[i]].mean() for i in range(3)]
    assert max(means) - min(means) > 0.1

    def credit(params):
        total = 0.0
        for i in range(3):
            now = params
            for support in problem.supports:
                own = take_task(support, i)
                total += means[i] * problem.model.mean_log_prob(problem.model.outputs(now, own), own)
                slope = torch.func.grad(
                    lambda p, own=own: problem.model.inner_loss_at(problem.model.outputs(p, own), own)
                )(now)
                now = {name: value - 0.3 * slope[name] for name, value in now.items()}
        return total / 3

    expected = torch.func.grad(lambda v: credit(unflatten(v, problem.theta)))(flatten(near))
    torch.testing.assert_close(gradients[1] - gradients[0], -0.7 * expected, rtol=1e-6, atol=1e-9)


def test_epochs_are_steps_of_adam_on_the_same_data(navigation):
    problem, config = navigation(3, 1, "stored_ratio"), ProximalConfig(epochs=3, inner_kl=(0.2,))
    outer = Proximal(config)
    moved = outer.step(problem.objective, problem.theta, {}, outer.init(problem.theta), iteration=0)
    made = Surrogate(problem.objective, config, (0.2,))
    vector, moments = flatten(problem.theta), init_moments(flatten(problem.theta))
    for _ in range(3):
        at = made.linearize(unflatten(vector, problem.theta))
        vector, moments = adam_step(vector, at.gradient, moments, AdamConfig())
    last = made.evaluate(unflatten(vector, problem.theta))
    assert torch.equal(flatten(moved.params), vector) and all(map(torch.equal, moved.state.adam, moments))
    assert moved.state.adam.num_steps == 3 and moved.metrics["epochs"] == 3.0
    assert moved.metrics["surrogate_loss_after"] == last.loss < moved.metrics["surrogate_loss_before"]
    assert (moved.metrics["kl"], moved.metrics["kl_inner"]) == (last.kl, last.inner_kls.mean().item())
    assert last.kl > 0.0 and moved.metrics["inner_kl_coefficient"] == 0.2
    again = outer.step(problem.objective, moved.params, {}, moved.state, iteration=1)
    assert again.state.adam.num_steps == 6


def test_no_epoch_begins_beyond_the_bound_on_the_adapted_policies(navigation):
    problem = navigation(3, 1, "stored_ratio")

    def step(**settings):
        outer = Proximal(ProximalConfig(adam=AdamConfig(learning_rate=0.01), epochs=5, **settings))
        return outer.step(problem.objective, problem.theta, {}, outer.init(problem.theta), iteration=0).metrics

    free = step()
    assert free["epochs"] == 5.0
    first = step(max_kl=1e-9)
    assert first["epochs"] == 1.0 and 1e-9 < first["kl"] < free["kl"]
    between = step(max_kl=0.5 * (first["kl"] + free["kl"]))
    assert 1.0 < between["epochs"] <= 5.0 and between["kl"] > first["kl"]
    assert step(max_kl=10.0 * free["kl"]) == free


@pytest.mark.parametrize(
    ("kl", "factor"), [(0.01, 1.0), (0.0066, 0.5), (0.0067, 1.0), (0.0149, 1.0), (0.0151, 2.0), (0.0, 0.5)]
)
def test_the_coefficient_follows_the_inner_kl(kl, factor):
    kls = torch.tensor([kl], dtype=torch.float64)
    coefficient = torch.tensor([0.3], dtype=torch.float64)
    assert adapted_coefficients(coefficient, kls, 0.01).tolist() == [0.3 * factor]
    assert adapted_coefficients(coefficient, kls, None) is coefficient
    for edge in (1e-8, 1e8):  # where it stays, so that it can come back
        kept = adapted_coefficients(torch.full_like(coefficient, edge), kls, 0.01).item()
        assert kept == min(max(edge * factor, 1e-8), 1e8)


def test_each_inner_step_s_coefficient_follows_its_own_kl_or_one_the_mean():
    kls = torch.tensor([0.001, 0.03], dtype=torch.float64)
    each = torch.tensor([1.0, 1.0], dtype=torch.float64)
    assert adapted_coefficients(each, kls, 0.01).tolist() == [0.5, 2.0]
    assert adapted_coefficients(each[:1], kls, 0.01).tolist() == [2.0]  # 0.0155 in the mean
    assert adapted_coefficients(each[:1], kls[:0], 0.01).tolist() == [1.0]


def test_an_adapted_coefficient_is_carried_on(navigation):
    problem = navigation(3, 1, "stored_ratio")
    outer = Proximal(ProximalConfig(inner_kl=(0.5,), target_kl=1e3))
    moved = outer.step(problem.objective, problem.theta, {}, outer.init(problem.theta), iteration=0)
    assert moved.state.inner_kl.tolist() == [0.25] and moved.metrics["inner_kl_coefficient"] == 0.5


def test_step_sizes_move_with_theta(navigation):
    problem = navigation(3, 2, "stored_ratio")
    problem = problem._replace(inner=dataclasses.replace(problem.inner, learn_step_sizes=True))
    sizes = {name: torch.full_like(p, 0.3) for name, p in problem.theta.items()}
    learned = join_step_sizes(problem.theta, sizes)
    made = Surrogate(problem.objective, ProximalConfig(inner_kl=(0.4,), clip=0.05), (0.4,))
    made.linearize(learned)
    near = elsewhere(learned, 0.02)

    def value(params):
        at = made.evaluate(params)
        return at.loss + 0.4 * at.inner_kls.mean().item()

    gradient = made.linearize(near).gradient
    assert len(gradient) == 2 * len(flatten(problem.theta))
    torch.testing.assert_close(gradient, differences(value, near), rtol=1e-5, atol=1e-7)
    outer = Proximal(ProximalConfig())
    moved = outer.step(problem.objective, learned, {}, outer.init(learned), iteration=0)
    assert list(moved.params) == list(learned)
    assert not any(torch.equal(moved.params[name], learned[name]) for name in learned)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"proximal\.epochs must lie in 1 \.\. 1000, got 0"),
        ({"clip": 0.0}, r"proximal\.clip must lie in \(0, 1\), got 0.0"),
        ({"clip": 1.0}, r"proximal\.clip must lie in \(0, 1\), got 1.0"),
        ({"clip": float("nan")}, r"proximal\.clip must lie in \(0, 1\), got nan"),
        ({"inner_kl": (-1.0,)}, r"proximal\.inner_kl must be one number or more, each at least 0 and finite"),
        ({"inner_kl": ()}, r"proximal\.inner_kl must be one number or more"),
        ({"target_kl": 0.0}, r"proximal\.target_kl must be positive and finite, got 0.0"),
        ({"inner_kl": (0.0,), "target_kl": 0.1}, r"proximal\.inner_kl must be positive where target_kl adapts it"),
        ({"max_kl": -1.0}, r"proximal\.max_kl must be positive and finite, got -1.0"),
        ({"exploration": -1.0}, r"proximal\.exploration must be at least 0 and finite, got -1.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ProximalConfig(**settings)
