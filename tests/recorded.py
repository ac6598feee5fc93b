"""Digests of small runs and evaluations: what a change of structure must leave as it is, to the last bit.

`python tests/recorded.py` writes recorded.json anew, for a change that is meant to move numbers (CHANGELOG.md says so),
and `python tests/recorded.py --new` adds the cases that it lacks; test_nothing_moves.py holds the code to it. The last
bits belong to one kind of processor: the file names it, and on another kind the comparison is skipped.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("recorded.json")
SMALL_RL = ["--num-iterations", "3", "--num-tasks", "3", "--episodes-per-task", "3", "--evaluate-every", "2"]
SMALL_RL += ["--evaluation.num-tasks", "3"]
SHORT = [*SMALL_RL, "--horizon", "20"]
SMALL_H1 = ["--num-iterations", "3", "--num-tasks", "4", "--evaluate-every", "2", "--evaluation.num-tasks", "4"]
CLOCK = ("seconds", "steps_per_s")

RUNS: dict[str, tuple[str, list[str]]] = {
    **{
        f"{name} {preset}": (f"train_{name}.py", [*SHORT, "--preset", preset])
        for name in ("halfcheetah_vel", "ant_vel", "ant_dir")
        for preset in ("paper", "fast")
    },
    "halfcheetah_dir": ("train_halfcheetah_dir.py", SHORT),
    "halfcheetah_dir gym fast": ("train_halfcheetah_dir.py", [*SHORT, "--physics", "gym", "--preset", "fast"]),
    "halfcheetah_vel gym": ("train_halfcheetah_vel.py", [*SHORT, "--physics", "gym"]),
    "halfcheetah_dir gym": ("train_halfcheetah_dir.py", [*SHORT, "--physics", "gym"]),
    "ant_goal gym": ("train.py", [*SHORT, "--env", "maml/AntGoal-gym-v0"]),
    "halfcheetah_vel processes": ("train_halfcheetah_vel.py", [*SHORT, "--sampler", "processes", "--num-workers", "2"]),
    "halfcheetah_vel one thread": ("train_halfcheetah_vel.py", [*SHORT, "--num-threads", "1"]),
    "halfcheetah_vel oracle": ("train_halfcheetah_vel.py", [*SHORT, "--oracle", "--inner.num-steps", "0"]),
    "halfcheetah_vel fisher share": ("train_halfcheetah_vel.py", [*SHORT, "--outer.trust-region.fisher-share", "0.4"]),
    "navigation": ("train_navigation.py", SMALL_RL),
    "navigation fast": ("train_navigation.py", [*SMALL_RL, "--preset", "fast"]),
    "navigation processes": ("train_navigation.py", [*SMALL_RL, "--sampler", "processes", "--num-workers", "2"]),
    "navigation gradient": ("train_navigation.py", [*SMALL_RL, "--outer.step", "gradient"]),
    "navigation reptile": ("train_navigation.py", [*SMALL_RL, "--learner", "reptile", "--inner.num-steps", "2"]),
    "navigation ratio": ("train_navigation.py", [*SMALL_RL, "--inner.estimator", "ratio"]),
    "navigation dice": ("train_navigation.py", [*SMALL_RL, "--inner.estimator", "dice", "--inner.num-steps", "2"]),
    "navigation first order": ("train_navigation.py", [*SMALL_RL, "--learner", "fomaml"]),
    "bandit": ("train_bandit.py", SMALL_RL),
    "tabular_mdp": ("train_tabular_mdp.py", SMALL_RL),
    "sinusoid": ("train_sinusoid.py", SMALL_H1),
    "sinusoid trust region": ("train_sinusoid.py", [*SMALL_H1, "--outer.step", "trust_region"]),
    "sinusoid reptile": ("train_sinusoid.py", [*SMALL_H1, "--learner", "reptile", "--inner.num-steps", "3"]),
    "sinusoid meta-sgd": (
        "train_sinusoid.py",
        [*SMALL_H1, "--learner", "meta-sgd", "--inner.num-steps", "2"],
    ),
    "distributions": ("train.py", ["--env", "distributions", *SMALL_H1, "--distributions.num-examples", "20"]),
}
FEW_SHOT = ("maml", "fomaml", "anil", "meta-sgd", "reptile", "joint", "prototypical", "matching", "pixels")
FEW_SHOT += ("memory", "platipus")
PICTURES: dict[str, tuple[str, list[str]]] = {
    **{f"omniglot {learner}": ("train_omniglot.py", ["--learner", learner, *SMALL_H1]) for learner in FEW_SHOT},
    **{
        f"omniglot {learner} fast": ("train_omniglot.py", ["--learner", learner, *SMALL_H1, "--preset", "fast"])
        for learner in ("maml", "anil", "prototypical", "matching", "memory", "neural-statistician")
    },
    "omniglot reptile 20 ways": ("train_omniglot.py", ["--learner", "reptile", "--ways", "20", *SMALL_H1]),
}


def data_root() -> str | None:
    """The folder that holds omniglot/, if this machine has it."""
    root = os.environ.get("MAML_RL_DATA")
    return root if root and (Path(root) / "omniglot").is_dir() else None


def run_folders() -> dict[str, Path]:
    """The run folders that come with the source, by name."""
    results = ROOT / "docs" / "results"
    latest = sorted(results.rglob("latest"))
    folders = [path.parent.parent for path in latest if (path.parent.parent / "config.json").exists()]
    return {str(folder.relative_to(results)): folder for folder in folders}


def call(script: str, arguments: list[str]) -> None:
    """Run a script of this project in this process.

    Raises:
        RuntimeError: if its exit status is not 0, with what it wrote.
    """
    argv, sys.argv = sys.argv, [script, *arguments]
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    written = io.StringIO()
    try:
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(
                f"{script} {' '.join(arguments)} ended with {ended.code}: {written.getvalue()}"
            ) from None
    finally:
        sys.argv = argv
        for signum, handler in handlers.items():  # a script handles them for the whole process
            signal.signal(signum, handler)


def digest_of_run(script: str, arguments: list[str]) -> str:
    """The columns of a small run's metrics.csv that do not tell the time."""
    with tempfile.TemporaryDirectory() as folder:
        call(script, [*arguments, "--output-dir", f"{folder}/run"])
        with open(f"{folder}/run/metrics.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    kept = [{name: value for name, value in sorted(row.items()) if not name.endswith(CLOCK)} for row in rows]
    return _digest(kept)


def digest_of_evaluation(folder: Path) -> str:
    """The scores of three tasks, or ten episodes, by the last checkpoint in `folder`."""
    config = json.loads((folder / "config.json").read_bytes())["config"]
    is_picture = config["env"] == "omniglot"
    arguments = [str(folder), "--num-tasks", "10" if is_picture else "3", "--seed", "7"]
    if config["env"] not in ("omniglot", "sinusoid", "sinusoid-or-line"):
        arguments += ["--episodes-per-task", "3"]
    with tempfile.TemporaryDirectory() as temporary:
        call("evaluate.py", [*arguments, "--output", f"{temporary}/scores"])
        return _digest(Path(f"{temporary}/scores.csv").read_text(encoding="utf-8"))


def cases() -> dict[str, Callable[[], str]]:
    """Every recorded number's name and how it is computed; pictures only where the data are."""
    runs = {**RUNS, **(PICTURES if data_root() else {})}
    found: dict[str, Callable[[], str]] = {
        f"run: {name}": lambda case=case: digest_of_run(*case) for name, case in runs.items()
    }
    for name, folder in run_folders().items():
        if data_root() or not name.startswith("omniglot"):
            found[f"evaluation: {name}"] = lambda folder=folder: digest_of_evaluation(folder)
    return found


def processor() -> str:
    """The kind of processor that the last bits belong to."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


if __name__ == "__main__":
    saved: dict[str, Any] = {"processor": processor(), "digests": {}}
    if sys.argv[1:] == ["--new"]:
        saved = json.loads(FILE.read_bytes())
        assert saved["processor"] == processor(), f"recorded on {saved['processor']}, but this is {processor()}"
    digests = saved["digests"]
    for case_name, compute in cases().items():
        if case_name not in digests:
            digests[case_name] = compute()
            print(case_name, digests[case_name], flush=True)
    FILE.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
