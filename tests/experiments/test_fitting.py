"""Presets fitted to a folder of pictures. tests/commands/test_train_pictures.py has the command and the Python API."""

import dataclasses

from maml_rl.experiments.fitting import fitted, fitted_to_folder, fitting_in_words, most_ways
from maml_rl.experiments.presets import default_config
from maml_rl.supervised.episodes import EpisodeConfig, Supply

MANY, FEW = Supply(100, 20), Supply(4, 3)


def test_defaults_are_lowered_to_what_there_is_and_what_was_given_stays():
    chosen = default_config("images", "prototypical").task
    assert fitted(chosen, chosen, MANY, MANY) == chosen and fitting_in_words(chosen, chosen, MANY, MANY) is None
    low = fitted(chosen, chosen, FEW, FEW)
    assert (low.train_ways, low.queries, low.test_queries) == (4, 2, 2)  # of 3 pictures one is learned from
    assert most_ways(chosen, FEW, FEW) == 4 and most_ways(chosen, MANY, MANY) == 5
    note = fitting_in_words(chosen, low, FEW, FEW)
    assert note.startswith(
        "train_ways is 4 in place of 60, queries is 2 in place of 5, test_queries is 2 in place of 15"
    )
    assert "4 classes of at least 3 pictures to train on" in note
    given = dataclasses.replace(chosen, queries=7)
    assert fitted(chosen, given, FEW, FEW).queries == chosen.queries  # left to whoever gave it


def test_no_fewer_than_two_classes_are_asked_for():
    assert most_ways(EpisodeConfig(), Supply(1, 1), Supply(1, 1)) == 2


def test_other_tasks_are_left_as_they_are():
    omniglot = default_config("omniglot", "prototypical")
    assert fitted_to_folder(omniglot, omniglot, None, None) == (omniglot, omniglot)
