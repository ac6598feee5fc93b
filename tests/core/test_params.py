import pytest
import torch

from maml_rl.core.params import (
    as_leaves,
    concatenate_tasks,
    detach,
    flatten,
    map_params,
    num_tasks,
    stack,
    take_task,
    take_tasks,
    unflatten,
)


@pytest.fixture
def tree():
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (2, 3), "b": (3,), "s": ()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def equal(tree, other):
    return list(tree) == list(other) and all(torch.equal(tree[name], other[name]) for name in tree)


def test_unflatten_inverts_flatten(tree):
    vector = flatten(tree)
    assert vector.shape == (6 + 3 + 1,)
    assert equal(unflatten(vector, tree), tree)
    assert torch.equal(flatten(unflatten(vector, tree)), vector)


def test_flatten_keeps_the_order_of_the_dict():
    # "b" stands first in the dict, though "a" comes first in the alphabet.
    assert flatten({"b": torch.tensor([1.0]), "a": torch.tensor([2.0])}).tolist() == [1.0, 2.0]


def test_stack_repeats_without_a_copy(tree):
    stacked = stack(tree, 4)
    assert num_tasks(stacked) == 4
    assert all(equal(take_task(stacked, i), tree) for i in range(4))
    assert all(stacked[name].data_ptr() == tree[name].data_ptr() for name in tree)


def test_ranges_of_tasks_put_together_give_the_whole(tree):
    stacked = map_params(lambda p: torch.stack([p, p + 1, p + 2]), tree)
    pieces = [take_tasks(stacked, 0, 1), take_tasks(stacked, 1, 3)]
    assert [num_tasks(piece) for piece in pieces] == [1, 2]
    assert equal(concatenate_tasks(pieces), stacked)


def test_leaves_are_new_variables_and_detached_ones_none(tree):
    leaves = as_leaves(tree)
    assert equal(leaves, tree)
    assert all(leaf.requires_grad and leaf.is_leaf for leaf in leaves.values())
    assert not any(p.requires_grad for p in tree.values())
    assert not any(p.requires_grad for p in detach(leaves).values())
