import numpy as np
import pytest
import torch

from maml_rl.core.acting import Answered
from maml_rl.core.contracts import Actor
from maml_rl.core.keys import EVALUATION, INITIALISATION, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import flatten, stack, take_task
from maml_rl.supervised.sinusoid import (
    RegressionModel,
    Sinusoid,
    SinusoidCollector,
    SinusoidConfig,
    SinusoidSource,
    SquaredError,
)

KEY = Key(3, TRAINING, 1)
CONFIG = SinusoidConfig(num_examples=200)
CPU = torch.device("cpu")


@pytest.fixture
def collector():
    return SinusoidCollector(CONFIG, CPU, Threads(1))


@pytest.fixture
def model():
    return RegressionModel(CONFIG, CPU)


def test_tasks_come_from_the_ranges_of_the_paper():
    # Amplitudes 0.1 .. 5.0 and phases 0 .. pi (Finn et al. 2017, section 5.1); 2000 draws come close to all
    # four ends.
    source = SinusoidSource(CONFIG)
    for sample in (source.sample_tasks, source.sample_test_tasks):
        tasks = sample(2000, np.random.default_rng(0))
        for values, low, high in (
            ([task.amplitude for task in tasks], 0.1, 5.0),
            ([task.phase for task in tasks], 0.0, np.pi),
        ):
            assert low <= min(values) < low + 0.01 * (high - low)
            assert high - 0.01 * (high - low) < max(values) <= high
        assert sample(3, np.random.default_rng(0)) == sample(3, np.random.default_rng(0))


def test_targets_are_the_task_s_sinusoid(collector):
    tasks = [Sinusoid(2.0, 0.0), Sinusoid(0.5, 1.0)]
    data = collector.collect(tasks, None, KEY)
    assert data.inputs.shape == data.targets.shape == (2, 200, 1)
    for i, task in enumerate(tasks):
        expected = task.amplitude * torch.sin(data.inputs[i].double() - task.phase)
        torch.testing.assert_close(data.targets[i].double(), expected, rtol=0, atol=1e-5)
    assert data.inputs.min() >= -5.0 and data.inputs.max() <= 5.0
    assert data.inputs.max() - data.inputs.min() > 9.0


def test_examples_depend_on_the_key_and_the_task_s_place_alone(collector, model):
    tasks = [Sinusoid(2.0, 0.0), Sinusoid(2.0, 0.0)]
    data = collector.collect(tasks, None, KEY)
    actor = Actor(model.network, stack(model.init_params(Key(0, INITIALISATION, 0)), 2))
    answered = collector.collect(tasks, actor, KEY)
    assert torch.equal(data.inputs, answered.examples.inputs)  # whoever acts
    assert answered.outputs.shape == (2, 200, 1) and not answered.outputs.requires_grad
    assert torch.equal(data.inputs[:1], collector.collect(tasks[:1], None, KEY).inputs)
    assert not torch.isin(data.inputs[0], data.inputs[1]).any()
    for other in (KEY.at_phase(1), KEY._replace(iteration=2), KEY._replace(stream=EVALUATION)):
        assert not torch.isin(collector.collect(tasks, None, other).inputs[0], data.inputs[0]).any()


def test_the_network_is_that_of_the_paper(model):
    params = model.init_params(Key(0, INITIALISATION, 0))
    shapes = {name: tuple(p.shape) for name, p in params.items()}
    assert shapes == {
        "0.weight": (1, 40), "0.bias": (40,),
        "1.weight": (40, 40), "1.bias": (40,),
        "2.weight": (40, 1), "2.bias": (1,),
    }  # fmt: skip
    assert all((params[f"{layer}.bias"] == 0).all() for layer in range(3))
    assert flatten(params).abs().max() <= 2 * SinusoidConfig().init_std


def test_losses_divergence_and_score(model, collector):
    # Predictions 0 everywhere (zero weights): the mean square of the targets; moved by 3: divergence 3^2 / 2.
    params = {name: torch.zeros_like(p) for name, p in model.init_params(KEY).items()}
    data = take_task(collector.collect([Sinusoid(2.0, 0.5)], None, KEY), 0)
    outputs = model.outputs(params, data)
    mean_square = data.targets.square().mean().item()
    assert model.inner_loss_at(outputs, data).item() == pytest.approx(mean_square)
    assert model.outer_loss_at(outputs, data).item() == pytest.approx(mean_square)
    assert model.divergence(outputs, outputs + 3.0, data).item() == pytest.approx(4.5)
    assert model.divergence(outputs, outputs, data).item() == 0.0
    score = SquaredError().score(Answered(data, outputs))
    assert score.shape == (200,)
    torch.testing.assert_close(score, data.targets.square().squeeze(-1))


def test_the_divergence_is_that_of_gaussians_of_unit_variance(model, collector):
    data = take_task(collector.collect([Sinusoid(2.0, 0.5)], None, KEY), 0)
    old, new = data.inputs, data.targets
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(old, 1.0), normal(new, 1.0)).mean()
    torch.testing.assert_close(model.divergence(old, new, data), expected)


def test_the_map_s_outputs_are_the_network_s(model, collector):
    params = model.init_params(Key(0, INITIALISATION, 0))
    data = collector.collect([Sinusoid(2.0, 0.5), Sinusoid(1.0, 0.0)], None, KEY)
    outputs = model.linearize(stack(params, 2), data).outputs
    for i in range(2):
        torch.testing.assert_close(outputs[i], model.outputs(params, take_task(data, i)))


def test_an_actor_s_outputs_are_each_task_s_own(model, collector):
    tasks = [Sinusoid(2.0, 0.5), Sinusoid(1.0, 0.0)]
    params = [model.init_params(Key(seed, INITIALISATION, 0)) for seed in (0, 1)]
    stacked = {name: torch.stack([each[name] for each in params]) for name in params[0]}
    answered = collector.collect(tasks, Actor(model.network, stacked), KEY)
    for i in range(2):
        torch.testing.assert_close(answered.outputs[i], model.outputs(params[i], take_task(answered.examples, i)))


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


def test_a_task_is_the_function_that_its_examples_come_from(collector):
    task = Sinusoid(2.0, 0.5)
    data = take_task(collector.collect([task], None, KEY), 0)
    torch.testing.assert_close(torch.from_numpy(task.at(data.inputs.double().numpy())).float(), data.targets)
    assert str(task) == "2.00 sin(x - 0.50)"
