from itertools import combinations

import pytest

from maml_rl.core.keys import EVALUATION, INITIALISATION, TRAINING, Key

KEY = Key(seed=7, stream=TRAINING, iteration=3, phase=1)


def first_numbers(key: Key, *path: int):
    return tuple(key.rng(*path).integers(2**63, size=4).tolist())


def test_equal_keys_give_equal_numbers():
    assert first_numbers(KEY, 2, 5) == first_numbers(Key(7, TRAINING, 3, 1), 2, 5)


def test_every_part_of_a_key_and_of_the_path_changes_the_numbers():
    places = {
        "the key": first_numbers(KEY, 2, 5),
        "seed": first_numbers(KEY._replace(seed=8), 2, 5),
        "stream": first_numbers(KEY._replace(stream=EVALUATION), 2, 5),
        "iteration": first_numbers(KEY._replace(iteration=4), 2, 5),
        "phase": first_numbers(KEY.at_phase(2), 2, 5),
        "task": first_numbers(KEY, 3, 5),
        "episode": first_numbers(KEY, 2, 6),
        "depth": first_numbers(KEY, 2),
        "zero is a place too": first_numbers(KEY, 2, 5, 0),
        "order": first_numbers(KEY, 5, 2),
    }
    for (name, numbers), (other, others) in combinations(places.items(), 2):
        assert not set(numbers) & set(others), f"{name} and {other} share numbers"


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64])
def test_seeds_of_any_size_are_told_apart(seed):
    assert first_numbers(KEY._replace(seed=seed)) != first_numbers(KEY._replace(seed=seed + 1))


def test_streams_differ():
    assert len({TRAINING, EVALUATION, INITIALISATION}) == 3


def test_at_phase_changes_only_the_phase():
    assert KEY.at_phase(4) == Key(7, TRAINING, 3, 4)
