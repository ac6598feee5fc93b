"""Words of many seed sequences at once: numpy's own, one by one."""

import numpy as np
import pytest

from maml_rl.core.keys import TRAINING, Key, generators
from maml_rl.core.seed_words import seed_words

LARGEST = 2**32 - 1


@pytest.mark.parametrize("entropy", [0, 1, LARGEST, 2**32, 2**64 + 5, 2**127, 2**200 + 3])
@pytest.mark.parametrize("shared", [(), (0,), (3, LARGEST, 2**32, 2**70)])
def test_words_are_those_of_numpy_s_seed_sequences(entropy, shared):
    ones, others = np.array([0, 1, 7, LARGEST]), np.array([LARGEST, 0, 2**31, 5])
    found = seed_words(entropy, (*shared, ones, others), 5)
    for row, place in enumerate(zip(ones.tolist(), others.tolist(), strict=True)):
        sequence = np.random.SeedSequence(entropy, spawn_key=(*shared, *place))
        np.testing.assert_array_equal(found[row], sequence.generate_state(5, np.uint64))


def test_fewer_words_are_the_first_of_more():
    place = np.arange(3)
    np.testing.assert_array_equal(seed_words(1, (place,), 6)[:, :2], seed_words(1, (place,), 2))


def test_generators_of_many_places_are_those_of_each():
    key, tasks, episodes = Key(7, TRAINING, 3, 1), np.array([0, 0, 4]), np.array([0, 1, 2])
    for row, rng in enumerate(generators(key.words(2, tasks, episodes))):
        other = key.rng(int(tasks[row]), int(episodes[row]))
        for each in (rng, other):
            each.integers(10, dtype=np.uint32)  # leaves half of a number behind, which the next one must not find
        np.testing.assert_array_equal(rng.standard_normal(7), other.standard_normal(7))
