"""Figures of sweeps, tuning and fits: a heat map of two settings, parallel coordinates of many,
curves, differences with their intervals.

Drawn by matplotlib's objects, without pyplot: nothing global changes. The same data give the same
bytes on the same matplotlib, so that DVC and git see a change only where there is one. Text in an
SVG stays text. Figures have a white ground, in print and on a dark page.
"""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO, StringIO
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cache.files import write_atomic
from pipelines.report.charts import ticks

NUMBERED = 225  # cells of a heat map up to which each has its number written in
_INK, _SOFT, _LINE = "#1d1c1a", "#66635d", "#b9b5ac"  # as in templates/report.html
_LOOK: dict[Any, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "hatch.linewidth": 0.8,
    "text.usetex": False,
    "text.parse_math": False,  # a $ in the name of a setting is a $
    "svg.fonttype": "none",
    "svg.hashsalt": "emocache",
    "pdf.fonttype": 42,
    "path.simplify": False,
}
_FEW_POINTS = 4  # of a line, below which each is a dot
_STROKES = (("#275fae", "-"), ("#b4481d", "--"), ("#66635d", ":"))  # colour and dash of a line
_HATCH: dict[str, Any] = {"hatch": "////", "lw": 0}  # a cell without a result
_EVERY = 8  # different values up to which an axis names each
_APART = 0.045  # least distance of two names on an axis, as a share of its height


# ---- two settings --------------------------------------------------------------------------


def heat_map(
    values: np.ndarray,
    x: tuple[str, Sequence[str]],
    y: tuple[str, Sequence[str]],
    measure: str,
    mark: tuple[int, int] | None = None,
    maximise: bool = True,
) -> Figure:
    """A measure over two settings; row 0 is the lowest, as y grows upward.

    `values` is (R, C) with NaN where there is no result, `x` and `y` are the name of an axis with
    its C or R ticks, and `mark` is the (row, column) of a cell to frame, e.g. the paper's choice.
    The best number is bold, or a dot where there are too many cells for numbers.

    Raises ValueError when the ticks do not fit the values, and for a mark outside of them.
    """
    values = np.asarray(values, dtype=float)
    if values.shape != (len(y[1]), len(x[1])) or not values.size:
        raise ValueError(f"{len(y[1])} x {len(x[1])} ticks for values of shape {values.shape}.")
    rows, columns = values.shape
    if mark is not None and not (0 <= mark[0] < rows and 0 <= mark[1] < columns):
        raise ValueError(f"The mark {mark} lies outside of {rows} x {columns} cells.")
    known = np.isfinite(values)
    numbers = _numbers(values)
    numbered = values.size <= NUMBERED
    longest = max(len(text) for row in numbers for text in row)
    width = max(0.42, 0.075 * longest + 0.12) if numbered else min(0.42, 8 / columns)
    height = 0.34 if numbered else min(0.34, 6 / rows)
    with matplotlib.rc_context(_LOOK):
        size = max(2.2, width * columns) + 1.9, max(1.3, height * rows) + 1.1
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        colours = _colours(values[known])
        axes.pcolormesh(
            np.ma.masked_invalid(values),
            vmin=colours.get_clim()[0],
            vmax=colours.get_clim()[1],
            cmap=colours.cmap,
            # without lines of their own colour, white hairs would show between cells
            edgecolors="white" if numbered else "face",
            linewidth=0.6 if numbered else 0.3,
        )
        for row, column in np.argwhere(~known).tolist():
            axes.add_patch(Rectangle((column, row), 1, 1, fc="#ececea", ec="#a5a29b", **_HATCH))
        best = _best(values, maximise)
        if numbered:
            _write_numbers(axes, values, numbers, best, colours)
        else:
            for row, column in np.argwhere(best).tolist():
                axes.plot(column + 0.5, row + 0.5, "o", ms=4, mfc="white", mec="black", mew=0.8)
        if mark is not None:
            # black on white can be told from every colour of the map
            for colour, line in (("white", 3.6), ("black", 1.6)):
                axes.add_patch(
                    Rectangle(mark[::-1], 1, 1, fill=False, ec=colour, lw=line, zorder=4)
                )
        _name_cells(axes, x, y, width)
        if known.any():
            bar = figure.colorbar(colours, ax=axes, pad=0.02, aspect=24)
            bar.set_label(measure)
            bar.outline.set_visible(False)
        key = _key(bool(best.any()), numbered, mark is not None, not bool(known.all()))
        if key:
            axes.set_title(key, loc="left", fontsize=8, color=_SOFT)
        return _settled(figure)


def _numbers(values: np.ndarray) -> list[list[str]]:
    """Each value with as many digits as tell the values apart by a hundredth of their span."""
    known = values[np.isfinite(values)]
    span = float(np.ptp(known)) if known.size else 0.0
    digits = min(max(2 - math.floor(math.log10(span)), 0), 4) if span > 0 else 2
    form = f".{digits}f" if not known.size or abs(known).max() < 1e6 else ".3g"
    return [
        [f"{value:{form}}".replace("-", "−") if math.isfinite(value) else "" for value in row]
        for row in values.tolist()
    ]


def _colours(known: np.ndarray) -> ScalarMappable:
    """Viridis over the span of the values: its order shows without colour vision and in grey.
    64 steps, since an SVG holds every one of the colour bar."""
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low == high:
        slack = abs(low) * 0.01 or 0.01
        low, high = low - slack, high + slack
    return ScalarMappable(Normalize(low, high), colormaps["viridis"].resampled(64))


def _best(values: np.ndarray, maximise: bool) -> np.ndarray:
    """Where the best value stands, more than once if it was reached more than once; nowhere if
    all are equal."""
    known = values[np.isfinite(values)]
    if not known.size or known.min() == known.max():
        return np.zeros(values.shape, dtype=bool)
    return values == (known.max() if maximise else known.min())


def _write_numbers(
    axes: Axes,
    values: np.ndarray,
    numbers: Sequence[Sequence[str]],
    best: np.ndarray,
    colours: ScalarMappable,
) -> None:
    for row, column in np.argwhere(np.isfinite(values)).tolist():
        axes.text(
            column + 0.5,
            row + 0.5,
            numbers[row][column],
            ha="center",
            va="center_baseline",
            fontsize=8,
            fontweight="bold" if best[row, column] else "normal",
            color=_on(colours.to_rgba(values[row, column])),
        )


def _on(ground: np.ndarray | Sequence[float]) -> str:
    """Black or white, whichever has more contrast on a colour (WCAG 2)."""
    rgb = np.asarray(ground[:3])
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _name_cells(
    axes: Axes, x: tuple[str, Sequence[str]], y: tuple[str, Sequence[str]], width: float
) -> None:
    """Ticks at the middle of the cells: of many, every so many."""
    axes.set_xlabel(x[0])
    axes.set_ylabel(y[0])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    every = [max(1, math.ceil(len(names) / 30)) for _, names in (x, y)]
    shown = [short(name, 24) for name in x[1][:: every[0]]]
    upright = max(map(len, shown)) * 0.08 > width * every[0]
    axes.set_xticks(
        np.arange(0, len(x[1]), every[0]) + 0.5,
        shown,
        rotation=90 if upright else 0,
    )
    axes.set_yticks(
        np.arange(0, len(y[1]), every[1]) + 0.5,
        [short(name, 24) for name in y[1][:: every[1]]],
    )


def _key(best: bool, numbered: bool, marked: bool, missing: bool) -> str:
    said = [
        (best, "bold: best" if numbered else "dot: best"),
        (marked, "framed: the paper's"),
        (missing, "hatched: no result"),
    ]
    return " · ".join(text for there, text in said if there)


# ---- many settings -------------------------------------------------------------------------


def parallel_coordinates(
    rows: Sequence[Mapping[str, Any]],
    axes: Sequence[str],
    measure: str,
    maximise: bool = True,
) -> Figure:
    """A line a trial through its settings to its measure: the darker, the better; the best is drawn
    last and thick.

    `rows` hold a value for each setting of `axes`, and `measure`; a trial without the measure, or
    with NaN, failed and is left out. Numbers stand on a linear axis, or on a logarithmic one if
    all are above 0 and the largest is more than 50 times the least. Texts, lists, truth values,
    and numbers mixed with None stand in sorted order at even distances.
    """
    done = [row for row in rows if _is_number(row.get(measure))]
    # from the worst to the best: the best line lies on top
    done.sort(key=lambda row: float(row[measure]) * (1 if maximise else -1))
    names = [*axes, measure]
    gap = min(max(9.6 / len(names), 0.95), 1.7)
    letters = int(gap * 72 / 5.2)  # of size 8 that fit between two axes
    heads = [wrapped(name, letters) for name in names]
    top = 0.35 + 0.135 * max(head.count("\n") + 1 for head in heads)  # inches
    size = gap * (len(names) - 1) + 1.9, top + 3.7
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=size)
        left, right = 0.75 / size[0], 1 - 1.15 / size[0]
        low, high = 0.25 / size[1], 1 - top / size[1]
        plane = figure.add_axes((left, low, right - left, high - low))
        plane.set_axis_off()
        plane.set_xlim(0, max(len(names) - 1, 1))
        plane.set_ylim(0, 1)
        if not done:
            said = f"No trial has a result ({short(measure, 60)})."
            plane.text(0.5, 0.5, said, ha="center", color=_SOFT, transform=plane.transAxes)
            return figure
        scales = [_placed([row.get(name) for row in done], letters - 4) for name in names]
        places = np.array([scale[0] for scale in scales]).T  # (trials, axes)
        last = len(names) - 1
        colours = _shades([float(row[measure]) for row in done], maximise)
        lines = [np.column_stack([range(len(names)), place]) for place in places]
        plane.add_collection(
            LineCollection(
                lines[:-1],
                colors=colours[:-1],
                linewidths=1.3 if len(lines) <= 100 else 0.9,
                alpha=0.85 if len(lines) <= 100 else 0.5,
                clip_on=False,
                gid="trials",
            )
        )
        plane.vlines(range(last), 0, 1, color=_SOFT, lw=0.9, clip_on=False, zorder=3)
        order = np.argsort(places[:, -1], kind="stable")
        _draw_strip(plane, last, places[order, -1], [colours[at] for at in order])
        for name, colour, width in (("ground", "white", 5.4), ("best", colours[-1], 3.2)):
            plane.add_collection(
                LineCollection(
                    lines[-1:], colors=[colour], linewidths=width, clip_on=False, zorder=4, gid=name
                )
            )
        _name_axes(plane, heads, [marks for _, marks in scales], gap)
        return figure


def _name_axes(
    plane: Axes, heads: Sequence[str], scales: Sequence[Sequence[tuple[str, float]]], gap: float
) -> None:
    """Above each axis its name, the measure's bold, and beside it those of its values."""
    ground = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
    for number, (head, marks) in enumerate(zip(heads, scales, strict=True)):
        weight = "bold" if number == len(heads) - 1 else "normal"
        plane.text(number, 1.045, head, ha="center", va="bottom", fontsize=8, fontweight=weight)
        for text, place in marks:
            x = number + 0.07 * 1.4 / gap
            plane.text(x, place, text, va="center", fontsize=7.5, zorder=5, bbox=ground)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, Real)
        and not isinstance(value, bool | np.bool_)
        and math.isfinite(float(value))
    )


def _placed(values: Sequence[Any], letters: int) -> tuple[list[float], list[tuple[str, float]]]:
    """Where each value stands on an axis from 0 to 1, and the names along the axis."""
    if not all(map(_is_number, values)):
        return _categories(values, letters)
    numbers = [float(value) for value in values]
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high / low > 50

    def place(value: float) -> float:
        if low == high:
            return 0.5
        if logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    different = sorted(set(numbers))
    if len(different) <= _EVERY:
        named = different
    elif logarithmic:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        named = [low, high, *(10.0**power for power in powers)]
    else:
        named = [low, high, *ticks(low, high)]
    marks = [(_brief(value), place(value)) for value in named]
    return [place(number) for number in numbers], _apart(marks)


def _categories(values: Sequence[Any], letters: int) -> tuple[list[float], list[tuple[str, float]]]:
    """Numbers by value, then all else by its text."""
    order = sorted(
        {_said(value): value for value in values}.items(),
        key=lambda item: (0, float(item[1]), "") if _is_number(item[1]) else (1, 0.0, item[0]),
    )
    if len(order) == 1:
        places = {order[0][0]: 0.5}
    else:
        places = {text: number / (len(order) - 1) for number, (text, _) in enumerate(order)}
    marks = [(short(text, letters), place) for text, place in places.items()]
    return [places[_said(value)] for value in values], _apart(marks)


def _said(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value)) or "empty"
    return _brief(float(value)) if _is_number(value) else str(value)


def _brief(value: float) -> str:
    """Four digits, and 1.03e−5 in place of 1.034e-05."""
    if 0 < abs(value) < 1e-3 or abs(value) >= 1e5:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def _apart(marks: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The marks, in this order of rank, that stand clear of those before them."""
    kept: list[tuple[str, float]] = []
    for mark in marks:
        if all(abs(mark[1] - other) >= _APART for _, other in kept):
            kept.append(mark)
    return kept


def _shades(values: Sequence[float], maximise: bool) -> list[Any]:
    """Viridis from its dark end for the best to a green that can still be seen on white."""
    low, high = min(values), max(values)
    return [
        colormaps["viridis"](0.85 * ((high - value) if maximise else (value - low)) / (high - low))
        if low < high
        else colormaps["viridis"](0.25)
        for value in values
    ]


def _draw_strip(plane: Axes, at: int, places: np.ndarray, colours: Sequence[Any]) -> None:
    """The last axis in the colours of the lines that end on it."""
    if places[0] == places[-1]:
        plane.vlines(at, 0, 1, color=colours[0], lw=5, clip_on=False, zorder=3)
        return
    edges = np.linspace(0, 1, 65)
    # each reaches under the next, or white hairs would show between them
    parts = [[(at, low), (at, min(high + 0.01, 1))] for low, high in pairwise(edges.tolist())]
    shade = [
        tuple(
            np.interp(middle, places, [colour[channel] for colour in colours])
            for channel in range(3)
        )
        for middle in (edges[:-1] + 1 / 128)
    ]
    plane.add_collection(LineCollection(parts, colors=shade, linewidths=5, clip_on=False, zorder=3))


# ---- text that fits ------------------------------------------------------------------------


def short(text: str, letters: int) -> str:
    """At most so many letters: of a longer text both ends, since settings differ in either."""
    text = " ".join(text.split())
    letters = max(letters, 3)
    if len(text) <= letters:
        return text
    end = (letters - 1) // 2
    return f"{text[: letters - 1 - end]}…{text[len(text) - end :]}"


def wrapped(name: str, letters: int, lines: int = 4) -> str:
    """A name on up to so many lines, broken behind a dot, underscore, hyphen, slash or space. Of a
    longer one the end is kept: in train.hugme.beta it says the most."""
    kept = [""]
    for part in re.findall(r"[^._\-/ ]+[._\-/ ]*|[._\-/ ]+", name):
        if kept[-1] and len(kept[-1]) + len(part.rstrip()) > letters:
            kept.append("")
        kept[-1] += part
    if len(kept) > lines:
        kept = ["…", *kept[1 - lines :]]
    return "\n".join(short(line, letters) for line in kept)


# ---- curves --------------------------------------------------------------------------------


def curves(
    planes: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], across: str
) -> Figure:
    """A plane beside the other for each name, with lines of (x, y) by name; `across`: what x is.
    Lines of one name have one colour, and their names stand once, above."""
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(3.1 * len(planes), 2.7), layout="constrained")
        names = list(dict.fromkeys(name for lines in planes.values() for name in lines))
        drawn: dict[str, Any] = {}
        for plane, (title, lines) in zip(
            figure.subplots(1, len(planes), squeeze=False)[0], planes.items(), strict=True
        ):
            for name, points in lines.items():
                x, y = zip(*points, strict=True)
                colour, dash = _STROKES[names.index(name) % len(_STROKES)]
                dot = "o" if len(points) < _FEW_POINTS else None
                (drawn[name],) = plane.plot(x, y, dash, color=colour, lw=1.5, marker=dot, ms=4)
            plane.set_title(title, fontsize=9)
            plane.set_xlabel(across)
            plane.xaxis.set_major_locator(MaxNLocator(integer=True))
            plane.spines[["top", "right"]].set_visible(False)
        figure.legend(
            drawn.values(), drawn, loc="outside upper left", ncols=len(drawn), frameon=False
        )
        return _settled(figure)


# ---- differences ---------------------------------------------------------------------------


def differences(
    rows: Sequence[tuple[str, float, float, float]], across: str, more: bool = True
) -> Figure:
    """A dot and a line a row, from the top: (name, difference, low, high) about 0, which is drawn;
    `across`: what is differed in. Rows whose interval leaves out 0 are filled, better ones in blue,
    worse ones in red; all others are hollow. A row without an interval has no line, and one whose
    difference is NaN is named alone. more: whether more is better."""
    with matplotlib.rc_context(_LOOK):
        letters = max((len(short(row[0], 32)) for row in rows), default=1)
        figure = Figure(
            figsize=(4.6 + 0.07 * letters, 0.9 + 0.2 * max(len(rows), 1)), layout="constrained"
        )
        plane = figure.add_subplot()
        plane.axvline(0, color=_SOFT, lw=1, gid="zero")
        for at, (_, difference, low, high) in enumerate(rows):
            if not math.isfinite(difference):
                continue
            known = math.isfinite(low) and math.isfinite(high)
            sure = known and (low > 0 or high < 0)
            colour = _STROKES[0 if (difference > 0) == more else 1][0] if sure else _SOFT
            if known:
                plane.plot([low, high], [at, at], color=colour, lw=1.5, solid_capstyle="butt")
            face = colour if sure else "white"
            plane.plot(difference, at, "o", ms=5, mfc=face, mec=colour, gid=f"row{at}")
        plane.set_ylim(len(rows) - 0.4, -0.6)
        plane.set_yticks(range(len(rows)), [short(row[0], 32) for row in rows])
        plane.grid(axis="x", color="#e2dfd8", lw=0.6)
        plane.set_axisbelow(True)
        plane.tick_params(length=0)
        plane.set_xlabel(across)
        plane.spines[["top", "right", "left"]].set_visible(False)
        return _settled(figure)


# ---- files ---------------------------------------------------------------------------------


def _settled(figure: Figure) -> Figure:
    """Lay the figure out once: a layout found anew at each drawing may move by fractions."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def svg(figure: Figure, prefix: str = "figure", title: str = "") -> str:
    """<svg> to stand within a page: sized by its `style`, its ids begin with `prefix`, which must
    differ on one page, and its rules are its own. `title` is read out instead of the picture."""
    with matplotlib.rc_context(_LOOK):
        file = StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # Its rule for all elements would reach the whole page; all of them inherit it as well.
    rule = re.search(r"<style[^>]*>\*\{([^}]*)\}</style>", text)
    assert rule is not None
    text = text.replace(rule[0], "")
    width, height = (round(96 * inches) for inches in figure.get_size_inches().tolist())
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    look = f"width:100%;min-width:{min(width, 720)}px;max-width:{width}px;height:auto;{rule[1]}"
    said = f' aria-label="{escape(title)}"' if title else ""
    head = f'<svg {box[0]} width="{width}" height="{height}" style="{look}" role="img"{said}>'

    def own(tag: re.Match[str]) -> str:
        found = tag[0].replace("xlink:href=", "href=")
        found = re.sub(r'\b(id="|href="#)', rf"\g<1>{prefix}-", found)
        return found.replace("url(#", f"url(#{prefix}-")

    body = re.sub(r"<[^>]*>", own, text[text.index(">") + 1 :])
    return head + body


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as the .svg, .png or .pdf that `path` names, without date or author.

    Raises ValueError for another suffix.
    """
    metadata: dict[str, dict[str, None]] = {
        ".svg": {"Date": None},
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None},
    }
    if path.suffix not in metadata:
        raise ValueError(f"{path}: a figure is written as {', '.join(metadata)}.")
    file = BytesIO()
    with matplotlib.rc_context(_LOOK):
        figure.savefig(file, format=path.suffix[1:], dpi=150, metadata=metadata[path.suffix])
    write_atomic(path, file.getvalue())
    return path
