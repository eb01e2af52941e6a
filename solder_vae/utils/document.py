"""A document of headings, texts, tables and pictures, written as Markdown and as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from solder_vae.utils.files import atomic_file

#: Sorts a table's rows by a column: numbers first, highest first; a second click turns the order around.
SORTING = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const up = head.getAttribute("aria-sort") === "descending";
  const key = row => { const n = parseFloat(row.cells[column].textContent); return isNaN(n) ? null : n; };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return x !== null ? -1 : y !== null ? 1
      : (up ? 1 : -1) * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
    return up ? x - y : y - x;
  };
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...[...body.rows].sort(compare));
};
"""

#: The template's classes of verdicts.
OF_VERDICT = {"holds": "holds", "does not hold": "fails", "not shown": "open"}

_NARROW = 9  # columns that fit a page of 1280 pixels in full size

TEMPLATES = Path(__file__).with_name("templates")


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    text: str


class Bullets(NamedTuple):
    """A list. An item's kind, if any, is one of the template's classes, which colours the item."""

    items: Sequence[tuple[str, str]]  # kind, text


class Table(NamedTuple):
    """A table whose first column names the rows. A cell may have lines; a verdict in its first one colours it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    sortable: bool = False  # in the page, by a click on a heading


class Picture(NamedTuple):
    path: Path
    caption: str


class Code(NamedTuple):
    """Preformatted text, folded away under a title that opens it."""

    title: str
    text: str


Block = Heading | Text | Bullets | Table | Picture | Code


def write_document(folder: Path, title: str, blocks: Sequence[Block]) -> None:
    """Write ``report.md`` and ``report.html`` into a folder."""
    for name, content in (("report.md", to_markdown(title, blocks)), ("report.html", to_html(title, blocks))):
        with atomic_file(folder / name) as path:
            path.write_text(content, encoding="utf-8")


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Pictures are linked by name: they lie beside the file."""
    return "\n\n".join([f"# {title}", *map(_markdown, blocks)]) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {text}"
        case Text(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {text}" for _, text in items)
        case Table(header, rows, _):
            return markdown(header, rows).rstrip()
        case Picture(path, caption):
            return f"![{caption}]({path.name})\n\n*{caption}*"
        case Code(title, text):
            return f"{title}:\n\n" + "\n".join(f"    {line}" for line in text.splitlines())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text."""
    lines = [[cell.replace("|", r"\|").replace("\n", ": ") for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(map(str.ljust, line, widths))} |\n" for line in lines)


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One page that loads nothing; every text is escaped."""
    body, inside = [], False
    for block in blocks:
        if isinstance(block, Heading):
            body.append("</section>" * inside + f"<section><h2>{html.escape(block.text)}</h2>")
            inside = True
        else:
            body.append(_html(block))
    body.append("</section>" * inside)
    script = SORTING if any(isinstance(block, Table) and block.sortable for block in blocks) else ""
    if script:
        body.append(f"<script>{script}</script>")
    # The page may run this one script and no other, whatever its texts hold.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (TEMPLATES / "document.html").read_text(encoding="utf-8").replace("@TITLE@", html.escape(title))
    page = page.replace("@SCRIPTS@", f"'sha256-{digest}'" if script else "'none'")
    return page.replace("@BODY@", "\n".join(body))


def fill_page(name: str, data: dict[str, Any]) -> str:
    """A template whose script makes the page of one JSON object. It puts every text in as text, never as HTML."""
    # "<" could end the script element or open a comment in it.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")
    return (TEMPLATES / name).read_text(encoding="utf-8").replace("@DATA@", text)


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Bullets(items):
            lines = (f'<li class="{html.escape(kind)}">{html.escape(text)}</li>' for kind, text in items)
            return f"<ul>{''.join(lines)}</ul>"
        case Table(header, rows, sortable):
            head = "".join(f'<th scope="col">{_heading(cell, sortable)}</th>' for cell in header)
            wide = ' class="wide"' * (len(header) > _NARROW)
            return (
                f'<div class="scroll" tabindex="0"><table{wide}>'
                f"<thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table></div>"
            )
        case Picture(path, caption):
            data = base64.b64encode(path.read_bytes()).decode()
            text = html.escape(caption)
            return (
                f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
            )
        case Code(title, text):
            return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"


def _row(cells: Sequence[str]) -> str:
    name, *others = (html.escape(cell) for cell in cells)
    return (
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td class="{_kind(cell)}">{cell}</td>' for cell in others)
        + "</tr>"
    )


def _heading(cell: str, sortable: bool) -> str:
    return f"<button>{html.escape(cell)}</button>" if sortable and cell else html.escape(cell)


def _kind(cell: str) -> str:
    """The class of a cell whose first line begins with a verdict, or whose second says that it is the best."""
    first, _, rest = cell.partition("\n")
    return "best" if rest.startswith("best") else OF_VERDICT.get(first.partition(",")[0], "")
