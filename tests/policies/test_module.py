"""A torch.nn.Module as policy network: a function of its parameters, or refused in one sentence."""

import threading
import time

import pytest
import torch
from players import own_params
from torch import nn

from maml_rl.core.lift import Threads
from maml_rl.core.trees import stack, take_tasks
from maml_rl.policies.gaussian import Gaussian
from maml_rl.policies.module import ModulePolicy, find_module, make_policy, module_name
from maml_rl.policies.policy import MLPPolicy, PolicyConfig, PolicySpec

SPEC = PolicySpec(3, Gaussian(2, 1.0, 1e-6))


class Layers(nn.Module):
    """A stack of layers between observations and outputs."""

    def __init__(self, observation_size, output_size, middle=nn.Tanh, surplus=0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(observation_size, 8), middle(), nn.Linear(8, output_size + surplus))

    def forward(self, observations):
        return self.layers(observations)


class Pair(Layers):
    def forward(self, observations):
        return self.layers(observations), ()


class Empty(nn.Module):
    def __init__(self, observation_size, output_size):
        super().__init__()
        self.output_size = output_size

    def forward(self, observations):
        return observations[..., : self.output_size]


def layers(**settings):
    return lambda observation_size, output_size: Layers(observation_size, output_size, **settings)


def init(maker, seed=0):
    return ModulePolicy(SPEC, maker).init(torch.Generator().manual_seed(seed))


def test_a_module_computes_what_the_perceptron_of_the_same_weights_computes():
    module, perceptron = ModulePolicy(SPEC, Layers), MLPPolicy(SPEC, (8,), "tanh")
    params = perceptron.init(torch.Generator().manual_seed(0))
    same = {
        f"layers.{2 * layer}.{part}": params[f"{layer}.{part}"].mT if part == "weight" else params[f"{layer}.{part}"]
        for layer in (0, 1)
        for part in ("weight", "bias")
    } | {name: value for name, value in params.items() if not name[0].isdigit()}
    observations = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module.outputs(same, observations), perceptron.outputs(params, observations))
    both = torch.stack([observations, observations + 1])
    torch.testing.assert_close(
        module.outputs(stack(same, 2), both), perceptron.outputs(stack(params, 2), both), rtol=1e-5, atol=1e-6
    )


def test_the_seed_decides_the_first_parameters_and_no_global_generator_moves():
    before = torch.random.get_rng_state()
    one, same, other = init(Layers), init(Layers), init(Layers, seed=1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


REFUSED = [
    (layers(middle=lambda: nn.BatchNorm1d(8)), "must have no buffers .* but Layers has"),
    (layers(middle=lambda: nn.Dropout(0.5)), "without random numbers such as Dropout's, but Layers raises: vmap"),
    (layers(surplus=1), r"outputs of the shape \(2, 2\) .*, got \(2, 3\): let its last layer have 2 outputs"),
    (Pair, "must return one tensor, but Pair returns a tuple"),
    (Empty, "must have parameters to learn, but Empty has none"),
]


@pytest.mark.parametrize(("maker", "sentence"), REFUSED)
def test_a_module_that_is_no_function_of_parameters_and_observation_is_refused(maker, sentence):
    with pytest.raises(ValueError, match=f"policy.network .*{sentence}"):
        init(maker)


@pytest.mark.parametrize("middle", [nn.Tanh, nn.Sigmoid, nn.ELU])  # under vmap the last two differ by their place
@pytest.mark.parametrize("batch", [1, 5, 20])
def test_a_task_s_step_does_not_depend_on_the_tasks_beside_it(middle, batch):
    policy = ModulePolicy(PolicySpec(3, Gaussian(1, 1.0, 1e-6)), layers(middle=middle))
    params = own_params(policy, 7)
    observations = torch.randn(7, batch, 3, generator=torch.Generator().manual_seed(0))
    together, _ = policy.step(params, (), observations, None)
    torch.testing.assert_close(together, policy.outputs(params, observations))
    for start, stop in ((0, 1), (2, 4), (4, 7)):
        block, _ = policy.step(take_tasks(params, start, stop), (), observations[start:stop], None)
        assert torch.equal(block, together[start:stop])


class Pause(nn.Module):
    """Another thread's turn."""

    def forward(self, values):
        time.sleep(0.001)
        return values


def test_threads_call_one_policy_at_once_under_parameters_of_their_own():
    policy = ModulePolicy(SPEC, layers(middle=Pause))
    params, observations = own_params(policy, 4), torch.ones(4, 5, 3)
    expected, threads = policy.step(params, (), observations, None)[0], Threads(2)

    def is_right(task):
        found, _ = policy.step(take_tasks(params, task, task + 1), (), observations[task : task + 1], None)
        return torch.equal(found[0], expected[task])

    assert all(threads.map(is_right, [0, 1, 2, 3] * 10))
    threads.close()


def test_a_thread_may_begin_with_the_derivatives_of_many_tasks():
    policy, found = ModulePolicy(SPEC, layers(middle=nn.Tanh)), []
    params = stack(policy.init(torch.Generator().manual_seed(0)), 2)
    thread = threading.Thread(
        target=lambda: found.append(policy.linearize(params, torch.zeros(2, 4, SPEC.observation_size)).outputs)
    )
    thread.start()
    thread.join()
    assert len(found) == 1 and len(found[0]) == 2


def test_a_name_that_leads_nowhere_is_refused():
    for name, sentence in (("Layers", "must be module:Class"), ("nowhere:Layers", "can be imported, got 'nowhere")):
        with pytest.raises(ValueError, match=sentence):
            find_module(name)


def test_a_class_has_a_name_by_which_the_settings_find_it():
    policy = make_policy(SPEC, PolicyConfig(network=module_name(Layers)))
    assert isinstance(policy, ModulePolicy) and policy.maker is Layers
