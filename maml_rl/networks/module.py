"""Any torch.nn.Module as a function of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from maml_rl.core.trees import Params


def run_module(module: nn.Module, params: Params, inputs: Tensor) -> Tensor:
    """The module's outputs under these parameters, by their names in it."""
    return torch.func.functional_call(module, params, (inputs,))


def init_module(module: nn.Module, maker: Callable[..., nn.Module], spec: Any, generator: torch.Generator) -> Params:
    """Initial parameters as the module itself draws them, from `generator` alone.

    Raises:
        ValueError: if it has buffers, which are no function of the parameters, or no parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        fresh = maker(spec.observation_size, spec.distribution.network_width)
    if next(iter(fresh.buffers()), None) is not None:
        raise ValueError(
            f"policy.network must have no buffers (batch normalisation has some), but {type(module).__name__} has: "
            "adapted parameters are values, and buffers would be shared by all tasks"
        )
    params = {name: value.detach().clone() for name, value in fresh.named_parameters()}
    if not params:
        raise ValueError(f"policy.network must have parameters to learn, but {type(module).__name__} has none")
    return params
