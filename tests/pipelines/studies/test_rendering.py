"""pipelines.rendering: a table in four forms, each read back by a reader that is not ours."""

import csv
import re
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.studies.rendering import (
    Table,
    html,
    latex,
    markdown,
    plain_cell,
    write_csv,
    write_rows,
)

EVIL = "<script>alert('x')</script>"
TABLE = Table(
    "table_1",
    "Ablations & 95 % intervals, λ = 0.8",
    ["Method", "mAP, %", "a|b", "Δ_x → y"],
    [
        ["HugMe", "31.47", "30.9 ± 0.3", "−0.57"],
        ["w/o co_occurrence [graph]", "", "50 % & $5 #1", "{y} ~z ^2 \\"],
        [EVIL, "30–31", "--set train.lr", "α ≥ β × 2 …"],
    ],
    ["Published: 7,203 persons.", f"Ours: {EVIL}"],
    groups=[1],
)
SIGNS = st.text("ab1 |\\<>*_`&~[]()#$%{}^-'\"λ−…±", max_size=12).map(lambda s: " ".join(s.split()))


def wide(columns: int) -> Table:
    return Table("wide", "Labels", [f"c{n}" for n in range(columns)], [["1.0"] * columns] * 2)


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="row 1: 1 cells for 2 columns"):
        Table("t", "", ["a", "b"], [["1", "2"], ["1"]])
    with pytest.raises(ValueError, match="group at row 1 of 1"):
        Table("t", "", ["a"], [["1"]], groups=[1])
    with pytest.raises(ValueError, match=r"not 'a/b'"):
        Table("a/b", "", ["a"], [])


# ---- Markdown ------------------------------------------------------------------------------


def test_markdown_is_read_back_by_splitting():
    title, lines, *notes = markdown(TABLE).strip().split("\n\n")
    assert title == "**Ablations & 95 % intervals, λ = 0.8**"
    assert notes[0] == "Published: 7,203 persons." and len(notes) == 2
    lines = lines.split("\n")
    assert len({len(line) for line in lines}) == 1  # columns stand below each other
    cells = [
        [re.sub(r"\\([^\w\s])", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in (lines[0], *lines[2:])
    ]
    assert cells == [list(TABLE.columns), *map(list, TABLE.rows)]
    assert re.fullmatch(r"\| :-+ \|( -+: \|){3}", lines[1])
    assert "co_occurrence" in lines[3]  # readable: nothing is escaped that need not be


@given(st.lists(SIGNS, min_size=3, max_size=3))
@settings(max_examples=60)
def test_markdown_shows_any_text_as_it_is(cells):
    reader = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    shown = Cells(reader.render(markdown(Table("t", "Title", ["x", "y", "z"], [cells]))))
    assert shown.rows[1] == cells
    assert shown.tags.count("script") == 0


# ---- LaTeX ---------------------------------------------------------------------------------


def depth(text: str) -> int:
    """Braces that are open at the end; never fewer than none on the way."""
    open_ = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", text):
        open_ += 1 if brace == "{" else -1
        assert open_ >= 0
    return open_


def body(text: str) -> list[str]:
    """The lines of a tabular between its rules."""
    return text.split("\\toprule\n")[1].split("\\bottomrule")[0].splitlines()


def test_latex_escapes_what_it_must():
    text = latex(TABLE)
    assert depth(text) == 0
    heads, rule, *rows = body(text)
    assert heads == r"Method & mAP, \% & a\textbar{}b & $\Delta$\_x $\rightarrow$ y \\"
    assert rule == r"\midrule"
    assert rows == [
        r"HugMe & 31.47 & 30.9 $\pm$ 0.3 & $-$0.57 \\",
        r"\midrule",
        r"w/o co\_occurrence {[}graph{]} &  & 50 \% \& \$5 \#1 & "
        r"\{y\} \textasciitilde{}z \textasciicircum{}2 \textbackslash{} \\",
        r"\textless{}script\textgreater{}alert('x')\textless{}/script\textgreater{} & 30--31 & "
        r"-{}-set train.lr & $\alpha$ $\geq$ $\beta$ $\times$ 2 \ldots{} \\",
    ]
    assert r"\caption{Ablations \& 95 \% intervals, $\lambda$ = 0.8}" in text
    assert r"\label{tab:table_1}" in text
    notes = text.split(r"\footnotesize")[1]
    assert "Published: 7,203 persons. \\\\\nOurs: \\textless{}" in notes
    assert text.isascii()


@given(st.lists(SIGNS, min_size=3, max_size=3))
@settings(max_examples=60)
def test_latex_of_any_text_keeps_rows_and_braces(cells):
    row = body(latex(Table("t", "Title", ["x", "y", "z"], [cells])))[-1]
    assert depth(row) == 0
    assert row.endswith(r" \\") and len(re.findall(r"(?<!\\)&", row)) == 2
    assert len(re.findall(r"(?<!\\)\$", row)) % 2 == 0
    assert not re.search(r"(?<!\\)[#%]|[~^\"<>|`]|---?(?!-)", row.replace(r"\^", ""))
    assert not re.match(r"[\[*]", row)


def test_latex_shrinks_a_wide_table_only():
    assert "resizebox" not in latex(wide(12))
    text = latex(wide(13))
    assert "\\resizebox{\\textwidth}{!}{%\n\\begin{tabular}{lrrrrrrrrrrrr}\n" in text
    assert "\\end{tabular}%\n}\n" in text and depth(text) == 0
    assert "footnotesize" not in text  # no notes


# ---- HTML and CSV --------------------------------------------------------------------------


class Cells(HTMLParser):
    """The cells of each row, every tag, and the classes of the rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.classes: list[str | None] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.classes.append(dict(attrs).get("class"))
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_html_is_read_back_and_runs_nothing():
    text = html(TABLE)
    found = Cells(text)
    assert found.rows == [list(TABLE.columns), *map(list, TABLE.rows)]
    assert "script" not in found.tags and "&lt;script&gt;" in text
    assert found.classes == [None, None, "rule", None]
    assert text.count("<div") == text.count("</div>") and text.count("<p>") == 2
    assert "Ablations &amp; 95 % intervals" in text


def test_html_of_a_wide_table_has_upright_headings():
    assert 'class="table many"' in html(wide(26)) and 'class="table"' in html(wide(12))


def test_csv_is_read_back(tmp_path):
    path = write_csv(TABLE, tmp_path / "deep" / "table_1.csv")
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [list(TABLE.columns), *map(list, TABLE.rows)]
    assert b"\r" not in path.read_bytes()


def test_a_table_without_rows_is_still_one():
    bare = Table("bare", "Nothing yet", ["a", "b"], [])
    assert markdown(bare).count("|") == 6
    assert depth(latex(bare)) == 0
    assert Cells(html(bare)).rows == [["a", "b"]]


def test_rows_have_a_type_for_each_column(tmp_path):
    rows = [
        {"whole": 1, "number": 1, "mixed": 1, "none": None, "list": plain_cell([1, "a"])},
        {"whole": 2, "number": 0.5, "mixed": "auto", "none": None, "late": "x"},
    ]
    write_rows(rows, tmp_path / "deep", "rows")
    table = pq.read_table(tmp_path / "deep" / "rows.parquet")
    assert list(map(str, table.schema.types)) == ["int64", "double", *["string"] * 4]
    assert table["mixed"].to_pylist() == ["1", "auto"]
    assert table["list"].to_pylist() == ["[1, 'a']", None]
    text = (tmp_path / "deep" / "rows.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    assert [line["late"] for line in lines] == ["", "x"] and lines[1]["number"] == "0.5"


def test_a_write_that_fails_leaves_the_old_rows(tmp_path, monkeypatch):
    write_rows([{"a": 1}], tmp_path, "rows")
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(table, sink):
        sink.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("pyarrow.csv.write_csv", full)
    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        write_rows([{"a": 2}], tmp_path, "rows")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
