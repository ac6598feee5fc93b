"""The site's pages: complete, linked, and made from the code."""

import re
import shutil
from pathlib import Path

import build_site
import parsers
import pytest
import reference

from maml_rl.commands.main import COMMANDS
from maml_rl.experiments.config import outer_steps, with_outer_step
from maml_rl.experiments.flags import flags_of
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.table import LEARNERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages by name, and the folder that they lie in."""
    folder = tmp_path_factory.mktemp("site") / "docs"
    build_site.stage(folder)
    return folder, {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.md"))}


def test_every_list_is_filled_in(pages):
    _, texts = pages
    assert not [name for name, text in texts.items() if "<!-- generated" in text]
    assert not [name for name, text in texts.items() if str(ROOT) in text]


@pytest.mark.parametrize(("kind", "learner"), reference.PAIRS)
def test_every_setting_of_every_learner_has_a_row(kind, learner, pages):
    text = pages[1][f"reference/{reference.settings_page(kind, learner)}"]
    config = default_config(parsers.ENVS[kind], learner)
    configs = [config, *(with_outer_step(config, step) for step in outer_steps(config))]
    wanted = {flag for each in configs for flag in flags_of(each)}
    shown = set(re.findall(r"^\| `(--[\w.-]+)", text, re.MULTILINE))
    assert wanted <= shown
    assert all(meaning.strip() for meaning in re.findall(r"^\| `--.*\| ([^|]*)\|$", text, re.MULTILINE))


def test_every_command_and_learner_is_listed(pages):
    commands, learners = pages[1]["reference/commands.md"], pages[1]["reference/learners.md"]
    assert re.findall(r"^## (\S+)$", commands, re.MULTILINE) == list(COMMANDS)
    assert re.findall(r"^\| `([\w-]+)`", learners, re.MULTILINE) == list(LEARNERS)


def test_stored_numbers_are_in_the_tables(pages):
    # three seeds of the half cheetah on the published tasks, as docs/results.md has them
    row = "| return | -123.6 | -61.4 | -53.2 | -50.8 |"
    assert row in pages[1]["scores.md"]


def test_links_lead_to_pages_and_pictures(pages):
    folder, texts = pages
    lost = [
        f"{name}: {link[2]}"
        for name, text in texts.items()
        if not name.startswith("sources/")
        for link in build_site.LINK.finditer(text)
        if not re.match("https?:", link[2]) and not (folder / name).parent.joinpath(link[2]).exists()
    ]
    assert not lost


def test_every_page_is_in_the_navigation_once(pages):
    folder, texts = pages
    named = build_site.leaves(build_site.configured(folder)["nav"])
    assert len(named) == len(set(named))
    assert set(named) == {name for name in texts if not name.startswith("sources/")}


def test_raw_results_are_not_copied(pages):
    folder, _ = pages
    assert {path.suffix for path in (folder / "results").rglob("*") if path.is_file()} == {".png"}


def test_every_picture_is_in_the_gallery():
    gallery = (ROOT / "docs" / "gallery.md").read_text()
    pictures = [path.name for path in (ROOT / "docs" / "images").iterdir() if path.suffix in (".png", ".gif")]
    assert not [name for name in pictures if f"](images/{name})" not in gallery]


@pytest.mark.slow
def test_a_broken_link_stops_the_build(pages, tmp_path):
    folder, _ = pages
    shutil.copytree(folder, tmp_path / "docs")
    assert build_site.render(tmp_path) == 0
    assert (tmp_path / "site" / "index.html").stat().st_size > 10_000
    (tmp_path / "docs" / "gallery.md").write_text("[nothing](nowhere.md)")
    assert build_site.render(tmp_path) != 0
