"""The columns of metrics.csv: names, units and meanings, for the reference and for whoever draws them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Column(NamedTuple):
    """What a column of metrics.csv holds."""

    group: str
    unit: str  # empty for numbers without one
    meaning: str


SCORES = {
    "return": ("reward", "undiscounted sum of an episode's rewards"),
    "success": ("", "share of episodes that report success at any step"),
    "mse": ("", "mean squared error of the predictions"),
    "accuracy": ("", "share of queries that are classified correctly"),
    "log_density": ("nats", "log-density of a number that was not shown"),
    "nll": ("nats", "negative log-likelihood of the targets, where predictions are distributions"),
    "calibration_error": ("", "expected calibration error of predicted distributions"),
}
"""What is scored, with its unit, by the name that stands in its columns."""

_MOMENTS = {"before": "before adaptation", "after": "after adaptation"}
_SPREADS = {
    "": "mean over the iteration's tasks",
    "_std": "standard deviation over the iteration's tasks",
    "_ci95": "half the width of the 95 % interval of the mean over tasks",
}

COLUMNS: dict[str, Column] = {
    "iteration": Column("training", "", "number of the outer update, from 1"),
    "env_steps": Column("training", "steps", "environment steps of this iteration"),
    "env_steps_total": Column("training", "steps", "environment steps so far, with those of a run that it began from"),
    "loss": Column("learning", "", "loss that the outer update descends, before it"),
    "surrogate_loss_before": Column("learning", "", "outer loss of theta before the update"),
    "surrogate_loss_after": Column("learning", "", "outer loss after the update, on the same data"),
    "gradient_norm": Column("learning", "", "Euclidean length of the outer gradient"),
    "kl": Column("learning", "nats", "KL of adapted policies, old to new, on the query; of PLATIPUS the KL of q and p"),
    "kl_inner": Column("learning", "nats", "KL of the policies before each inner step, old to new, on the support"),
    "accepted": Column("learning", "", "1 if the line search found a step, 0 if theta stays"),
    "line_search_steps": Column("learning", "", "candidates that the line search tried"),
    "cg_residual": Column("learning", "", "relative residual of conjugate gradients"),
    "clip_fraction": Column("learning", "", "share of the query's likelihood ratios outside of the clip"),
    "epochs": Column("learning", "", "epochs on the data of this iteration"),
    "inner_kl_coefficient": Column("learning", "1 / nat", "weight of the inner KL in the outer loss"),
    "explained_variance_before": Column("learning", "", "share of the support's returns that the baseline explains"),
    "explained_variance_after": Column("learning", "", "share of the query's returns that the baseline explains"),
    "entropy_before": Column("learning", "nats", "entropy of the policy before adaptation"),
    "entropy_after": Column("learning", "nats", "entropy of the adapted policies"),
    "bound": Column("learning", "nats", "evidence lower bound of one observation"),
    "bound_reconstruction": Column("learning", "nats", "part of the bound: log-likelihood of what is decoded"),
    "bound_context": Column("learning", "nats", "part of the bound that is subtracted: KL of the context"),
    "bound_latents": Column("learning", "nats", "part of the bound that is subtracted: KL of the latents"),
    "ink": Column("learning", "", "mean of what is decoded, as a multiple of the data's"),
    "steps_per_s": Column("clock", "steps / s", "environment steps per second of sampling"),
    "sample_seconds": Column("clock", "s", "time spent on collecting data"),
    "adapt_seconds": Column("clock", "s", "time spent on adaptation outside of the outer step"),
    "outer_seconds": Column("clock", "s", "time spent on the outer step"),
    "iteration_seconds": Column("clock", "s", "time of the iteration without its evaluation"),
    "evaluation_seconds": Column("clock", "s", "time of the evaluation and film after the iteration"),
    "wall_seconds": Column("clock", "s", "time since the run began, over all its parts"),
}
"""The columns that are no scores. Those of the clock differ between equal runs; no others do."""


def column(name: str) -> Column | None:
    """What the column of that name holds; None if a learner outside of the project made it up."""
    if name in COLUMNS:
        return COLUMNS[name]
    scores = "|".join(SCORES)
    if found := re.fullmatch(rf"({scores})_(before|after)(_std|_ci95|)", name):
        unit, meaning = SCORES[found[1]]
        return Column("training", unit, f"{meaning}, {_MOMENTS[found[2]]}: {_SPREADS[found[3]]}")
    if found := re.fullmatch(rf"eval_({scores})_(\d+)(_ci95|)", name):
        unit, meaning = SCORES[found[1]]
        kind = "half the width of its 95 % interval over tasks" if found[3] else "mean over the evaluation's tasks"
        return Column("evaluation", unit, f"{meaning}, after {found[2]} adaptations to each held-out task: {kind}")
    return None
