"""Tensors stay where the parameters are; on a GPU the results are the CPU's."""

import dataclasses

import numpy as np
import optree
import pytest
import torch
from players import gaussian

from maml_rl.core.inner import InnerConfig
from maml_rl.core.keys import INITIALISATION, TASKS, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.objective import _Chunk
from maml_rl.core.outer.choice import OUTER_STEPS
from maml_rl.core.trees import flatten, named
from maml_rl.experiments.build import build, find_device
from maml_rl.experiments.config import SINUSOID
from maml_rl.experiments.presets import default_config
from maml_rl.rl.model import AdvantageConfig, Batch, PolicyModel
from maml_rl.sampling.local import SamplingConfig
from maml_rl.supervised.sinusoid import RegressionModel, SinusoidCollector, SinusoidConfig, SinusoidSource
from maml_rl.training.trainer import TrainingConfig

META = torch.device("meta")
"""A device without memory on every machine: products work, and mixing it with the CPU fails, as with a GPU."""


def sinusoid_on_meta(num_tasks):
    config = SinusoidConfig()
    tasks = SinusoidSource(config).sample_tasks(num_tasks, np.random.default_rng(0))
    data = SinusoidCollector(config, META, Threads(1)).collect(tasks, None, Key(0, TRAINING, 0))
    return RegressionModel(config, META), data


def batches_on_meta(num_tasks, estimator):
    model = PolicyModel(gaussian(3, 2), AdvantageConfig(), estimator, Threads(1), META)

    def zeros(*shape):
        return torch.zeros(num_tasks, *shape, device=META)

    shapes = {"observations": (4, 5, 3), "actions": (4, 5, 2), "explained_variance": ()}
    return model, Batch(**{name: zeros(*shapes.get(name, (4, 5))) for name in Batch._fields})


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("kind", ["sinusoid", "ratio", "log_prob", "dice"])
def test_gradient_and_fisher_products_stay_on_the_parameters_device(kind, num_tasks, share):
    model, data = sinusoid_on_meta(num_tasks) if kind == "sinusoid" else batches_on_meta(num_tasks, kind)
    theta = model.init_params(Key(0, INITIALISATION, 0))
    inner = InnerConfig(num_steps=2)
    chunk = _Chunk(model, inner, inner.step_sizes, theta, data, [data, data], share)
    product = chunk.fisher_product(theta)
    assert {chunk.gradient.device, chunk.loss.device, product.device} == {META}
    assert product.shape == chunk.gradient.shape


def test_data_left_on_the_cpu_would_be_noticed():
    model, data = batches_on_meta(1, "ratio")
    theta = model.init_params(Key(0, INITIALISATION, 0))
    stray = data._replace(advantages=torch.zeros(1, 4, 5))
    with pytest.raises(RuntimeError, match="device"):
        _Chunk(model, InnerConfig(), InnerConfig().step_sizes, theta, stray, [stray], 1.0)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "mps", ""])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ValueError, match="device must be cpu, cuda or cuda:N"):
        dataclasses.replace(default_config(SINUSOID, "maml"), device=name)


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"device cuda:99 must be a GPU that torch can use.*--device cpu"):
        find_device("cuda:99")


def rounded(numbers, generator):
    """The same numbers, changed in their last bits."""
    if not numbers.is_floating_point():
        return numbers
    return numbers * (1.0 + torch.finfo(numbers.dtype).eps / 2 * torch.randn(numbers.shape, generator=generator))


def after_three_iterations(config, rounding=None):
    """The state [P]; given `rounding`, a generator, its numbers change in their last bits before each step."""
    built = build(config)
    try:
        state = built.learner.init(Key(config.seed, INITIALISATION, 0))
        for iteration in range(3):
            if rounding is not None:
                state = optree.tree_map(lambda x: rounded(x, rounding), state)
            key = Key(config.seed, TRAINING, iteration)
            tasks = built.family.source.sample_tasks(config.training.num_tasks, key.rng(TASKS))
            state, _ = built.learner.meta_step(state, tasks, key)
        return flatten({name: value.cpu().float() for name, value in named(state).items()})
    finally:
        built.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("step", ["trust_region", "gradient", "reptile"])
@pytest.mark.parametrize("env", [SINUSOID, "maml/Navigation2D-v0", "maml/HalfCheetahVel-rllab-v0"])
def test_on_a_gpu_three_iterations_are_the_cpu_s(env, step):
    # Few steps of physics, so that differences in the last bit of an action have not grown.
    config = default_config(env, "reptile" if step == "reptile" else "maml")
    config = dataclasses.replace(
        config,
        training=TrainingConfig(num_tasks=3),
        method=dataclasses.replace(config.method, outer=OUTER_STEPS[step]()),
    )
    if env != SINUSOID:
        sampling = SamplingConfig(episodes_per_task=4, horizon=5)
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, sampling=sampling))
    on_cpu, on_gpu = (after_three_iterations(dataclasses.replace(config, device=d)) for d in ("cpu", "cuda"))
    others = [after_three_iterations(config, torch.Generator().manual_seed(seed)) for seed in range(3)]
    # Conjugate gradients and Adam make much of little: a change of theta in its last bits moves it by up to 0.04 on
    # the CPU, too.
    allowed = 1e-5 + 10.0 * max((each - on_cpu).abs().max() for each in others)
    assert (on_gpu - on_cpu).abs().max() < allowed < 1.0
