"""The documentation's code does what the documentation says."""

import re
from pathlib import Path

from maml_rl.cli import train
from maml_rl.config import RunConfig

ROOT = Path(__file__).parents[1]
TINY = [
    "--num-tasks",
    "2",
    "--episodes-per-task",
    "2",
    "--horizon",
    "5",
    "--evaluate-every",
    "0",
    "--num-iterations",
    "1",
]


def test_the_environment_of_the_guide_trains(tmp_path):
    source = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "adding.md").read_text(), re.DOTALL)
    assert source is not None
    exec(compile(source.group(1), "docs/adding.md", "exec"), {"__name__": "guide"})
    assert train(RunConfig(env="my/Hover-v0"), [*TINY, "--output-dir", str(tmp_path / "run")]) == 0


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
