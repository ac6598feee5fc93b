import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_rl.core.outer.trust_region import TrustRegion, TrustRegionConfig, conjugate_gradient, trust_region_step


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


MATRIX = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)


def random_problem(size, seed):
    """A well-conditioned positive definite matrix and a right-hand side."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return root @ root.T + torch.eye(size), torch.randn(size, generator=generator, dtype=torch.float64)


def test_conjugate_gradients_on_two_equations():
    # 4x + y = 1, x + 3y = 2: x = 1/11, y = 7/11, found in two iterations; x' A x = x' b = 15/11.
    solved = conjugate_gradient(lambda v: MATRIX @ v, vector(1, 2), 2, tolerance=0.0)
    torch.testing.assert_close(solved.solution, vector(1 / 11, 7 / 11))
    assert solved.curvature == pytest.approx(15 / 11)
    assert solved.residual == pytest.approx(0.0, abs=1e-14)


def test_one_iteration_goes_down_the_gradient():
    # x = (b'b / b'Ab) b = (5 / 20) (1, 2); A x = (1.5, 1.75), so b - A x = (-0.5, 0.25) and
    # |b - A x| / |b| = sqrt(0.3125 / 5) = 0.25; x' A x = 0.25 * 1.5 + 0.5 * 1.75 = 1.25.
    solved = conjugate_gradient(lambda v: MATRIX @ v, vector(1, 2), 1, tolerance=0.0)
    assert solved.solution.tolist() == [0.25, 0.5]
    assert solved.residual == pytest.approx(0.25)
    assert solved.curvature == pytest.approx(1.25)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_exact_after_as_many_iterations_as_unknowns(size, seed):
    matrix, target = random_problem(size, seed)
    solved = conjugate_gradient(lambda v: matrix @ v, target, size, tolerance=0.0)
    torch.testing.assert_close(solved.solution, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(num_iterations=st.integers(0, 8), seed=st.integers(0, 10_000))
def test_residual_and_curvature_are_those_of_the_solution(num_iterations, seed):
    matrix, target = random_problem(8, seed)
    solved = conjugate_gradient(lambda v: matrix @ v, target, num_iterations, tolerance=0.0)
    x = solved.solution
    assert solved.residual == pytest.approx(((target - matrix @ x).norm() / target.norm()).item(), abs=1e-9)
    assert solved.curvature == pytest.approx((x @ matrix @ x).item(), rel=1e-9, abs=1e-12)


def test_it_stops_at_the_tolerance():
    # The residual is 1 before and 0.25 after the first iteration (see above), so 0.3 is reached with one
    # product.
    products = []
    solved = conjugate_gradient(lambda v: products.append(v) or MATRIX @ v, vector(1, 2), 10, tolerance=0.3)
    assert len(products) == 1
    assert solved.residual == pytest.approx(0.25)


def test_a_zero_right_hand_side_has_the_zero_solution():
    solved = conjugate_gradient(lambda v: MATRIX @ v, vector(0, 0), 10, tolerance=1e-10)
    assert solved == (pytest.approx(0.0), 0.0, 0.0)
    assert solved.solution.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("diagonal", [(0.0, 0.0), (-1.0, -1.0)])
def test_a_direction_without_curvature_is_left_alone(diagonal):
    solved = conjugate_gradient(lambda v: vector(*diagonal) * v, vector(1, 1), 10, tolerance=1e-10)
    assert solved.solution.tolist() == [0.0, 0.0]
    assert (solved.residual, solved.curvature) == (1.0, 0.0)


class Recorder:
    """An `evaluate` that keeps the candidates it is asked about."""

    def __init__(self, answer):
        self.candidates, self._answer = [], answer

    def __call__(self, candidate):
        self.candidates.append(candidate)
        return self._answer(candidate)


def step_of(evaluate, gradient=(1.0, 2.0), **settings):
    theta = vector(10, 20)
    config = TrustRegionConfig(**{"damping": 0.0, "max_kl": 0.5, "max_backtracks": 4, **settings})
    return (
        theta,
        config,
        trust_region_step(theta, 7.0, vector(*gradient), lambda v: MATRIX @ v, evaluate, config),
    )


# With A, b of the first test, max_kl 0.5 and no damping: x = (1, 7) / 11, x' A x = 15 / 11, and the full step
# is s = sqrt(2 * 0.5 / (15 / 11)) x, for which s' A s / 2 = max_kl.
FULL_STEP = (11 / 15) ** 0.5 * vector(1, 7) / 11


def test_the_full_step_lies_on_the_bound():
    evaluate = Recorder(lambda _: (6.0, 0.5))
    theta, config, step = step_of(evaluate)
    assert step.accepted and step.num_candidates == 1
    torch.testing.assert_close(theta - step.theta, FULL_STEP)
    assert (0.5 * FULL_STEP @ MATRIX @ FULL_STEP).item() == pytest.approx(config.max_kl)
    assert step.cg_residual == pytest.approx(0.0, abs=1e-12)


def test_every_candidate_is_evaluated_anew_until_one_fits():
    # The first is too far, the second not better; the third is lower and inside.
    answers = iter([(1.0, 0.6), (7.0, 0.1), (6.5, 0.5)])
    evaluate = Recorder(lambda _: next(answers))
    theta, config, step = step_of(evaluate)
    assert len(evaluate.candidates) == step.num_candidates == 3
    for n, candidate in enumerate(evaluate.candidates):
        torch.testing.assert_close(candidate, theta - config.backtrack_ratio**n * FULL_STEP)
    assert step.theta is evaluate.candidates[2]
    assert (step.accepted, step.loss, step.divergence) == (True, 6.5, 0.5)


@pytest.mark.parametrize(
    "answer",
    [(7.0, 0.0), (8.0, 0.0), (1.0, 0.500001), (float("nan"), 0.0), (1.0, float("nan")), (1.0, float("inf"))],
    ids=["same loss", "higher loss", "too far", "loss NaN", "divergence NaN", "divergence infinite"],
)
def test_a_rejected_search_gives_back_the_very_same_tensor(answer):
    evaluate = Recorder(lambda _: answer)
    theta, config, step = step_of(evaluate)
    assert step.theta is theta
    assert theta.tolist() == [10.0, 20.0]
    assert (step.accepted, step.loss, step.divergence) == (False, 7.0, 0.0)
    assert step.num_candidates == len(evaluate.candidates) == config.max_backtracks


@pytest.mark.parametrize("gradient", [(0.0, 0.0), (float("nan"), 1.0)], ids=["zero", "NaN"])
def test_without_a_direction_nothing_is_tried(gradient):
    evaluate = Recorder(lambda _: (0.0, 0.0))
    theta, _, step = step_of(evaluate, gradient=gradient)
    assert step.theta is theta
    assert (step.accepted, step.num_candidates, evaluate.candidates) == (False, 0, [])


def test_damping_shortens_the_step_along_flat_directions():
    # F = 0: the damped matrix is d I, x = b / d, x' d x = |b|^2 / d; the full step has the length sqrt(2 kl /
    # d).
    evaluate = Recorder(lambda _: (6.0, 0.0))
    theta = vector(0, 0)
    config = TrustRegionConfig(damping=0.5, max_kl=0.01)
    step = trust_region_step(theta, 7.0, vector(3, 4), torch.zeros_like, evaluate, config)
    torch.testing.assert_close(step.theta, -((2 * 0.01 / 0.5) ** 0.5) * vector(3, 4) / 5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), max_kl=st.floats(1e-3, 1.0))
def test_an_accepted_step_is_lower_and_inside_the_bound(seed, max_kl):
    # Loss b'(x - theta) + |x - theta|^2 and a divergence that is half a quadratic form.
    matrix, gradient = random_problem(5, seed)
    theta = torch.ones(5, dtype=torch.float64)

    def evaluate(candidate):
        moved = candidate - theta
        return (gradient @ moved + moved @ moved).item(), (0.5 * moved @ matrix @ moved).item()

    config = TrustRegionConfig(max_kl=max_kl)
    step = trust_region_step(theta, 0.0, gradient, lambda v: matrix @ v, evaluate, config)
    if step.accepted:
        assert step.loss < 0.0
        assert step.divergence <= max_kl
        assert (step.loss, step.divergence) == evaluate(step.theta)
    else:
        assert step.theta is theta


def test_theta_moves_to_where_the_objective_s_step_ends(sinusoid):
    problem, config = sinusoid(3, 1), TrustRegionConfig(max_kl=0.1)
    objective, outer = problem.objective, TrustRegion(config)
    moved = outer.step(objective, problem.theta, {}, outer.init(problem.theta), iteration=0)
    at = objective.linearize(problem.theta, config.fisher_share)
    metrics, evaluation = moved.metrics, objective.evaluate(moved.params)
    assert metrics["accepted"] == 1.0 and moved.state == ()
    assert (metrics["surrogate_loss_after"], metrics["kl"]) == evaluation
    assert metrics["surrogate_loss_before"] == at.loss > evaluation.loss
    assert 0.0 < metrics["kl"] <= 0.1 and metrics["gradient_norm"] == at.gradient_norm


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_kl": 0.0}, r"trust_region\.max_kl must be positive and finite, got 0.0"),
        ({"cg_iterations": 0}, r"trust_region\.cg_iterations must be at least 1, got 0"),
        ({"damping": -1.0}, r"trust_region\.damping must be at least 0 and finite, got -1.0"),
        ({"backtrack_ratio": 1.0}, r"trust_region\.backtrack_ratio must lie in \(0, 1\), got 1.0"),
        ({"max_backtracks": 0}, r"trust_region\.max_backtracks must be at least 1, got 0"),
        ({"fisher_share": 0.0}, r"trust_region\.fisher_share must lie in \(0, 1\], got 0\.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        TrustRegionConfig(**settings)
