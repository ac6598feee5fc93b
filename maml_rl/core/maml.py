"""The gradient-based meta-learner: one iteration for MAML, first-order MAML and Reptile, in RL and at H = 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.inner import InnerConfig, StepSize, adapt_tasks
from maml_rl.core.lift import Threads, chunk_tasks, over_tasks
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.gradient import GradientConfig, Moments, gradient_step, init_moments
from maml_rl.core.outer.reptile import ReptileConfig, reptile_step
from maml_rl.core.outer.trust_region import TrustRegionConfig, trust_region_step
from maml_rl.core.params import Params, flatten, map_params, num_tasks, stack, take_task, take_tasks, unflatten
from maml_rl.core.protocols import Key, Predictor, Report, State, TaskFamily


@dataclass(frozen=True)
class OuterConfig:
    """How theta moves."""

    # Which of the three below moves the parameters.
    step: Literal["trust_region", "gradient", "reptile"] = "trust_region"
    trust_region: TrustRegionConfig = field(default_factory=TrustRegionConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    reptile: ReptileConfig = field(default_factory=ReptileConfig)


class Collected(NamedTuple):
    """One iteration's data on the way to the outer step."""

    supports: list[Any]  # one batch for each inner step
    adapted: Params  # [task, ...]: what the query was collected with, theta' if it depends on the parameters
    query: Any  # collected with theta'


class _Moved(NamedTuple):
    theta: Tensor
    adapted: Params  # theta' [task, ...]
    extra: State  # the outer step's own memory
    metrics: dict[str, float]


class MAML:
    """Model-Agnostic Meta-Learning (Finn et al. 2017, Algorithms 1 to 3) over any task family."""

    def __init__(self, family: TaskFamily, inner: InnerConfig, outer: OuterConfig, threads: Threads):
        if outer.step == "reptile" and inner.num_steps < 1:
            raise ValueError("outer.step reptile needs inner.num_steps of at least 1, got 0: it moves towards theta'")
        if inner.learn_step_sizes and outer.step != "gradient":
            raise ValueError(f"inner.learn_step_sizes needs outer.step gradient, got {outer.step}")
        if inner.learn_step_sizes and inner.only:
            raise ValueError(f"inner.only must be left out where step sizes are learned, got {list(inner.only)}")
        self.family, self.inner, self.outer, self.threads = family, inner, outer, threads

    def init(self, key: Key) -> State:
        params = self.family.init_params(key)
        sizes: Params = {}
        if self.inner.learn_step_sizes:
            sizes = map_params(lambda p: torch.full_like(p, self.inner.step_size), params)
        return {**_prefixed("params/", params), **_prefixed("step_sizes/", sizes), **self._init_extra(params, sizes)}

    def meta_step(self, state: State, tasks: Sequence[Any], key: Key) -> tuple[State, Report]:
        """One iteration: collect, adapt, collect again, move theta."""
        clock = Clock()
        theta = params_of(state)
        data = self.collect(theta, tasks, key, clock, self.step_sizes(state, self.inner.step_sizes))
        with clock("outer_seconds"):
            moved = self._outer_step(state, theta, data)
        metrics = self._metrics(theta, data._replace(adapted=moved.adapted)) | moved.metrics
        steps = metrics.get("env_steps", 0.0)
        rate = {"steps_per_s": steps / clock.seconds["sample_seconds"]} if steps else {}
        new_state = {**_prefixed("params/", unflatten(moved.theta, theta)), **moved.extra}
        return new_state, Report(metrics, clock.seconds | rate)

    def step_sizes(self, state: State, sizes: Sequence[float]) -> Sequence[StepSize]:
        """The sizes of as many steps as there are `sizes`: those learned, if they are, else these."""
        learned = _without_prefix("step_sizes/", state)
        return [learned] * len(sizes) if learned else self.inner.sizes_for(params_of(state), sizes)

    def collect(
        self, theta: Params, tasks: Sequence[Any], key: Key, clock: Clock, step_sizes: Sequence[StepSize]
    ) -> Collected:
        """Support data and theta', step by step, then the query data under theta'.

        Of given data, which ask for no parameters, theta' is left to the outer step, unless that is what it moves to.
        """
        adapts = self.family.resamples or self.outer.step == "reptile"
        supports: list[Any] = []
        adapted = stack(theta, len(tasks))
        for phase, step_size in enumerate(step_sizes):
            with clock("sample_seconds"):
                if self.family.resamples or phase == 0:
                    supports.append(self.family.collect(tasks, adapted, key.at_phase(phase)))
                else:
                    supports.append(supports[0])
            if not adapts:
                continue
            with clock("adapt_seconds"):
                adapted = adapt_tasks(self.family, adapted, supports[-1:], [step_size], self.threads)
        with clock("sample_seconds"):
            query = self.family.collect(tasks, adapted, key.at_phase(self.inner.num_steps))
        return Collected(supports, adapted, query)

    def adapt(self, state: State, supports: Sequence[Any]) -> Predictor:
        """A predictor for the single task that every batch of `supports` (task axis of size 1) was collected on.

        Args:
            supports: one for each inner step; of given data, which do not depend on the parameters, one serves for all.
        """
        if len(supports) == 1 and not self.family.resamples:
            supports = list(supports) * self.inner.num_steps
        sizes = self.step_sizes(state, self.inner.step_sizes)
        adapted = adapt_tasks(self.family, stack(params_of(state), 1), supports, sizes, self.threads)
        return self.family.predictor(take_task(adapted, 0))

    def _init_extra(self, params: Params, sizes: Params) -> State:
        if self.outer.step != "gradient":
            return {}
        return _prefixed("adam/", init_moments(_flatten_both(params, sizes))._asdict())

    def _outer_step(self, state: State, theta: Params, data: Collected) -> _Moved:
        sizes = self.step_sizes(state, self.inner.step_sizes)
        objective = MetaObjective(self.family, self.inner, data.supports, data.query, self.threads, sizes)
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
        return _Moved(step.theta, at.adapted, {}, metrics)

    def _gradient(
        self, state: State, theta: Params, vector: Tensor, data: Collected, objective: MetaObjective
    ) -> _Moved:
        at = objective.linearize(theta, fisher_share=0.0)
        moments = Moments(**{name: state[f"adam/{name}"] for name in Moments._fields})
        metrics = {"surrogate_loss_before": at.loss, "gradient_norm": at.gradient.norm().item()}
        if at.step_size_gradient is None:
            new_vector, moments = gradient_step(vector, at.gradient, moments, self.outer.gradient)
            return _Moved(new_vector, at.adapted, _prefixed("adam/", moments._asdict()), metrics)
        sizes = _without_prefix("step_sizes/", state)
        gradient = torch.cat([at.gradient, at.step_size_gradient])
        both, moments = gradient_step(_flatten_both(theta, sizes), gradient, moments, self.outer.gradient)
        new_vector, new_sizes = both.split(len(vector))
        extra = _prefixed("step_sizes/", unflatten(new_sizes, sizes)) | _prefixed("adam/", moments._asdict())
        return _Moved(new_vector, at.adapted, extra, metrics)

    def _reptile(
        self, state: State, theta: Params, vector: Tensor, data: Collected, objective: MetaObjective
    ) -> _Moved:
        rows = [p.reshape(p.shape[0], -1) for p in data.adapted.values()]
        return _Moved(reptile_step(vector, torch.cat(rows, dim=1), self.outer.reptile), data.adapted, {}, {})

    def _metrics(self, theta: Params, data: Collected) -> dict[str, float]:
        """Scores before and after adaptation, each on the data collected at that moment, and what the family adds."""
        before = data.supports[0] if data.supports else data.query
        metric = self.family.metric
        return {
            **_spread(f"{metric}_before", self._score(stack(theta, num_tasks(before)), before)),
            **_spread(f"{metric}_after", self._score(data.adapted, data.query)),
            **self.family.describe([*data.supports, data.query]),
        }

    def _score(self, params: Params, data: Any) -> Tensor:
        """[task, sample]; params, data: stacked."""

        def one_chunk(start: int, stop: int) -> Tensor:
            with torch.no_grad():
                return over_tasks(self.family.score)(take_tasks(params, start, stop), take_tasks(data, start, stop))

        return torch.cat(self.threads.map(one_chunk, *zip(*chunk_tasks(data), strict=True)))


def _spread(name: str, scores: Tensor) -> dict[str, float]:
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
    return _without_prefix("params/", state)


def _flatten_both(params: Params, sizes: Params) -> Tensor:
    """[P], or [2 P] if there are step sizes."""
    return torch.cat([flatten(params), flatten(sizes)]) if sizes else flatten(params)


def _without_prefix(prefix: str, state: State) -> Params:
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}
