"""Episodes in showings: each class once, then each class again."""

import numpy as np
import pytest
import torch

from maml_rl.supervised.episodes import Examples
from maml_rl.supervised.showings import between, in_showings


def numbered(num_tasks, ways, per_class, first):
    """Pictures of one pixel, whose value is 100 * class + first, first + 1, ... within the class."""
    labels = torch.arange(ways).repeat_interleave(per_class).expand(num_tasks, -1)
    values = 100 * labels + torch.arange(first, first + per_class).repeat(ways)
    images = values.float().view(num_tasks, -1, 1, 1, 1)
    return Examples(images, labels, images[:, :0])


@pytest.mark.parametrize(("shots", "queries"), [(1, 1), (1, 3), (3, 2)])
def test_each_class_is_shown_once_before_any_is_shown_again_and_the_support_comes_first(shots, queries):
    support, query = numbered(6, 5, shots, 0), numbered(6, 5, queries, shots)
    found = in_showings(support, query, np.random.default_rng(0))
    labels, values = found.labels.view(6, shots + queries, 5), found.images.view(6, shots + queries, 5)
    assert (labels.sort(dim=-1).values == torch.arange(5)).all()
    # showing k has picture k of every class, so every picture comes once
    assert torch.equal(values, 100.0 * labels + torch.arange(shots + queries).view(1, -1, 1))
    assert len({tuple(row) for row in labels.flatten(0, 1).tolist()}) > 1  # an order drawn anew


def test_the_order_is_a_function_of_the_generator():
    parts = numbered(3, 5, 1, 0), numbered(3, 5, 2, 1)
    one, other, third = (in_showings(*parts, np.random.default_rng(seed)).labels for seed in (0, 0, 1))
    assert torch.equal(one, other) and not torch.equal(one, third)


def test_an_episode_of_one_showing_is_refused():
    support = numbered(2, 5, 1, 0)
    nothing = support._replace(images=support.images[:, :0], labels=support.labels[:, :0])
    with pytest.raises(ValueError, match="an episode must show each of its classes at least twice, got 1 showing: ask"):
        in_showings(support, nothing, np.random.default_rng(0))


def test_a_part_of_the_sequences():
    found = between(numbered(2, 5, 2, 0), 3, 5)
    assert found.labels.tolist() == [[1, 2]] * 2 and found.images.shape == (2, 2, 1, 1, 1)
