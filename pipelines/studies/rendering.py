"""One table as Markdown, LaTeX, HTML and CSV. Cells are text already: nothing is rounded here.
Rows of values, to be computed with, as Parquet and CSV."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cache.files import write_atomic

WIDE = 12  # columns; a table of more is shrunk in LaTeX and has upright headings in HTML

# What LaTeX reads as a command, an argument or a ligature, and signs its fonts lack.
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    # After the end of a row, [ and * would be an argument of it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "\0": "{}",  # set between two hyphens, which would become one dash
    "\n": " ",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "\N{NO-BREAK SPACE}": "~",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "√": r"$\surd$",
    "∞": r"$\infty$",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "°": r"$^\circ$",
    "²": "$^2$",
    "³": "$^3$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "η": r"$\eta$",
    "θ": r"$\theta$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "φ": r"$\varphi$",
    "ω": r"$\omega$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
}


@dataclass(frozen=True)
class Table:
    """A table of text. The first column is set left, the others right.

    Raises ValueError for a name that is no file stem, a row of another length than `columns`, and
    a group that is no row.
    """

    name: str  # file stem and LaTeX label, e.g. "table1"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]  # "" where there is nothing
    notes: Sequence[str] = ()  # below the table, a sentence each
    groups: Sequence[int] = ()  # numbers of the rows that have a rule above them

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise ValueError(f"A table's name is of letters, digits, . _ and -, not {self.name!r}.")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.name}, row {number}: {len(row)} cells for {len(self.columns)} columns."
                )
        for number in self.groups:
            if not 0 <= number < len(self.rows):
                raise ValueError(f"{self.name}: group at row {number} of {len(self.rows)} rows.")


# ---- Markdown ------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """A GitHub pipe table under its title in bold; rules between groups are not to be had there."""
    lines = [[_marked(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(4, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        f":{'-' * (width - 1)}" if number == 0 else f"{'-' * (width - 1)}:"
        for number, width in enumerate(widths)
    ]
    padded = [
        [
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    pipes = [f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])]
    said = [f"**{_marked(table.title)}**", "\n".join(pipes), *map(_marked, table.notes)]
    return "\n\n".join(said) + "\n"


def _marked(text: str) -> str:
    """Text that GitHub shows as it is. An underscore within a word is safe and stays readable, as
    does an ampersand that begins no entity."""
    line = " ".join(text.split())
    return re.sub(r"([\\|<*`~$[]|&(?=[#\w])|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line)


# ---- LaTeX ---------------------------------------------------------------------------------


def latex(table: Table) -> str:
    """A table environment that needs booktabs, and graphicx where there are many columns."""
    wide = len(table.columns) > WIDE
    body = [
        (r"\midrule" + "\n" if number and number in table.groups else "") + _row(row)
        for number, row in enumerate(table.rows)
    ]
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{_escaped(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        _row(table.columns),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}" + ("%" if wide else ""),
        *(["}"] if wide else []),
    ]
    if table.notes:
        lines += [
            r"\par\smallskip",
            r"\begin{minipage}{\textwidth}\footnotesize",
            " \\\\\n".join(map(_escaped, table.notes)),
            r"\end{minipage}",
        ]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    parted = re.sub("-(?=-)", "-\0", text)
    return "".join(_LATEX.get(sign, sign) for sign in parted)


# ---- HTML and CSV --------------------------------------------------------------------------


def html(table: Table) -> str:
    """A <table> in a box that scrolls by itself, with the notes below; `study.html` dresses it."""
    many = " many" if len(table.columns) > WIDE else ""
    heads = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in table.columns)
    rows = []
    for number, row in enumerate(table.rows):
        first = "".join(f'<th scope="row">{escape(cell)}</th>' for cell in row[:1])
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        ruled = ' class="rule"' if number in table.groups and number else ""
        rows.append(f"<tr{ruled}>{first}{cells}</tr>")
    notes = "".join(f"\n<p>{escape(note)}</p>" for note in table.notes)
    title = escape(table.title)
    # The caption stands outside the box, or it would be as wide as the table and scroll away.
    return "\n".join(
        [
            f'<div class="table{many}" id="{table.name}">',
            f'<h3 id="{table.name}-title">{title}</h3>',
            f'<div class="box" role="region" aria-labelledby="{table.name}-title" tabindex="0">',
            f'<table aria-labelledby="{table.name}-title">',
            f"<thead><tr>{heads}</tr></thead>",
            "<tbody>",
            *rows,
            "</tbody></table></div>",
            f'<div class="notes">{notes}</div></div>' if notes else "</div>",
        ]
    )


def write_csv(table: Table, path: Path) -> Path:
    """Columns and rows, without title and notes, in UTF-8."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    write_atomic(path, text.getvalue().encode())
    return path


# ---- rows of values ------------------------------------------------------------------------


def plain_cell(value: Any) -> Any:
    """What a column of values can hold: a list is its text."""
    return value if isinstance(value, int | float | str | None) else str(value)


def write_rows(rows: Sequence[Mapping[str, Any]], folder: Path, name: str) -> None:
    """<name>.parquet and <name>.csv. A column that mixes numbers and words is of words."""
    columns: dict[str, pa.Array] = {}
    for column in dict.fromkeys(column for row in rows for column in row):
        values = [row.get(column) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and not kinds <= {int, float}:
            values = [None if value is None else str(value) for value in values]
        elif kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        columns[column] = pa.array(values, pa.string() if not kinds else None)
    table = pa.table(columns)
    for ending, write in (("parquet", pq.write_table), ("csv", pyarrow.csv.write_csv)):
        sink = pa.BufferOutputStream()
        write(table, sink)
        write_atomic(folder / f"{name}.{ending}", sink.getvalue().to_pybytes())
