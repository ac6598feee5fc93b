"""Search for settings with Optuna: each trial is a run, and trials that fall behind on held-out tasks are pruned.

pip install optuna
python examples/optuna_search.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import optuna

import maml_rl


class Pruning(maml_rl.Callback):
    """Tells Optuna the held-out score after every evaluation, and ends a run that Optuna gives up."""

    def __init__(self, trial: optuna.Trial):
        self.trial, self.score, self.is_pruned = trial, float("-inf"), False

    def on_evaluation(self, report):
        self.score = report.held_out_score
        self.trial.report(self.score, step=report.iteration)
        self.is_pruned = self.trial.should_prune()
        return not self.is_pruned  # False ends the run; its folder can be evaluated and resumed like any other


def search(folder: Path, num_trials: int = 20, num_iterations: int = 30, **settings) -> optuna.Study:
    """The study after `num_trials` runs in `folder`.

    Args:
        settings: further settings of every run, as in maml_rl.train.
    """

    def objective(trial: optuna.Trial) -> float:
        pruning = Pruning(trial)
        maml_rl.train(
            "Navigation2D",
            output_dir=folder / f"trial-{trial.number}",
            num_iterations=num_iterations,
            evaluate_every=5,
            step_size=trial.suggest_float("step_size", 0.01, 1.0, log=True),
            max_kl=trial.suggest_float("max_kl", 0.001, 0.1, log=True),
            callbacks=[pruning],
            quiet=True,
            **settings,
        )
        if pruning.is_pruned:
            raise optuna.TrialPruned
        return pruning.score

    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=10)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1), pruner=pruner)
    study.optimize(objective, num_trials)
    return study


if __name__ == "__main__":
    found = search(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/optuna"))
    print(f"trial {found.best_trial.number} has the best return on held-out tasks, {found.best_value:.2f}, with")
    print(found.best_params)
