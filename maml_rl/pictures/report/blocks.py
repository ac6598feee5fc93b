"""The parts of a report and their HTML. All text is escaped: a run may come from anybody."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Interval(NamedTuple):
    """A number and the ends of its interval, nan where it has none."""

    value: float
    low: float
    high: float


Cell = str | float | int | Interval | None
"""None where there is nothing to say; numbers are shown with four digits and sorted by their value."""

MEDIA_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


class Block(Protocol):
    """A part of a section."""

    def html(self, figures: list[dict[str, Any]]) -> str:
        """The part as HTML; what is to be drawn is appended to `figures`."""


class Text(NamedTuple):
    """A paragraph."""

    text: str
    is_note: bool = False  # in a frame: something that is missing, or to be kept in mind

    def html(self, figures: list[dict[str, Any]]) -> str:
        return f'<p class="{"note" if self.is_note else "text"}">{escaped(self.text)}</p>'


class Command(NamedTuple):
    """A shell command to copy."""

    label: str
    command: str

    def html(self, figures: list[dict[str, Any]]) -> str:
        return (
            f'<div class="command"><span>{escaped(self.label)}</span><code>{escaped(self.command)}</code>'
            '<button type="button" data-copy>copy</button></div>'
        )


class Facts(NamedTuple):
    """Names with values."""

    rows: Sequence[tuple[str, str]]

    def html(self, figures: list[dict[str, Any]]) -> str:
        rows = (f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in self.rows)
        return f'<dl class="facts">{"".join(rows)}</dl>'


class Table(NamedTuple):
    """A table whose columns can be sorted."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    marked: Sequence[bool] = ()  # of each row, where some are worse than they should be
    filter_label: str = ""  # of a switch that shows the marked rows alone
    folded: str = ""  # summary of a table that is shown only when asked for

    def html(self, figures: list[dict[str, Any]]) -> str:
        head = "".join(f'<th><button type="button">{escaped(name)}</button></th>' for name in self.columns)
        marks = self.marked or [False] * len(self.rows)
        body = "".join(
            f"<tr{' class=marked' if mark else ''}>{''.join(map(_cell, row))}</tr>"
            for mark, row in zip(marks, self.rows, strict=True)
        )
        switch = ""
        if self.filter_label and any(marks):
            switch = f'<label class="switch"><input type="checkbox" data-filter>{escaped(self.filter_label)}</label>'
        caption = f'<p class="caption">{escaped(self.caption)}</p>' if self.caption else ""
        table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        whole = f'<div class="tabled">{switch}<div class="scroll" tabindex="0">{table}</div>{caption}</div>'
        return f"<details><summary>{escaped(self.folded)}</summary>{whole}</details>" if self.folded else whole


class Figure(NamedTuple):
    """A plot for plotly.js. Colours are named as "@c0" or "@c0/0.2", with an opacity, and depend on the theme."""

    data: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    title: str
    caption: str = ""

    def html(self, figures: list[dict[str, Any]]) -> str:
        figures.append({"data": list(self.data), "layout": self.layout})
        caption = f"<figcaption>{escaped(self.caption)}</figcaption>" if self.caption else ""
        height = int(self.layout.get("height", 380))
        place = f'<div class="plot" id="figure-{len(figures) - 1}" style="height:{height}px"></div>'
        return f'<figure class="card"><h3>{escaped(self.title)}</h3>{place}{caption}</figure>'


class Media(NamedTuple):
    """A picture or a film, embedded."""

    data: bytes
    ending: str  # one of MEDIA_TYPES
    title: str
    caption: str = ""

    def html(self, figures: list[dict[str, Any]]) -> str:
        source = f"data:{MEDIA_TYPES[self.ending]};base64,{base64.b64encode(self.data).decode()}"
        name = html.escape(self.title, quote=True)
        shown = f'<img alt="{name}" src="{source}">'
        if self.ending == ".mp4":
            shown = f'<video controls loop muted autoplay playsinline aria-label="{name}" src="{source}"></video>'
        caption = f"<figcaption>{escaped(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure class="card media"><h3>{escaped(self.title)}</h3>{shown}{caption}</figure>'


class Pair(NamedTuple):
    """Blocks side by side where there is room."""

    blocks: Sequence[Block]

    def html(self, figures: list[dict[str, Any]]) -> str:
        return f'<div class="pair">{"".join(block.html(figures) for block in self.blocks)}</div>'


class Section(NamedTuple):
    """A heading with what stands under it."""

    title: str
    blocks: Sequence[Block]


class Tile(NamedTuple):
    """A number at the top."""

    label: str
    value: str
    detail: str = ""


def escaped(text: str) -> str:
    return html.escape(text, quote=False)


def number(value: float) -> str:
    """A number with four digits, or whole if it is large."""
    if value != value:
        return "not a number"
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return text.replace("-", "\u2212")  # a minus as wide as a plus


def _cell(value: Cell) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, str):
        return f"<td>{escaped(value)}</td>"
    if isinstance(value, Interval):
        ends = "" if value.low != value.low else f"<small>{number(value.low)} to {number(value.high)}</small>"
        return f'<td class="number" data-value="{value.value!r}">{number(value.value)}{ends}</td>'
    return f'<td class="number" data-value="{float(value)!r}">{number(value)}</td>'
