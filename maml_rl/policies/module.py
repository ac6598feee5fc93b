"""A user's own torch.nn.Module as policy network, as a function of its parameters."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from maml_rl.core.acting import FeedForward
from maml_rl.core.contracts import Previous
from maml_rl.core.output_map import AutogradMap, OutputMap
from maml_rl.core.trees import Params, stack, take_task
from maml_rl.networks.module import init_module, run_module
from maml_rl.policies.policy import MLPPolicy, Policy, PolicyConfig, PolicySpec, with_own_params

_live: dict[str, Callable[..., nn.Module]] = {}  # by name: classes of a notebook cannot be imported
_of_thread, _making = threading.local(), threading.Lock()


def module_name(maker: Callable[..., nn.Module]) -> str:
    """The name by which this process finds a module class or factory; other processes too, if it can be imported."""
    name = f"{maker.__module__}:{maker.__qualname__}"
    _live[name] = maker
    return name


def is_live(name: str) -> bool:
    """Check whether this process already has the module class of that name, so that nothing needs importing."""
    return name in _live


def find_module(name: str) -> Callable[..., nn.Module]:
    """The class or factory with the name module:Class.

    Raises:
        ValueError: if there is none.
    """
    if name in _live:
        return _live[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"policy.network must be module:Class of a torch.nn.Module, got {name!r}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"policy.network must be module:Class that can be imported, got {name!r}: {error}") from error
    return found


@dataclass(frozen=True)
class ModulePolicy(FeedForward):
    """A module (observation_size, output_size) -> nn.Module whose outputs are the distribution's numbers."""

    spec: PolicySpec
    maker: Callable[..., nn.Module] = field(compare=False)

    @property
    def _module(self) -> nn.Module:
        """This thread's module: a call puts parameters into it, which threads must not do at the same time."""
        modules = _of_thread.__dict__.setdefault("modules", {})
        if (self.maker, self.spec) not in modules:
            with _making, torch.random.fork_rng(devices=[]):  # its initial parameters are drawn but never used
                made = self.maker(self.spec.observation_size, self.spec.distribution.network_width)
            modules[self.maker, self.spec] = made
        return modules[self.maker, self.spec]

    @property
    def head(self) -> tuple[str, ...]:
        """The parameters of the last submodule that has any."""
        last = [name for name, _ in self._module.named_parameters()][-1].rpartition(".")[0]
        own = self.spec.distribution.own_params
        return (f"{last}." if last else "", *([own] if own else []))

    def init(self, generator: torch.Generator) -> Params:
        """Initial parameters, from `generator` alone.

        Raises:
            ValueError: if the module does not give the numbers that the actions ask for, or is no function of its
                parameters and the observations alone.
        """
        params = init_module(self._module, self.maker, self.spec, generator)
        shape, wanted = self._tried(params), (2, self.spec.distribution.network_width)
        if shape != wanted:
            raise ValueError(
                f"policy.network must give outputs of the shape {wanted} for two observations of "
                f"{self.spec.observation_size} numbers, got {shape}: let its last layer have {wanted[1]} outputs"
            )
        return params | self.spec.distribution.init_params()

    def _tried(self, params: Params) -> tuple[int, ...]:
        """The shape of the outputs for two observations."""
        observations, name = torch.zeros(2, self.spec.observation_size), type(self._module).__name__
        try:
            with torch.no_grad():
                outputs = run_module(self._module, params, observations)
                if isinstance(outputs, Tensor):
                    torch.vmap(functools.partial(run_module, self._module))(
                        stack(params, 2), observations.expand(2, 2, -1)
                    )
        except RuntimeError as error:
            raise ValueError(
                f"policy.network must be a function of parameters and observations that torch.vmap takes, without "
                f"random numbers such as Dropout's, but {name} raises: {str(error).splitlines()[0]}"
            ) from error
        if not isinstance(outputs, Tensor):
            raise ValueError(f"policy.network must return one tensor, but {name} returns a {type(outputs).__name__}")
        return tuple(outputs.shape)

    def outputs(self, params: Params, observations: Tensor) -> Tensor:
        own = self.spec.distribution.own_params
        network = {name: value for name, value in params.items() if name != own}
        is_stacked = (
            next(iter(network.values())).dim() > dict(self._module.named_parameters())[next(iter(network))].dim()
        )
        run: Any = functools.partial(run_module, self._module)
        values = torch.vmap(run)(network, observations) if is_stacked else run(network, observations)
        return with_own_params(self.spec.distribution, params, values)

    def linearize(self, params: Params, observations: Tensor) -> OutputMap:
        _ = self._module  # made now if this thread has none yet: under vmap no initial parameters can be drawn
        return AutogradMap(self.outputs, params, observations)

    def step(
        self, params: Params, memory: tuple[()], observation: Tensor, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        # task by task: under vmap the last bits of some functions depend on the tasks beside one
        outputs = [self.outputs(take_task(params, i), observation[i]) for i in range(len(observation))]
        return torch.stack(outputs), ()


def make_policy(spec: PolicySpec, config: PolicyConfig) -> Policy:
    """The policy network of the settings."""
    if config.network is not None:
        return ModulePolicy(spec, find_module(config.network))
    return MLPPolicy(spec, config.hidden_sizes, config.activation)
