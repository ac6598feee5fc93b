"""Links of the pages as a repository host shows them: to files, and to the anchors that it makes of headings."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "examples").glob("*.md"),
    *(path for path in (ROOT / "docs").rglob("*.md") if "results" not in path.parts),
]
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")
CODE = re.compile(r"^(```+).*?^\1", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings: small letters, punctuation gone, spaces as hyphens."""
    headings = re.findall(r"^#+ +(.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"https?:|mailto:", target):
            continue
        place = page.parent / target if target else page
        assert place.exists(), target
        assert not anchor or place.suffix != ".md" or anchor in anchors(place), f"{target}#{anchor}"


def test_anchors_are_made_as_a_host_makes_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# The `same` bits\n\n## Ant-Dir, H = 1\n\n```\n# no heading\n```\n")
    assert anchors(page) == {"the-same-bits", "ant-dir-h--1"}
