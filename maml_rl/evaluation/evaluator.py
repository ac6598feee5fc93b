"""The evaluator of every learner on every family of tasks: begin, act, score, adapt, and so on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.contracts import Actor, Adapted, Collector, Forecast, Learner, State, TaskFamily
from maml_rl.core.keys import JUDGED, Key
from maml_rl.core.trees import num_samples
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.evaluation.calibration import Reliability, reliability


class Stage(NamedTuple):
    """N tasks after some adaptations."""

    num_adaptations: int
    num_gradient_steps: int
    adapted: Adapted
    actor: Actor
    scored: Any  # the experience that is scored
    support: Any  # the experience for the next adaptation
    key: Key  # of the scored experience


@dataclass(frozen=True)
class Evaluation:
    """A way to evaluate a learner.

    Attributes:
        family: the tasks, with as many episodes or examples as are to be scored.
        scored_after: the numbers of adaptations after which tasks are scored, ascending.
        judge: collects the experience to score if it is not the adaptation's, e.g. with mean actions.
        num_draws: actors drawn from a posterior at H = 1, whose predictions are combined and then scored.
        block_size: number of tasks to evaluate together, limited by memory; None for all.
    """

    family: TaskFamily
    scored_after: Sequence[int]
    judge: Collector | None = None
    num_draws: int = 1
    block_size: int | None = None

    def stages(self, learner: Learner, state: State, tasks: Sequence[Any], key: Key) -> Iterator[Stage]:
        """The tasks after each number of adaptations, with the experience to score.

        Where experience depends on who acts, each score is of new episodes, which are also what the next adaptation
        sees, unless there is a judge. On given data all adaptations see one support set, and all scores are of one
        query set of other examples.
        """
        collector, last = self.family.collector, max(self.scored_after)
        adapted = learner.begin(state, len(tasks), key)
        support = None
        for count in range(last + 1):
            now, is_scored = key.at_phase(count), count in self.scored_after
            if collector.resamples or is_scored:  # an actor may cost as much as adapting: PLATIPUS adapts every draw
                actor = learner.actor(state, adapted, now)
            if collector.resamples:
                support = collector.collect(tasks, actor, now)
            elif support is None:
                support = collector.collect(tasks, None, key.at_phase(0))
            if is_scored:
                scored, place = support, now
                if self.judge is not None:
                    place = key.at_phase(JUDGED + count)
                    scored = self.judge.collect(tasks, actor, place)
                elif not collector.resamples:
                    place = key.at_phase(1)
                    others = [learner.actor(state, adapted, key.at_phase(p)) for p in self._further_draws(count)]
                    scored = self._answered_by([actor, *others], tasks, place)
                yield Stage(count, learner.num_gradient_steps(adapted), adapted, actor, scored, support, place)
            if count < last:
                adapted = learner.adapt(state, adapted, support, now)

    def curve(self, learner: Learner, state: State, tasks: Sequence[Any], key: Key) -> AdaptationCurve:
        """Scores after each number of adaptations: each task's mean over its episodes or examples."""
        size = self.block_size or len(tasks)
        blocks = [
            self._curve_of_block(learner, state, tasks[start : start + size], key._replace(iteration=key.iteration + i))
            for i, start in enumerate(range(0, len(tasks), size))
        ]
        first = blocks[0]
        return first._replace(
            per_task=torch.cat([each.per_task for each in blocks], dim=1),
            tasks=tuple(tasks),
            further={name: torch.cat([each.further[name] for each in blocks], dim=1) for name in first.further},
            nll=None if first.nll is None else torch.cat([each.nll for each in blocks if each.nll is not None], dim=1),
            reliability=[
                functools.reduce(Reliability.plus, row) for row in zip(*(b.reliability for b in blocks), strict=True)
            ],
        )

    def only(self, scored_after: Sequence[int]) -> Evaluation:
        """The same evaluation, scored only after these numbers of adaptations."""
        return replace(self, scored_after=scored_after)

    def curve_of(self, stages: Iterable[Stage], tasks: Sequence[Any], scores: Sequence[Tensor]) -> AdaptationCurve:
        """The curve of stages whose scores [N, E or B] are known."""
        measure = self.family.measure
        further: dict[str, list[Tensor]] = {}
        counts, steps, used = [], [], []
        forecasts: list[Forecast] = []
        for stage in stages:
            counts.append(stage.num_adaptations)
            steps.append(stage.num_gradient_steps)
            used.append(self._num_used(stage))
            if (forecast := measure.forecast(stage.scored)) is not None:
                forecasts.append(forecast)
            for name, values in measure.further_scores(stage.scored).items():
                further.setdefault(name, []).append(values.double().mean(dim=1).cpu())
        rows = torch.stack([each.double().mean(dim=1).cpu() for each in scores])
        others = {name: torch.stack(each) for name, each in further.items()}
        labels = steps if len(set(steps)) == len(steps) else counts
        nll = [-each.log_likelihood.double().mean(dim=1).cpu() for each in forecasts]
        return AdaptationCurve(
            measure.metric,
            rows,
            measure.higher_is_better,
            tuple(tasks),
            others,
            labels,
            steps,
            used,
            torch.stack(nll) if nll else None,
            [reliability(each) for each in forecasts],
        )

    def _curve_of_block(self, learner: Learner, state: State, tasks: Sequence[Any], key: Key) -> AdaptationCurve:
        scores: list[Tensor] = []

        def scored() -> Iterator[Stage]:
            for stage in self.stages(learner, state, tasks, key):
                scores.append(self.family.measure.score(stage.scored))
                yield stage

        return self.curve_of(scored(), tasks, scores)

    def _further_draws(self, count: int) -> list[int]:
        """The phases of the keys of all draws but the first, after `count` adaptations."""
        return [JUDGED * draw + count for draw in range(1, self.num_draws)]

    def _answered_by(self, actors: Sequence[Actor], tasks: Sequence[Any], key: Key) -> Any:
        """The query with the outputs of these draws together."""
        collector, measure = self.family.collector, self.family.measure
        answers = [collector.collect(tasks, actor, key) for actor in actors]
        if len(answers) == 1:
            return answers[0]
        return answers[0]._replace(outputs=measure.mixture([each.outputs for each in answers]))

    def _num_used(self, stage: Stage) -> int:
        """Episodes or examples of each task that adaptation has seen."""
        if stage.num_adaptations == 0:
            return 0
        size = num_samples(stage.support)
        return size * stage.num_adaptations if self.family.collector.resamples else size
