from typing import Any, NamedTuple

import pytest
import torch

from maml_rl.core.trees import (
    as_leaves,
    concatenate_tasks,
    device_of,
    flatten,
    from_names,
    map_params,
    named,
    num_samples,
    num_tasks,
    stack,
    take_task,
    take_tasks,
    to_device,
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


def test_leaves_are_new_variables(tree):
    leaves = as_leaves(tree)
    assert equal(leaves, tree)
    assert all(leaf.requires_grad and leaf.is_leaf for leaf in leaves.values())
    assert not any(p.requires_grad for p in tree.values())


class Memory(NamedTuple):
    adam: Any


class Moments(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class State(NamedTuple):
    params: dict
    extra: Any
    outer: Any


def number(value):
    return torch.tensor(float(value))


@pytest.fixture
def state():
    return State({"1.weight": number(1), "0.bias": number(2)}, (number(3), ()), Memory(Moments(number(4), number(5))))


def test_names_are_the_places_in_the_tree(state):
    # an outer step's memory stands beside the parameters, as it does on disk
    assert {name: value.item() for name, value in named(state).items()} == {
        "params/1.weight": 1.0,
        "params/0.bias": 2.0,
        "extra/0": 3.0,
        "adam/first": 4.0,
        "adam/second": 5.0,
    }
    assert list(named(state)) == ["params/1.weight", "params/0.bias", "extra/0", "adam/first", "adam/second"]


def test_a_tree_comes_back_from_its_names(state):
    values = {name: value + 10.0 for name, value in reversed(named(state).items())}
    found = from_names(state, values)
    assert type(found) is State and type(found.outer) is Memory and found.extra[1] == ()
    assert list(found.params) == list(state.params)
    assert [value.item() for value in named(found).values()] == [11.0, 12.0, 13.0, 14.0, 15.0]
    with pytest.raises(KeyError):
        from_names(state, {})


def test_a_tree_without_tensors_has_no_names():
    assert named(()) == named(Memory(())) == {}
    assert from_names(Memory(()), {}) == Memory(())


def test_what_the_tensors_of_stacked_trees_share():
    tree = Moments(torch.zeros(2, 5), torch.zeros(2, 5, 3))
    assert (num_tasks(tree), num_samples(tree), device_of(tree)) == (2, 5, torch.device("cpu"))
    moved = to_device(tree, torch.device("meta"))
    assert type(moved) is Moments and {leaf.device.type for leaf in moved} == {"meta"}
