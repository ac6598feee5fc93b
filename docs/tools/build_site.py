"""Build the documentation site: `python docs/tools/build_site.py` leaves it in build/site.

The pages in docs/ are copied to build/docs; there the lists that are made from the code are filled in, and links to
sources, which a repository host can follow, lead to pages that show them. Zensical only turns the copy into HTML, so
that another generator could.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import reference
import scores
import yaml

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
MARK = re.compile(r"<!-- generated: (\w+) -->(?:\n\*The table is made[^*]*\*)?")
"""The place of a list that is made from the code; what stands below it is for those who read the file itself."""
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)(#[^)\s]*)?\)")
PAGES = reference.PAGES | scores.PAGES
LANGUAGES = {".py": "python", ".json": "json", ".md": "markdown", ".toml": "toml"}
SHOWN = {".md", ".png", ".gif", ".css"}


def main() -> int:
    """Build the site; return the exit status."""
    stage(BUILD / "docs")
    return render(BUILD)


def render(folder: Path) -> int:
    """Turn the pages in folder/docs into folder/site; return the exit status, 1 for a broken link."""
    config = folder / "mkdocs.yml"
    config.write_text(yaml.safe_dump(configured(folder / "docs"), sort_keys=False))
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode


def stage(folder: Path) -> None:
    """Write every page of the site into a folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    docs = ROOT / "docs"
    sources: set[Path] = set()
    for path in sorted(docs.rglob("*")):
        page = path.relative_to(docs)
        if not _is_shown(page):
            continue
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copyfile(path, folder / page)
            continue
        text = path.read_text()
        sources |= set(filter(None, (_source(link[2], page) for link in LINK.finditer(text))))
        text = LINK.sub(functools.partial(_relinked, page=page), text)
        (folder / page).write_text(MARK.sub(lambda mark: PAGES[mark[1]](), text))
    for kind, learner in reference.PAIRS:
        (folder / "reference" / reference.settings_page(kind, learner)).write_text(reference.settings(kind, learner))
    (folder / "sources").mkdir()
    for source in sources:
        (folder / "sources" / _listing_name(source)).write_text(_listing(source))


def configured(folder: Path) -> dict[str, Any]:
    """The settings in mkdocs.yml, with every pattern in `nav` replaced by the pages in a folder that it fits and that
    are named nowhere else."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = {each for each in leaves(config["nav"]) if "*" not in each}
    config["nav"] = _expanded(config["nav"], folder, named)
    config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    return config


def leaves(nav: Any) -> list[str]:
    """The pages and patterns in a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [leaf for child in children for leaf in leaves(child)]


def _expanded(nav: list[Any], folder: Path, named: set[str]) -> list[Any]:
    found: list[Any] = []
    for each in nav:
        if isinstance(each, str) and "*" in each:
            pages = sorted(path.relative_to(folder).as_posix() for path in folder.glob(each))
            fresh = [page for page in pages if page not in named]
            named.update(fresh)
            found += fresh
        elif isinstance(each, dict):
            sections = {
                title: _expanded(own, folder, named) if isinstance(own, list) else own for title, own in each.items()
            }
            found += [{title: own} for title, own in sections.items() if own]
        else:
            found.append(each)
    return found


def _is_shown(path: Path) -> bool:
    """Whether a file below docs/ is part of the site: of the raw results only pictures are, of the tools nothing."""
    return path.suffix in (SHOWN if path.parts[:1] not in (("results",), ("tools",)) else {".png"})


def _source(target: str, page: Path) -> Path | None:
    """The file or folder of the project that a link on a page leads to, if it is not part of the site."""
    if re.match(r"[a-z]+:", target):
        return None
    path = Path(posixpath.normpath(posixpath.join("docs", page.parent.as_posix(), target)))
    is_shown = path.parts[0] == "docs" and _is_shown(path.relative_to("docs"))
    return None if is_shown or not (ROOT / path).exists() else path


def _relinked(link: re.Match[str], page: Path) -> str:
    source = _source(link[2], page)
    if source is None:
        return link[0]
    target = posixpath.relpath(f"sources/{_listing_name(source)}", page.parent.as_posix())
    return f"{link[1]}{target})"


def _listing_name(source: Path) -> str:
    return f"{source.as_posix().replace('/', '-')}.md"


def _listing(source: Path) -> str:
    """A page with a source file, or with the names in a folder."""
    path, head = ROOT / source, f"---\nsearch:\n  exclude: true\n---\n\n# {source.as_posix()}\n\n"
    if path.is_dir():
        names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in path.iterdir())
        return head + "".join(f"- `{name}`\n" for name in names if name[0] not in "._")
    return f"{head}````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text().rstrip()}\n````\n"


if __name__ == "__main__":
    sys.exit(main())
