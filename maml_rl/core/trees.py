"""Parameter trees: dicts of named tensors, and the few operations that meta-learning needs on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optree
import torch
from torch import Tensor

Params = dict[str, Tensor]


def map_params(function: Callable[..., Tensor], *trees: Params) -> Params:
    """Apply `function` to the tensors of the same name in every tree."""
    return {name: function(*(tree[name] for tree in trees)) for name in trees[0]}


def as_leaves(params: Params) -> Params:
    """The same values as leaf variables, so that gradients can be taken with respect to them."""
    return map_params(lambda p: p.detach().requires_grad_(), params)


def stack(params: Params, num_tasks: int) -> Params:
    """Give every task the same parameters: [...] to [num_tasks, ...], without a copy."""
    return map_params(lambda p: p.expand(num_tasks, *p.shape), params)


def flatten(params: Params) -> Tensor:
    """All parameters in one vector [P], in the order of the dict."""
    return torch.cat([p.reshape(-1) for p in params.values()])


def unflatten(vector: Tensor, like: Params) -> Params:
    """Cut a vector [P] into the names and shapes of `like`; the inverse of `flatten`."""
    pieces = vector.split([p.numel() for p in like.values()])
    return {name: piece.view_as(p) for (name, p), piece in zip(like.items(), pieces, strict=True)}


def num_tasks(tree: Any) -> int:
    """The size of axis 0, which every tensor of a stacked tree shares."""
    return optree.tree_leaves(tree)[0].shape[0]


def num_samples(tree: Any) -> int:
    """The size of axis 1 of stacked experience: episodes or examples of each task."""
    return optree.tree_leaves(tree)[0].shape[1]


def device_of(tree: Any) -> torch.device:
    """The device of a tree's tensors."""
    return optree.tree_leaves(tree)[0].device


def to_device(tree: Any, device: torch.device) -> Any:
    return optree.tree_map(lambda leaf: leaf.to(device), tree)


def take_tasks(tree: Any, start: int, stop: int) -> Any:
    """The tasks start .. stop - 1 of a stacked tree (views)."""
    return optree.tree_map(lambda leaf: leaf[start:stop], tree)


def take_task(tree: Any, index: int) -> Any:
    """One task of a stacked tree, its task axis removed (views)."""
    return optree.tree_map(lambda leaf: leaf[index], tree)


def concatenate_tasks(trees: list[Any]) -> Any:
    """Concatenate stacked trees along the task axis."""
    return optree.tree_map(lambda *leaves: torch.cat(leaves), *trees)


UNNAMED = ("outer",)
"""Fields whose name is left out of names on disk: an outer step's memory stands beside the parameters."""


def named(tree: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of a tree by their paths in it, "params/0.weight", "adam/first", ..., in order."""
    if isinstance(tree, Tensor):
        return {name: tree}
    found: dict[str, Tensor] = {}
    for part, child in _children(tree):
        found |= named(child, name if part in UNNAMED else f"{name}/{part}" if name else part)
    return found


def from_names(like: Any, values: dict[str, Tensor], name: str = "") -> Any:
    """The tree shaped like `like` whose tensors are `values`; the inverse of `named`."""
    if isinstance(like, Tensor):
        return values[name]
    children = [
        from_names(child, values, name if part in UNNAMED else f"{name}/{part}" if name else part)
        for part, child in _children(like)
    ]
    if isinstance(like, dict):
        return dict(zip(like, children, strict=True))
    return type(like)(*children) if hasattr(like, "_fields") else tuple(children)


def _children(tree: Any) -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return list(tree.items())
    names = tree._fields if hasattr(tree, "_fields") else map(str, range(len(tree)))
    return list(zip(names, tree, strict=True))
