"""Text that enters the page is escaped here, and tables say which cells are headers; colours stand
in one place.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NO_BREAK", "count", "number", "page", "percent", "section", "table", "text"]

NO_BREAK = "\u00a0"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #586274; --line: #d5dae3; --page: #ffffff;
  --box: #f4f6f9;
  --main: #0067b1; --other: #98a1b0; --mark: #b34700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --soft: #a3adbd; --line: #3a4250; --page: #14181f; --box: #1d232d;
    --main: #62b5f0; --other: #6d7788; --mark: #f0a35e; }
}
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin:
  1.5rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin:
  2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; } p, figcaption, caption { color: var(--soft); } p.result { color: var(--ink);
  }
ul.verdict { margin: .6rem 0; padding: 0 0 0 1.2rem; overflow-wrap: anywhere; }
ul.remarks { margin: .6rem 0; padding: .5rem .8rem .5rem 2rem; overflow-wrap: anywhere;
  border-left: 4px solid var(--mark); background: var(--box); }
a { color: var(--main); } code, pre { font-size: .87em; } p code { overflow-wrap: anywhere; }
pre { background: var(--box); padding: .6rem .8rem; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide:focus-visible { outline: 2px solid var(--main); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .3rem 0; }
caption { text-align: left; caption-side: bottom; padding-top: .4rem; }
caption span { display: block; position: sticky; left: 0; max-width: min(58rem, calc(100vw - 2rem));
  }
th, td { padding: .22rem 1rem .22rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; } tbody th { font-weight:
  400; }
th:first-child, td.text, th.text { text-align: left; } td.long { white-space: normal; min-width:
  14rem; }
tr.chosen th, tr.chosen td { font-weight: 650; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; } figure { margin: 0; max-width: 100%; }
figcaption { margin-bottom: 1rem; }
svg { max-width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font: 12px
  system-ui, sans-serif; }
svg .axis { stroke: var(--line); fill: none; } svg .main { stroke: var(--main); stroke-width: 2.4;
  fill: none; }
svg .other { stroke: var(--other); stroke-width: 1.2; fill: none; } svg .bar { fill: var(--main); }
svg .dot { fill: var(--main); } svg .dim { fill: var(--other); } svg .over { fill: var(--mark); }
svg .track { fill: var(--line); } svg .box { fill: var(--box); stroke: var(--other); }
svg .box.built { stroke: var(--main); stroke-width: 2; } svg .box.missing { fill: none;
  stroke-dasharray: 4 3; }
svg .name { fill: var(--ink); font-weight: 650; font-size: 13px; } svg .ink { fill: var(--ink); }
svg .minus { stroke: var(--mark); stroke-dasharray: 3 2; } svg .arrow { fill: var(--other); }
svg.dag { min-width: 60rem; max-width: none; width: 100%; } svg.meter { display: inline-block;
  vertical-align: middle; }
.key { display: inline-block; width: 1.4em; vertical-align: middle; border-top: 1.5px solid
  var(--other); }
.key.best { border-top: 3px solid var(--main); }
@media (max-width: 30rem) { body { margin-top: .8rem; } th, td { padding-right: .7rem; } }
"""


def text(value: Any) -> str:
    """Any value as HTML text, safe inside elements and attributes."""
    return html.escape(str(value))


def count(value: Any) -> str:
    """A whole number with separators; "?" where unknown."""
    return "?" if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """A share as a percentage that no line break parts from its sign; empty where unknown."""
    return "" if value is None else f"{100 * value:.2f}{NO_BREAK}%"


def number(value: float | None, digits: int = 2) -> str:
    """A number with `digits` decimals; empty where unknown."""
    return "" if value is None else f"{value:,.{digits}f}"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    about: str,
    marked: Sequence[bool] = (),
    words: int = 0,
) -> str:
    """A table in a box of its own that scrolls where the page is narrow.

    Parameters
    ----------
    rows : cells that are HTML already; the first of a row is its header.
    about : caption; its first sentence names the box for screen readers.
    marked : rows shown in bold.
    words : the last columns that hold text, not numbers.
    """
    first_text = len(head) - words

    def kind(i: int) -> str:
        return (
            ' class="text long"'
            if i == len(head) - 1 and words
            else ' class="text"'
            if i >= first_text
            else ""
        )

    titles = "".join(
        f'<th scope="col"{kind(i)}>{text(cell)}</th>' if cell else "<td></td>"
        for i, cell in enumerate(head)
    )
    lines = [
        (
            f'<div class="wide" tabindex="0" role="region" '
            f'aria-label="{text(about.partition(". ")[0])}"><table>'
        ),
        f"<caption><span>{text(about)}</span></caption><thead><tr>{titles}</tr></thead><tbody>",
    ]
    for r, row in enumerate(rows):
        chosen = ' class="chosen"' if r < len(marked) and marked[r] else ""
        cells = "".join(f"<td{kind(i)}>{cell}</td>" for i, cell in enumerate(row) if i)
        lines.append(f'<tr{chosen}><th scope="row">{row[0]}</th>{cells}</tr>')
    return "\n".join(lines) + "\n</tbody></table></div>"


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it; nothing where there is nothing."""
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{text(title)}</h2>\n{body}\n</section>" if body else ""


def page(title: str, body: str) -> str:
    """The whole document: no script, nothing loaded."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        f"{body}\n</main></body></html>\n"
    )
