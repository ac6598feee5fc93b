"""The gradient-based meta-learner: one iteration for MAML, first-order MAML and Reptile, in RL and at H = 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.inner import InnerConfig, adapt_tasks
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.gradient import GradientConfig, Moments, gradient_step, init_moments
from maml_rl.core.outer.reptile import ReptileConfig, reptile_step
from maml_rl.core.outer.trust_region import TrustRegionConfig, trust_region_step
from maml_rl.core.params import Params, flatten, num_tasks, stack, take_task, unflatten
from maml_rl.core.protocols import Key, Predictor, Report, State, TaskFamily


@dataclass(frozen=True)
class OuterConfig:
    """How theta moves."""

    step: Literal["trust_region", "gradient", "reptile"] = "trust_region"  # which of the three below is used
    trust_region: TrustRegionConfig = field(default_factory=TrustRegionConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    reptile: ReptileConfig = field(default_factory=ReptileConfig)


class Collected(NamedTuple):
    """One iteration's data on the way to the outer step."""

    supports: list[Any]  # one batch for each inner step
    adapted: Params  # theta' [task, ...]
    query: Any  # collected with theta'


class _Moved(NamedTuple):
    theta: Tensor
    extra: State  # the outer step's own memory
    metrics: dict[str, float]


class MAML:
    """Model-Agnostic Meta-Learning (Finn et al. 2017, Algorithms 1 to 3) over any task family."""

    def __init__(self, family: TaskFamily, inner: InnerConfig, outer: OuterConfig, threads: Threads):
        if outer.step == "reptile" and inner.num_steps < 1:
            raise ValueError("outer.step reptile needs inner.num_steps of at least 1, got 0: it moves towards theta'")
        self.family, self.inner, self.outer, self.threads = family, inner, outer, threads

    def init(self, key: Key) -> State:
        params = self.family.init_params(key)
        return {**_prefixed("params/", params), **self._init_extra(params)}

    def meta_step(self, state: State, tasks: Sequence[Any], key: Key) -> tuple[State, Report]:
        """One iteration: collect, adapt, collect again, move theta."""
        clock = Clock()
        theta = params_of(state)
        data = self.collect(theta, tasks, key, clock)
        with clock("outer_seconds"):
            moved = self._outer_step(state, theta, data)
        metrics = self._metrics(theta, data) | moved.metrics
        steps = metrics.get("env_steps", 0.0)
        rate = {"steps_per_s": steps / clock.seconds["sample_seconds"]} if steps else {}
        new_state = {**_prefixed("params/", unflatten(moved.theta, theta)), **moved.extra}
        return new_state, Report(metrics, clock.seconds | rate)

    def collect(self, theta: Params, tasks: Sequence[Any], key: Key, clock: Clock) -> Collected:
        """Support data and theta', step by step, then the query data under theta'."""
        supports: list[Any] = []
        adapted = stack(theta, len(tasks))
        for phase, step_size in enumerate(self.inner.step_sizes):
            with clock("sample_seconds"):
                if self.family.resamples or phase == 0:
                    supports.append(self.family.collect(tasks, adapted, key.at_phase(phase)))
                else:
                    supports.append(supports[0])
            with clock("adapt_seconds"):
                adapted = adapt_tasks(self.family, adapted, supports[-1:], [step_size], self.threads)
        with clock("sample_seconds"):
            query = self.family.collect(tasks, adapted, key.at_phase(self.inner.num_steps))
        return Collected(supports, adapted, query)

    def adapt(self, state: State, supports: Sequence[Any]) -> Predictor:
        """A predictor for the single task that every batch of `supports` (task axis of size 1) was collected on."""
        theta = stack(params_of(state), 1)
        adapted = adapt_tasks(self.family, theta, supports, self.inner.step_sizes, self.threads)
        return self.family.predictor(take_task(adapted, 0))

    def _init_extra(self, params: Params) -> State:
        if self.outer.step != "gradient":
            return {}
        return _prefixed("adam/", init_moments(flatten(params))._asdict())

    def _outer_step(self, state: State, theta: Params, data: Collected) -> _Moved:
        objective = MetaObjective(self.family, self.inner, data.supports, data.query, self.threads)
        vector = flatten(theta)
        steps: dict[str, Callable[..., _Moved]] = {
            "trust_region": self._trust_region,
            "gradient": self._gradient,
            "reptile": self._reptile,
        }
        return steps[self.outer.step](state, theta, vector, data, objective)

    def _trust_region(
        self, state: State, theta: Params, vector: Tensor, data: Collected, objective: MetaObjective
    ) -> _Moved:
        at = objective.linearize(theta, self.outer.trust_region.fisher_share)
        step = trust_region_step(
            vector,
            at.loss,
            at.gradient,
            at.fisher_product,
            lambda candidate: objective.evaluate(unflatten(candidate, theta)),
            self.outer.trust_region,
        )
        metrics = {
            "surrogate_loss_before": at.loss,
            "surrogate_loss_after": step.loss,
            "kl": step.divergence,
            "accepted": float(step.accepted),
            "line_search_steps": float(step.num_candidates),
            "cg_residual": step.cg_residual,
            "gradient_norm": at.gradient.norm().item(),
        }
        return _Moved(step.theta, {}, metrics)

    def _gradient(
        self, state: State, theta: Params, vector: Tensor, data: Collected, objective: MetaObjective
    ) -> _Moved:
        at = objective.linearize(theta, fisher_share=0.0)
        moments = Moments(**{name: state[f"adam/{name}"] for name in Moments._fields})
        new_vector, moments = gradient_step(vector, at.gradient, moments, self.outer.gradient)
        metrics = {"surrogate_loss_before": at.loss, "gradient_norm": at.gradient.norm().item()}
        return _Moved(new_vector, _prefixed("adam/", moments._asdict()), metrics)

    def _reptile(
        self, state: State, theta: Params, vector: Tensor, data: Collected, objective: MetaObjective
    ) -> _Moved:
        rows = [p.reshape(p.shape[0], -1) for p in data.adapted.values()]
        return _Moved(reptile_step(vector, torch.cat(rows, dim=1), self.outer.reptile), {}, {})

    def _metrics(self, theta: Params, data: Collected) -> dict[str, float]:
        """Scores before and after adaptation, each on the data collected at that moment, and what the family adds."""
        before = data.supports[0] if data.supports else data.query
        stacked = stack(theta, num_tasks(before))
        score, metric = torch.vmap(self.family.score), self.family.metric
        with torch.no_grad():
            return {
                **_over_tasks(f"{metric}_before", score(stacked, before)),
                **_over_tasks(f"{metric}_after", score(data.adapted, data.query)),
                **self.family.describe([*data.supports, data.query]),
            }


def _over_tasks(name: str, scores: Tensor) -> dict[str, float]:
    """Mean over everything; standard deviation and 95 % interval over the tasks' means. scores: [task, sample]."""
    means = scores.double().mean(dim=1)
    spread = means.std(correction=1).item() if len(means) > 1 else 0.0
    return {
        name: means.mean().item(),
        f"{name}_std": means.std(correction=0).item(),
        f"{name}_ci95": 1.96 * spread / len(means) ** 0.5,
    }


class Clock:
    """Seconds by name, summed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"sample_seconds": 0.0, "adapt_seconds": 0.0, "outer_seconds": 0.0}
        self._name = ""

    def __call__(self, name: str) -> Clock:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds[self._name] += perf_counter() - self._start


def params_of(state: State) -> Params:
    """The parameters theta inside a learner's state."""
    return {name.removeprefix("params/"): t for name, t in state.items() if name.startswith("params/")}


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}
