"""The evaluation of several runs of one experiment: what is printed and written about their seeds together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from maml_rl.evaluation.adaptation_curve import AdaptationCurve, or_null
from maml_rl.evaluation.seeds import OverSeeds, over_seeds
from maml_rl.evaluation.statistics import Estimate

OF_ONE_RUN = ("mean", "gain", "share_worse", "iteration", "env_steps")
"""Facts in which the runs differ."""
OF_ONE_RUN_ALONE = ("ci95", "further")
"""Facts that are left out of several runs' summary."""


class TogetherScored(NamedTuple):
    """Runs of one experiment, scored on the same tasks."""

    runs: Sequence[Path]
    seeds: Sequence[int]
    curves: Sequence[AdaptationCurve]
    each: Sequence[dict[str, Any]]  # the results of each, as JSON

    def described(self) -> dict[str, Any]:
        """The results as JSON: statistics over seeds and tasks, and each run's own means."""
        together = over_seeds(self.curves)
        common = {name: value for name, value in self.each[0].items() if name not in (*OF_ONE_RUN, *OF_ONE_RUN_ALONE)}
        rows = zip(self.runs, self.seeds, self.each, strict=True)
        return {
            **common,
            "mean": _values(together.mean),
            "gain": _values(together.gain),
            "share_worse": _values(together.share_worse),
            **intervals(together),
            "seeds": list(self.seeds),
            "runs": [{"run": str(run), "seed": s} | {name: own[name] for name in OF_ONE_RUN} for run, s, own in rows],
        }

    def labelled_curves(self) -> list[tuple[dict[str, Any], AdaptationCurve]]:
        """Each curve with its columns for the table of tasks."""
        rows = zip(self.runs, self.seeds, self.curves, strict=True)
        return [({"run": str(run), "seed": seed}, curve) for run, seed, curve in rows]

    def print_table(self, title: str) -> None:
        """Print the statistics, then each run's means, on stderr."""
        console, first = Console(stderr=True), self.curves[0]
        together, described = over_seeds(self.curves), self.each[0]
        caption = f"95 % intervals by bootstrap over seeds and tasks. Each score rests on {described['episodes']}."
        table = Table(
            title=f"{title}, seeds {', '.join(map(str, self.seeds))}", caption=caption, box=SIMPLE_HEAD, padding=0
        )
        names = ["gradient steps", first.metric, "95 %", "IQM", "95 %", "gain", "95 %", "worse"]
        for name in [*names, *(["published"] if described["published"] else [])]:
            table.add_column(name, justify="right", min_width=max(map(len, name.split())))
        for index, steps in enumerate(first.gradient_steps):
            change = ["", "", ""]
            if index and first.used[index]:
                change = [*_cells(together.gain[index], "+"), f"{together.share_worse[index].value:.0%}"]
            means = [*_cells(together.mean[index]), *_cells(together.interquartile_mean[index])]
            beside = ["" if value is None else f"{value:g}" for value in described["published"][index : index + 1]]
            table.add_row(str(steps), *means, *change, *beside)
        console.print(table)
        of_runs = Table("run", *map(str, first.steps), title=f"{first.metric} of each run", box=SIMPLE_HEAD, padding=0)
        for run, curve in zip(self.runs, self.curves, strict=True):
            of_runs.add_row(str(run), *(f"{value:.4g}" for value in curve.mean))
        console.print(of_runs)


def intervals(found: OverSeeds) -> dict[str, Any]:
    """The interquartile mean and all 95 % intervals, [lower, upper] for each number of steps, as JSON."""
    return {
        "mean_interval": _ends(found.mean),
        "interquartile_mean": _values(found.interquartile_mean),
        "interquartile_mean_interval": _ends(found.interquartile_mean),
        "gain_interval": _ends(found.gain),
        "share_worse_interval": _ends(found.share_worse),
    }


def _values(found: Sequence[Estimate]) -> list[float | None]:
    return or_null([each.value for each in found])


def _ends(found: Sequence[Estimate]) -> list[list[float | None]]:
    return [or_null([each.low, each.high]) for each in found]


def _cells(found: Estimate, sign: str = "") -> list[str]:
    """An estimate in four digits and its interval in three, so that a row fits into a terminal of 80."""
    ends = (f"{end:{sign}{'.0f' if abs(end) >= 1000 else '.3g'}}" for end in (found.low, found.high))
    return [f"{found.value:{sign}.4g}", " ".join(ends)]
