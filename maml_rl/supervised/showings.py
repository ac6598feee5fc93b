"""Episodes as sequences of pictures, in which every class is shown once before any is shown again."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from maml_rl.supervised.episodes import Examples

AskedBy = Literal["support-query", "showings"]
"""Protocols of asking: the support is shown and then the queries are asked; or every picture is asked, then shown."""


def in_showings(support: Examples, query: Examples, rng: np.random.Generator) -> Examples:
    """The pictures of N episodes in sequences [N, T], T = ways * (shots + queries): the support, then the queries.

    Each showing has one picture of every class, in an order that is drawn anew.

    Args:
        support, query: class by class, as episodes are collected.
    Raises:
        ValueError: if a class is shown once only, so that nothing can be recognised.
    """
    num_tasks, num_shown = support.labels.shape
    ways = int(support.labels.max()) + 1
    num_showings = (num_shown + query.labels.shape[1]) // ways
    if num_showings < 2:
        raise ValueError(
            f"an episode must show each of its classes at least twice, got {num_showings} showing: ask for queries"
        )
    places = torch.arange(num_showings * ways)
    of_class = torch.cat([places[:num_shown].view(ways, -1), places[num_shown:].view(ways, -1)], dim=1)
    order = torch.from_numpy(rng.random((num_tasks, num_showings, ways)).argsort(axis=-1))
    sequence = of_class.T.expand(num_tasks, -1, -1).gather(2, order).flatten(1)  # [N, T]
    each = torch.arange(num_tasks).unsqueeze(1)
    images = torch.cat([support.images, query.images], dim=1)[each, sequence]
    labels = torch.cat([support.labels, query.labels], dim=1)[each, sequence]
    return Examples(images, labels, images[:, :0])


def between(sequence: Examples, start: int, stop: int) -> Examples:
    """The pictures start .. stop - 1 of every sequence."""
    return sequence._replace(images=sequence.images[:, start:stop], labels=sequence.labels[:, start:stop])
