"""The code on the how-to pages runs."""

import re
from pathlib import Path

import pytest
from printed import printed_by

ROOT = Path(__file__).parents[2]
CODE = {
    path.stem: "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
    for path in sorted((ROOT / "docs" / "howto").glob("*.md"))
}
PRINTED = {"network": r"\[-\d+\.\d+\]", "resume": "2", "export": r"\[.*\]\ntensor\(\[\[.*\]\].*\)"}


def test_every_page_with_code_is_run():
    assert PRINTED.keys() == {name for name, code in CODE.items() if code}


@pytest.mark.parametrize("name", PRINTED)
def test_the_code_of_a_page_runs(name, tmp_path):
    printed = printed_by("-c", CODE[name], folder=tmp_path)
    assert re.fullmatch(PRINTED[name], printed.strip())
