"""The curves of an experiment's seeds, taken together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.evaluation.seeds import over_seeds

BEFORE, AFTER = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, -1.0, 2.0])


def curve(before, after, higher_is_better=True, tasks="abcd"):
    return AdaptationCurve("return", torch.stack([before, after]), higher_is_better, tuple(tasks))


def test_statistics_are_over_runs_and_tasks():
    found = over_seeds([curve(BEFORE, AFTER), curve(BEFORE + 1, AFTER + 3)])
    # means 0 and 1 before, 1 and 4 after; gains 1 and 3; of eight pairs the third task of one run has become worse
    assert [each.value for each in found.mean] == [0.5, 2.5]
    assert [each.value for each in found.gain] == [0.0, 2.0]
    assert [each.value for each in found.share_worse] == [0.0, 0.125]
    assert found.gain[0] == (0.0, 0.0, 0.0) and found.mean[1].low < 2.5 < found.mean[1].high


def test_gains_have_the_sign_of_the_measure():
    found = over_seeds([curve(BEFORE, AFTER, higher_is_better=False)])
    assert found.gain[1].value == -1.0 and found.share_worse[1].value == 0.75
    lost = over_seeds([curve(BEFORE, torch.tensor([float("nan"), -1.0, -1.0, -1.0]), higher_is_better=False)])
    assert lost.share_worse[1].value == 0.25  # a task that diverged has become worse


@pytest.mark.parametrize("other", [curve(BEFORE, AFTER, tasks="abce"), curve(BEFORE[:3], AFTER[:3], tasks="abc")])
def test_curves_on_other_tasks_are_refused(other):
    with pytest.raises(ValueError, match="must be of the same measure, tasks and numbers of steps"):
        over_seeds([curve(BEFORE, AFTER), other])


@dataclass(frozen=True)
class Gains:
    """A task whose numbers are an array."""

    values: Any


def test_tasks_of_arrays_are_compared_by_their_numbers():
    first, same, other = ([Gains(np.array([1.0, last])), Gains(np.zeros(2))] for last in (2.0, 2.0, 3.0))
    assert len(over_seeds([curve(BEFORE[:2], AFTER[:2], tasks=tasks) for tasks in (first, same)]).mean) == 2
    with pytest.raises(ValueError, match="must be of the same measure, tasks and numbers of steps"):
        over_seeds([curve(BEFORE[:2], AFTER[:2], tasks=tasks) for tasks in (first, other)])


def test_a_curve_is_shown_in_a_line():
    assert repr(curve(BEFORE, AFTER)) == "<AdaptationCurve of 4 tasks, return 0 after 0, 1 after 1>"
