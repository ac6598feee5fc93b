"""The contract of an outer step: how theta moves, given one iteration's data."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from maml_rl.core.objective import MetaObjective
from maml_rl.core.trees import Params

OuterState = TypeVar("OuterState")


class Moved(NamedTuple, Generic[OuterState]):
    """The result of an outer step."""

    params: Params
    state: OuterState  # the step's memory, for the next iteration
    metrics: dict[str, float]  # of this iteration, for the log


class OuterStep(Protocol):
    """An outer step as a value: settings and two functions. Its memory is passed in and returned."""

    name: str  # in settings
    wants_adapted: bool  # it moves towards theta', so theta' must be known before the step, on given data too
    learns_step_sizes: bool  # it also moves the parameters called step_sizes/...

    def init(self, params: Params) -> Any:
        """The memory before the first step: a tree of tensors, () for none."""

    def step(self, objective: MetaObjective, params: Params, adapted: Params, state: Any, iteration: int) -> Moved[Any]:
        """Move everything that is learned.

        Args:
            objective: the meta-loss of this iteration's data as a function of `params`.
            params: theta, and step_sizes/... where step sizes are learned.
            adapted: [task, ...]: the parameters that the query was collected with; theta' if the step wants it or
                collecting needs it.
            iteration: number of outer updates before this one, for schedules.
        """
