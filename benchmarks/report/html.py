"""The words and tables of the report as HTML that asks nothing of the network."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from ..measure.result import Result
from .rivals import RIVALS, Standing
from .tables import Sheet, caption_of, figure_of, machine_line, rates_line

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 68rem; padding: 1rem; background: #fff; color: #1a1a1a;
       font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid #ccc; }
p, li { overflow-wrap: anywhere; }
pre { background: #f3f3f3; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.wide img { display: block; width: 100%; min-width: 40rem; height: auto; }
table { border-collapse: collapse; font-size: .875rem; margin: .75rem 0; }
caption { text-align: left; color: #555; padding-bottom: .25rem; }
th, td { padding: .15rem .6rem; text-align: left; vertical-align: top; }
thead th { border-bottom: 1px solid #888; white-space: nowrap; }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.part td { border-top: 1px solid #ddd; }
.loss { color: #a30000; font-weight: 600; }
.absent { color: #555; font-style: italic; }
.quick { background: #fff2cc; padding: .5rem; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What the browser must not do on this page: load anything from anywhere, or run a script."""

_LOSS = 1.005  # what is shown as 1.00 is none


def page_of(result: Result, sections: Mapping[str, str]) -> str:
    """Return the whole page.

    Args:
        result: What it is about.
        sections: HTML of each section by its heading; an empty one becomes a line that says so.
    """
    quick = (
        '<p class="quick">Too few samples to quote: this run was made with --quick.</p>'
        if result.settings.quick
        else ""
    )
    body = "\n".join(
        f"<section><h2>{_text(heading)}</h2>\n"
        + (content or '<p class="absent">Nothing of this was measured in this run.</p>')
        + "</section>"
        for heading, content in sections.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>motorVAE benchmark, {_text(result.created)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>motorVAE benchmark</h1>
<p>{_text(result.created)}, {_text(caption_of(result))}</p>
{quick}
<p>{_text(machine_line(result))}</p>
<p>{_text(rates_line(result))}</p>
<pre>{_text(result.command)}</pre>
{body}
</body>
</html>
"""


def image_of(svg_base64: str, description: str) -> str:
    """Return a figure, which scrolls sideways where the screen is narrow."""
    return (
        f'<div class="wide"><img alt="{_text(description)}" '
        f'src="data:image/svg+xml;base64,{svg_base64}"></div>\n'
    )


def table_of(sheet: Sheet) -> str:
    """Return a sheet as a table, with a line between the parts that its first column names."""
    head = "".join(
        [
            *(f"<th>{_text(heading)}</th>" for heading in sheet.texts),
            *(f'<th class="figure">{_text(heading)}</th>' for heading in sheet.figures),
        ]
    )
    count = len(sheet.texts)
    rows = "\n".join(
        ('<tr class="part">' if row[0] else "<tr>")
        + "".join(f"<td>{_text(cell)}</td>" for cell in row[:count])
        + "".join(f'<td class="figure">{_text(cell)}</td>' for cell in row[count:])
        + "</tr>"
        for row in sheet.rows
    )
    return _table(sheet.title, head, rows)


def rivals_table(standings: Sequence[Standing]) -> str:
    """Return what each case gains or loses, the largest loss first; empty without any rival."""
    if not standings:
        return ""
    head = "<th>case</th>" + "".join(f'<th class="figure">to {name}</th>' for name in RIVALS)
    rows = "\n".join(
        f"<tr><td>{_text(standing.case.key)}</td>"
        + "".join(_times(standing.times.get(name)) for name in RIVALS)
        + "</tr>"
        for standing in standings
    )
    title = "p50 over that of what people run today, as installed: a loss is red, the largest first"
    return _table(title, head, rows)


def list_of(lines: Iterable[str]) -> str:
    """Return lines as a list; empty where there are none."""
    items = "\n".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<ul>\n{items}\n</ul>\n" if items else ""


def facts_table(facts: Mapping[str, object]) -> str:
    """Return names and values."""
    rows = "\n".join(
        f"<tr><td>{_text(name)}</td><td>{_text(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return _table("", "", rows)


def _times(value: float | None) -> str:
    if value is None:
        return '<td class="figure"></td>'
    loss = " loss" if value >= _LOSS else ""
    return f'<td class="figure{loss}">{figure_of(value)}</td>'


def _table(title: str, head: str, rows: str) -> str:
    caption = f"<caption>{_text(title)}</caption>" if title else ""
    headings = f"<thead><tr>{head}</tr></thead>" if head else ""
    return (
        f'<div class="wide"><table>{caption}{headings}\n<tbody>\n{rows}\n</tbody></table></div>\n'
    )


def _text(words: str) -> str:
    return html.escape(words)
