"""The protocol by showings, with learners whose answers are known."""

import dataclasses
from typing import NamedTuple

import pytest
import torch

from maml_rl.core.contracts import Actor, TaskFamily
from maml_rl.core.keys import EVALUATION, Key
from maml_rl.core.lift import Threads
from maml_rl.evaluation.showings import Showings
from maml_rl.supervised.classification import Accuracy
from maml_rl.supervised.episodes import Examples

KEY, WAYS, TASKS = Key(0, EVALUATION, 0), 4, 6


class Pictures:
    """A collector of episodes of 2 shots and 1 query, whose one pixel is the class."""

    resamples = False

    def collect(self, tasks, actor, key):
        labels = torch.arange(WAYS).repeat_interleave(2 if key.phase == 0 else 1).expand(len(tasks), -1)
        images = labels.float().view(len(tasks), -1, 1, 1, 1)
        return Examples(images, labels, images[:, :0])


FAMILY = TaskFamily(None, Pictures(), Accuracy())


class Counts(NamedTuple):
    shown: torch.Tensor  # [N, WAYS]: pictures of each class so far


@dataclasses.dataclass(frozen=True)
class KnowsAfter:
    """A network that knows a class once it has seen so many pictures of it."""

    needed: int

    def step(self, params, memory, observation, previous):
        asked = observation.images.flatten(1).long()
        known = params["shown"].gather(1, asked) >= self.needed
        answers = torch.where(known, asked, (asked + 1) % WAYS)
        return torch.nn.functional.one_hot(answers, WAYS).float(), ()


class Counting:
    def __init__(self, needed):
        self.network = KnowsAfter(needed)

    def begin(self, state, num_tasks, key):
        return Counts(torch.zeros(num_tasks, WAYS))

    def adapt(self, state, adapted, data, key):
        return Counts(adapted.shown + torch.nn.functional.one_hot(data.labels, WAYS).sum(dim=1))

    def actor(self, state, adapted, key):
        return Actor(self.network, {"shown": adapted.shown})


@pytest.mark.parametrize(("needed", "expected"), [(0, [1.0, 1.0]), (1, [1.0, 1.0]), (2, [0.0, 1.0]), (3, [0.0, 0.0])])
def test_row_k_is_the_accuracy_once_every_class_was_shown_k_times(needed, expected):
    evaluation = Showings(FAMILY, (1,), block_size=4, threads=Threads(1))
    curve = evaluation.curve(Counting(needed), (), range(TASKS), KEY)
    assert curve.mean == expected and curve.per_task.shape == (2, TASKS)
    assert (list(curve.labels), list(curve.used), list(curve.gradient_steps)) == ([1, 2], [4, 8], [0, 0])


def test_a_picture_is_asked_about_before_it_is_shown_and_shown_before_the_next():
    class Watching(Counting):
        def __init__(self):
            super().__init__(0)
            self.asked = []

        def actor(self, state, adapted, key):
            self.asked.append(adapted.shown.sum(dim=1).tolist())
            return super().actor(state, adapted, key)

    learner = Watching()
    Showings(FAMILY, (1,), threads=Threads(1)).curve(learner, (), range(2), KEY)
    assert learner.asked == [[float(count)] * 2 for count in range(WAYS, 3 * WAYS)]
