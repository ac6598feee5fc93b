"""The protocol of Kaiser et al. 2017: every picture of an episode is asked about and then shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from maml_rl.core.acting import answer
from maml_rl.core.contracts import Learner, State
from maml_rl.core.keys import ORDER, Key
from maml_rl.core.lift import Threads
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.supervised.showings import between, in_showings


@dataclass(frozen=True)
class Showings(Evaluation):
    """Accuracy at the (k + 1)-th showing of each class, for k = 1, 2, ...: the paper's "k-shot accuracy".

    It is not that of support and query: a learner that is asked late in a showing has seen k + 1 pictures of some
    classes. The first showing is only shown. For learners that adapt to one picture after another.
    """

    threads: Threads | None = None

    def _curve_of_block(self, learner: Learner, state: State, tasks: Sequence[Any], key: Key) -> AdaptationCurve:
        assert self.threads is not None
        collector, measure = self.family.collector, self.family.measure
        support, query = (collector.collect(tasks, None, key.at_phase(phase)) for phase in (0, 1))
        sequence = in_showings(support, query, key.rng(ORDER))
        ways, length = int(sequence.labels.max()) + 1, sequence.labels.shape[1]
        begun = learner.begin(state, len(tasks), key)
        adapted, scores = learner.adapt(state, begun, between(sequence, 0, ways), key), []
        for place in range(ways, length):
            one, now = between(sequence, place, place + 1), key.at_phase(place)
            scores.append(measure.score(answer(learner.actor(state, adapted, now), one, self.threads)))
            adapted = learner.adapt(state, adapted, one, now)
        per_showing = torch.cat(scores, dim=1).double().unflatten(1, (-1, ways)).mean(dim=2)  # [N, showings - 1]
        counts = list(range(1, length // ways))
        return AdaptationCurve(
            measure.metric,
            per_showing.T.cpu(),
            measure.higher_is_better,
            tuple(tasks),
            labels=counts,
            gradient_steps=[0] * len(counts),
            used=[ways * count for count in counts],
        )
