"""The search prunes by held-out scores, and a pruned trial is a whole run."""

import importlib.util
from pathlib import Path

import pytest

import maml_rl

optuna = pytest.importorskip("optuna")
EXAMPLE = Path(__file__).parents[2] / "examples" / "optuna_search.py"
SMALL = {"num_tasks": 2, "episodes_per_task": 2, "horizon": 5, "evaluation__num_tasks": 1, "evaluation__num_steps": 1}


def test_trials_are_pruned_by_their_held_out_score(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("optuna_search", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    class Second(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1

    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **settings: Second())
    study = example.search(tmp_path, num_trials=2, num_iterations=10, **SMALL)
    first, second = study.trials
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    metrics = maml_rl.load(tmp_path / "trial-0").metrics
    assert first.value == metrics["eval_return_1"][9] and list(first.intermediate_values) == [5, 10]
    assert list(second.intermediate_values) == [5]
    assert maml_rl.load(tmp_path / "trial-1").checkpoints[-1] == 5
