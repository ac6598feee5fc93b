"""The meanings of metrics.csv's columns."""

import csv
from pathlib import Path

import pytest

from maml_rl.storage.columns import COLUMNS, SCORES, column

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/metrics.csv")), ids=lambda path: path.parent.name)
def test_every_column_of_a_stored_run_is_known(path):
    with open(path, newline="") as file:
        names = next(csv.reader(file))
    assert not [name for name in names if column(name) is None]


def test_scores_are_told_by_their_parts():
    half = column("return_after_ci95")
    assert half is not None and half.group == "training" and half.unit == SCORES["return"][0]
    assert "after adaptation" in half.meaning and "95 %" in half.meaning
    held_out = column("eval_log_density_10")
    assert held_out is not None and held_out.group == "evaluation" and "after 10 adaptations" in held_out.meaning


@pytest.mark.parametrize("name", ["", "return", "eval_return", "eval_return_x", "return_after_max", "best"])
def test_names_that_no_run_writes_are_unknown(name):
    assert column(name) is None


def test_groups_and_meanings_are_sentences_of_their_own():
    assert {each.group for each in COLUMNS.values()} == {"training", "learning", "clock"}
    assert len({each.meaning for each in COLUMNS.values()}) == len(COLUMNS)
