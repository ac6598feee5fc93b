"""A report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import plotly

from maml_rl.pictures.report.blocks import Section, Tile, escaped


class Page(NamedTuple):
    """All that a report says."""

    title: str
    subtitle: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    footer: str


def page_html(page: Page) -> str:
    """The file's text. Styles, script, plotly.js and figures stand in it once."""
    figures: list[dict[str, Any]] = []
    sections, links = [], []
    for place, section in enumerate(page.sections):
        body = "".join(block.html(figures) for block in section.blocks)
        sections.append(f'<section id="part-{place}"><h2>{escaped(section.title)}</h2>{body}</section>')
        links.append(f'<a href="#part-{place}">{escaped(section.title)}</a>')
    tiles = "".join(
        f'<div class="tile"><span>{escaped(tile.label)}</span><strong>{escaped(tile.value)}</strong>'
        f"<small>{escaped(tile.detail)}</small></div>"
        for tile in page.tiles
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="maml-rl">
<link rel="icon" href="data:,">
<title>{escaped(page.title)}</title>
<style>{_part("page.css")}</style>
</head>
<body>
<nav><div>{"".join(links)}</div><button type="button" id="theme" aria-label="Switch between light and dark">
<span aria-hidden="true">&#9680;</span></button></nav>
<main>
<header><h1>{escaped(page.title)}</h1><p>{escaped(page.subtitle)}</p></header>
<div class="tiles">{tiles}</div>
{"".join(sections)}
<footer>{escaped(page.footer)}</footer>
</main>
<script type="application/json" id="figures">{_plain_json(figures)}</script>
<script>{plotly_script()}</script>
<script>{_part("page.js")}</script>
</body>
</html>
"""


@functools.cache
def plotly_script() -> str:
    """The whole of plotly.js, 4.8 MB: its Python package has no smaller part."""
    return (resources.files(plotly) / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _plain_json(figures: Sequence[dict[str, Any]]) -> str:
    """JSON that cannot end the script that it stands in."""
    text = json.dumps(figures, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
