"""The commands on the pages are such as the program takes."""

import re
import shlex
from pathlib import Path

import parsers
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    DOCS / "index.md",
    DOCS / "gallery.md",
    *(path for room in ("howto", "explanation") for path in (DOCS / room).glob("*.md")),
]
LINES = sorted(
    {
        command.strip()
        for page in PAGES
        for block in re.findall(r"```bash\n(.*?)```|`(maml-rl [^`]+)`", page.read_text(), re.DOTALL)
        for command in "\n".join(block).splitlines()
        if command.startswith("maml-rl ") and command.count(" ") > 1 and "COMMAND" not in command
    }
)


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_understood(line):
    arguments = shlex.split(line, comments=True)[1:]
    if "--resume" in arguments:  # whose flags are those of the run
        arguments[:3] = ["train"]
    parsers.require_understood([each for each in arguments if each != "..."])


def test_commands_are_found():
    assert len(LINES) > 15
