"""Checks of the properties that every task environment must have; each finding says what is wrong and what to do.

A property is a function from a `Candidate` to findings. Those of `BEHAVIOUR` make the numbers of training mean
something; all others are cheap, and training cannot do without them.
"""

from __future__ import annotations

import warnings

from ..plug_in import World
from ..tracebacks import located, missing_package, raising_function
from .behaviour import (
    a_row_does_not_depend_on_others,
    a_task_waits_for_reset,
    episodes_end,
    gymnasium_agrees,
    observations_keep,
    pictures_can_be_filmed,
    tasks_can_be_sent,
    tasks_depend_on_rng_alone,
    tasks_do_not_run_out,
    tasks_matter,
)
from .candidate import Candidate
from .finding import Finding, Property, error_of
from .form import methods_take_their_arguments, spaces_are_known, tasks_can_be_drawn, the_horizon_is_known
from .repeatability import a_seed_decides_everything, copies_share_nothing, global_generators_stay, tasks_stay_as_drawn
from .steps import observations_are_of_unit_size, steps_return_what_they_must

FEW_STEPS = 10  # played for the contract
MANY_STEPS = 100  # played for the rest, over as many episodes as they take

DEFINITIONS: tuple[Property, ...] = (methods_take_their_arguments,)
FORM: tuple[Property, ...] = (tasks_can_be_drawn, spaces_are_known, the_horizon_is_known)
CONTRACT: tuple[Property, ...] = (steps_return_what_they_must,)
SCALE: tuple[Property, ...] = (observations_are_of_unit_size,)
REPEATABLE: tuple[Property, ...] = (
    a_seed_decides_everything,
    global_generators_stay,
    tasks_stay_as_drawn,
    copies_share_nothing,
)
BEHAVIOUR: tuple[Property, ...] = (
    tasks_depend_on_rng_alone,
    observations_keep,
    a_task_waits_for_reset,
    tasks_matter,
    tasks_do_not_run_out,
    tasks_can_be_sent,
    pictures_can_be_filmed,
    episodes_end,
    a_row_does_not_depend_on_others,
    gymnasium_agrees,
)


def check_world(world: World, horizon: int | None, thorough: bool) -> list[Finding]:
    """Check an environment; errors of one stage hide what the next would find.

    Args:
        horizon: [steps] of an episode at most; None for the environment's own.
        thorough: check behaviour, too.
    Raises:
        ValueError: if it cannot be made at all.
    """
    candidate = Candidate(world, horizon, MANY_STEPS if thorough else FEW_STEPS)
    findings: list[Finding] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium's, about what is said here
            candidate.batch(1) if world.is_batch else candidate.single()
            for stage in (DEFINITIONS, FORM, CONTRACT, SCALE, REPEATABLE, BEHAVIOUR if thorough else ()):
                for check in stage:
                    findings += _found(check, candidate)
                if any(finding.severity == "error" for finding in findings):
                    break  # the next stage would stumble over it
    finally:
        candidate.close()
    return findings


def _found(check: Property, candidate: Candidate) -> list[Finding]:
    """An exception is a finding, too: it would end a run."""
    try:
        return list(check(candidate))
    except Exception as error:
        package = missing_package(error)
        if package is not None:
            return [error_of(check, f"{candidate.world.name} {package[0]}", package[1])]
        raiser = raising_function(error) or f"checking that {check.__name__.replace('_', ' ')}"
        return [error_of(check, f"{raiser} raised {located(error)}", "correct what raises it")]
