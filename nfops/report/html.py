"""`report.html`: one file that needs no other, light and plain, fit for a browser and for paper."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nfops.report.figures import Figure
from nfops.report.layout import Table
from nfops.report.methods import methods
from nfops.report.tables import tables
from nfops.report.words import what_was_evaluated

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #1c1c1c;
  background: #fff; max-width: 940px; margin: 2.2rem auto 4rem; padding: 0 1.2rem; }
h1 { font-size: 1.55rem; margin: 0 0 .2rem; } h2 { font-size: 1.12rem; margin: 2.2rem 0 .5rem; }
p { margin: .5rem 0; } .about { color: #555; } .note { border-left: 3px solid #d9822b; padding: .1rem .8rem; }
table { border-collapse: collapse; margin: .6rem 0 .4rem; font-variant-numeric: tabular-nums; font-size: .92rem; }
.caption { color: #555; font-size: .84rem; margin: .2rem 0 0; max-width: 46rem; }
th, td { padding: .22rem .9rem .22rem 0; text-align: right; vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td.text { white-space: normal; text-align: left; }
thead th { border-bottom: 1px solid #333; font-weight: 600; } tbody tr:last-child td { border-bottom: 1px solid #333; }
table { border-top: 1.6px solid #333; } tr.main td { font-weight: 650; }
figure { margin: 1rem 0 1.4rem; } figure img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .84rem; } figcaption b { color: #1c1c1c; }
details { margin: .6rem 0; } pre { font-size: .78rem; background: #f6f6f6; padding: .8rem; overflow-x: auto;
  white-space: pre-wrap; }
@media print { body { margin: 0; max-width: none; font-size: 10.5pt; } figure, table { break-inside: avoid; }
  h2 { break-after: avoid; } details { display: none; } }
"""


def page(directory: Path, summary: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """The whole page, the figures of `directory` inside."""
    title = f"{summary['name']}: evaluation"
    blocks = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="about">{escape(what_was_evaluated(summary))}. nfops {escape(summary["nfops"])}.</p>',
        *(f'<p class="note">{escape(text)}</p>' for text in summary["warnings"]),
        *(_table(table) for table in tables(summary)),
        "<h2>Figures</h2>",
        *(_figure(directory, number, one) for number, one in enumerate(figures, start=1)),
        "<h2>How it was measured</h2>",
        *(f"<p>{escape(text)}</p>" for text in methods(summary)),
        _details("Recipe", summary["recipe"]),
        _details("Folds", summary["folds"]) if summary["folds"] else _details("Bundle", summary["bundle"]),
        _details("Versions", {**summary["versions"], "device": summary["device"], "seed": summary["seed"]}),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(blocks)
    return f'<!doctype html>\n<html lang="en">\n<head>{viewport}{head}</head>\n<body>\n{body}\n</body>\n</html>\n'


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in table.heads)
    rows = "\n".join(_row(cells, is_main=number in table.main) for number, cells in enumerate(table.rows))
    body = f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table>"
    return f'<h2>{escape(table.title)}</h2>\n{body}\n<p class="caption">{escape(table.caption)}</p>'


def _row(cells: Iterable[str], *, is_main: bool) -> str:
    inner = "".join(f'<td class="text">{escape(c)}</td>' if len(c) > 60 else f"<td>{escape(c)}</td>" for c in cells)
    return f'<tr class="main">{inner}</tr>' if is_main else f"<tr>{inner}</tr>"


def _figure(directory: Path, number: int, one: Figure) -> str:
    data = base64.b64encode((directory / one.file).read_bytes()).decode("ascii")
    caption = f"<b>Figure {number}. {escape(one.title)}.</b> {escape(one.caption)}"
    image = f'<img alt="{escape(one.title)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _details(title: str, value: Any) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(json.dumps(value, indent=1))}</pre></details>"
