import numpy as np
import pytest
import torch

from maml_rl.core.params import flatten, stack, take_task
from maml_rl.core.protocols import EVALUATION, INITIALISATION, TRAINING, Key
from maml_rl.supervised.sinusoid import Sinusoid, SinusoidConfig, SinusoidFamily

KEY = Key(3, TRAINING, 1)


@pytest.fixture
def family():
    return SinusoidFamily(SinusoidConfig(num_examples=200), torch.device("cpu"))


def test_tasks_come_from_the_ranges_of_the_paper(family):
    # Amplitudes 0.1 .. 5.0 and phases 0 .. pi (Finn et al. 2017, section 5.1); 2000 draws come close to all
    # four ends.
    tasks = family.sample_tasks(2000, np.random.default_rng(0))
    for values, low, high in (
        ([task.amplitude for task in tasks], 0.1, 5.0),
        ([task.phase for task in tasks], 0.0, np.pi),
    ):
        assert low <= min(values) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(values) <= high
    assert family.sample_tasks(3, np.random.default_rng(0)) == family.sample_tasks(3, np.random.default_rng(0))


def test_targets_are_the_task_s_sinusoid(family):
    tasks = [Sinusoid(2.0, 0.0), Sinusoid(0.5, 1.0)]
    data = family.collect(tasks, {}, KEY)
    assert data.inputs.shape == data.targets.shape == (2, 200, 1)
    for i, task in enumerate(tasks):
        expected = task.amplitude * torch.sin(data.inputs[i].double() - task.phase)
        torch.testing.assert_close(data.targets[i].double(), expected, rtol=0, atol=1e-5)
    assert data.inputs.min() >= -5.0 and data.inputs.max() <= 5.0
    assert data.inputs.max() - data.inputs.min() > 9.0


def test_examples_depend_on_the_key_and_the_task_s_place_alone(family):
    tasks = [Sinusoid(2.0, 0.0), Sinusoid(2.0, 0.0)]
    data = family.collect(tasks, {}, KEY)
    assert torch.equal(data.inputs, family.collect(tasks, {"any": torch.ones(2)}, KEY).inputs)
    assert torch.equal(data.inputs[:1], family.collect(tasks[:1], {}, KEY).inputs)
    assert not torch.isin(data.inputs[0], data.inputs[1]).any()
    for other in (KEY.at_phase(1), KEY._replace(iteration=2), KEY._replace(stream=EVALUATION)):
        assert not torch.isin(family.collect(tasks, {}, other).inputs[0], data.inputs[0]).any()


def test_the_network_is_that_of_the_paper(family):
    params = family.init_params(Key(0, INITIALISATION, 0))
    shapes = {name: tuple(p.shape) for name, p in params.items()}
    assert shapes == {
        "0.weight": (1, 40), "0.bias": (40,),
        "1.weight": (40, 40), "1.bias": (40,),
        "2.weight": (40, 1), "2.bias": (1,),
    }  # fmt: skip
    assert all((params[f"{layer}.bias"] == 0).all() for layer in range(3))
    assert flatten(params).abs().max() <= 2 * SinusoidConfig().init_std


def test_losses_divergence_and_score(family):
    # Predictions 0 everywhere (zero weights): the mean square of the targets; moved by 3: divergence 3^2 / 2.
    params = {name: torch.zeros_like(p) for name, p in family.init_params(KEY).items()}
    data = take_task(family.collect([Sinusoid(2.0, 0.5)], {}, KEY), 0)
    outputs = family.outputs(params, data)
    mean_square = data.targets.square().mean().item()
    assert family.inner_loss_at(outputs, data).item() == pytest.approx(mean_square)
    assert family.outer_loss_at(outputs, data).item() == pytest.approx(mean_square)
    assert family.divergence(outputs, outputs + 3.0, data).item() == pytest.approx(4.5)
    assert family.divergence(outputs, outputs, data).item() == 0.0
    score = family.score(params, data)
    assert score.shape == (200,)
    torch.testing.assert_close(score, data.targets.square().squeeze(-1))


def test_the_divergence_is_that_of_gaussians_of_unit_variance(family):
    data = take_task(family.collect([Sinusoid(2.0, 0.5)], {}, KEY), 0)
    old, new = data.inputs, data.targets
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(old, 1.0), normal(new, 1.0)).mean()
    torch.testing.assert_close(family.divergence(old, new, data), expected)


def test_the_map_s_outputs_are_the_network_s(family):
    params = family.init_params(Key(0, INITIALISATION, 0))
    data = family.collect([Sinusoid(2.0, 0.5), Sinusoid(1.0, 0.0)], {}, KEY)
    outputs = family.linearize(stack(params, 2), data).outputs
    for i in range(2):
        torch.testing.assert_close(outputs[i], family.outputs(params, take_task(data, i)))


def test_the_predictor_keeps_the_shape_of_its_inputs(family):
    params = family.init_params(Key(0, INITIALISATION, 0))
    inputs = torch.randn(3, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    predictions = family.predictor(params)(inputs)
    assert predictions.shape == inputs.shape and not predictions.requires_grad
    one = family.predictor(params)(inputs[1, 2])
    torch.testing.assert_close(one, predictions[1, 2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_examples": 0}, r"sinusoid\.num_examples must be at least 1, got 0"),
        ({"hidden_sizes": (40, 0)}, r"sinusoid\.hidden_sizes must be at least 1 each, got \(40, 0\)"),
        ({"init_std": 0.0}, r"sinusoid\.init_std must be positive and finite, got 0.0"),
        ({"phase_range": (1.0, 1.0)}, r"sinusoid\.phase_range must be finite and rising, got \(1.0, 1.0\)"),
        ({"input_range": (0.0, float("inf"))}, r"sinusoid\.input_range must be finite and rising"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        SinusoidConfig(**settings)


def test_a_task_is_the_function_that_its_examples_come_from(family):
    task = Sinusoid(2.0, 0.5)
    data = take_task(family.collect([task], {}, KEY), 0)
    torch.testing.assert_close(torch.from_numpy(task.at(data.inputs.double().numpy())).float(), data.targets)
    assert str(task) == "2.00 sin(x - 0.50)"
