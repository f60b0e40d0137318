"""pipelines.figures: what stands in the SVG, where it stands, and that bytes are the same twice."""

import math
import re
import sys
from itertools import pairwise
from pathlib import Path
from subprocess import run
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image

from pipelines.studies import figures
from pipelines.studies.figures import heat_map, parallel_coordinates, save, short, svg, wrapped

ROOT = Path(__file__).resolve().parents[3]
GRID = [f"{n / 10:.1f}" for n in range(11)]


def values(rows: int = 11, columns: int = 11) -> np.ndarray:
    """(R, C), best at the last cell, no two equal."""
    return 0.2 + np.arange(rows * columns).reshape(rows, columns) / 1000


def trials(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "train.lr": float(10 ** rng.uniform(-5, -2)),
            "train.batch": int(rng.choice([30, 60, 120])),
            "train.hugme.without": list(rng.choice(["head", "depth"], rng.integers(3))),
            "train.hugme.literal": bool(rng.integers(2)),
            "mAP": float(rng.uniform(0.2, 0.3)),
        }
        for _ in range(count)
    ]


def texts(figure) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg(figure)).iter("text")]


def lines(figure) -> list[np.ndarray]:
    """The (A, 2) lines of the trials, from the worst to the best."""
    found = {c.get_gid(): c for c in figure.axes[0].collections}
    return [*found["trials"].get_segments(), *found["best"].get_segments()]


# ---- two settings --------------------------------------------------------------------------


def test_heat_map_writes_every_number_and_name():
    found = texts(heat_map(values(), ("λ, loss", GRID), ("β", GRID), "mAP on val"))
    for text in ("λ, loss", "β", "mAP on val", "bold: best", *GRID):
        assert text in found
    assert [f"{v:.3f}" for v in values().ravel()] == [t for t in found if re.match(r"0\.\d{3}$", t)]


def test_heat_map_makes_the_best_number_bold():
    for maximise, best in ((True, "0.320"), (False, "0.200")):
        figure = heat_map(values(), ("x", GRID), ("y", GRID), "m", maximise=maximise)
        bold = [t.get_text() for t in figure.axes[0].texts if t.get_fontweight() == "bold"]
        assert bold == [best]
    equal = heat_map(np.full((2, 2), 0.5), ("x", ["a", "b"]), ("y", ["a", "b"]), "m")
    assert not [t for t in equal.axes[0].texts if t.get_fontweight() == "bold"]


def test_heat_map_grows_upward_and_frames_the_mark():
    figure = heat_map(values(2, 3), ("x", list("abc")), ("y", list("pq")), "m", mark=(1, 2))
    plane = figure.axes[0]
    heights = {t.get_text(): t.get_window_extent().y0 for t in plane.texts}
    assert heights["0.2050"] > heights["0.2000"]
    framed = [patch.get_xy() for patch in plane.patches]
    assert framed == [(2, 1), (2, 1)]
    assert "bold: best · framed: the paper's" in texts(figure)


def test_heat_map_hatches_what_is_missing():
    held = values(3, 3)
    held[0, 1] = held[2, 2] = np.nan
    figure = heat_map(held, ("x", list("abc")), ("y", list("abc")), "m")
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert [patch.get_xy() for patch in hatched] == [(1, 0), (2, 2)]
    text = svg(figure)
    assert text.count("<pattern") == 1 and text.count("fill: url(#figure-") == 2
    assert len(figure.axes[0].texts) == 7 and "nan" not in text.lower()
    assert "bold: best · hatched: no result" in texts(figure)


def test_heat_map_numbers_can_be_read_on_their_cells():
    figure = heat_map(values(), ("x", GRID), ("y", GRID), "m")
    mesh = figure.axes[0].collections[0]
    mesh.update_scalarmappable()
    for text, ground in zip(figure.axes[0].texts, mesh.get_facecolors(), strict=True):
        levels = []
        for colour in (to_rgb(text.get_color()), ground[:3]):
            rgb = np.asarray(colour)
            linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
            levels.append(float(linear @ [0.2126, 0.7152, 0.0722]))
        assert (max(levels) + 0.05) / (min(levels) + 0.05) >= 4.5


@pytest.mark.parametrize(
    "held",
    [
        np.array([[0.31]]),
        np.array([[np.nan]]),
        np.full((2, 3), np.nan),
        np.array([[-1e-9, 1e9], [0.0, np.inf]]),
        values(1, 15),
        values(40, 20),
    ],
)
def test_heat_map_takes_odd_grids(held):
    rows, columns = held.shape
    ticks = [f"a setting with a long name {n}" for n in range(40)]
    figure = heat_map(held, ("x", ticks[:columns]), ("y", ticks[:rows]), "m", mark=(0, 0))
    ElementTree.fromstring(svg(figure))
    assert bool(figure.axes[0].texts) == (held.size <= 225 and np.isfinite(held).any())


def test_heat_map_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"2 x 1 ticks for values of shape \(1, 2\)"):
        heat_map(values(1, 2), ("x", ["a"]), ("y", ["a", "b"]), "m")
    with pytest.raises(ValueError, match=r"mark \(1, 0\) lies outside of 1 x 2"):
        heat_map(values(1, 2), ("x", ["a", "b"]), ("y", ["a"]), "m", mark=(1, 0))


# ---- many settings -------------------------------------------------------------------------


def test_parallel_coordinates_by_hand():
    rows = [
        {"lr": 1e-5, "width": 10, "mAP": 0.1},
        {"lr": 1e-3, "width": 20, "mAP": 0.3},
        {"lr": 1e-4, "width": 40, "mAP": 0.2},
    ]
    figure = parallel_coordinates(rows, ["lr", "width"], "mAP")
    wanted = [[0, 0, 0], [0.5, 1, 0.5], [1, 1 / 3, 1]]  # lr in logarithms, width not
    found = [line[:, 1].tolist() for line in lines(figure)]
    np.testing.assert_allclose(found, wanted)
    assert {"lr", "width", "mAP", "1e−5", "1e−4", "0.001", "10", "20", "40"} <= set(texts(figure))


@pytest.mark.parametrize(("maximise", "best"), [(True, 0.3), (False, 0.1)])
def test_parallel_coordinates_draws_the_best_last_thick_and_dark(maximise, best):
    rows = [{"a": n, "m": m} for n, m in enumerate((0.2, 0.3, 0.1))]
    figure = parallel_coordinates(rows, ["a"], "m", maximise=maximise)
    found = {c.get_gid(): c for c in figure.axes[0].collections}
    last, others = found["best"], found["trials"]
    (line,) = last.get_segments()
    assert line[-1, 1] == pytest.approx((best - 0.1) / 0.2)
    assert last.get_linewidths()[0] > 2 * others.get_linewidths()[0]
    assert last.get_zorder() > others.get_zorder()
    np.testing.assert_allclose(last.get_colors()[0], colormaps["viridis"](0.0))


def test_parallel_coordinates_puts_all_but_numbers_in_order():
    rows = [
        {"p": None, "flag": True, "parts": ["head", "depth"], "text": "b", "m": 1.0},
        {"p": 0.5, "flag": False, "parts": [], "text": "a", "m": 2.0},
        {"p": 0.1, "flag": np.True_, "parts": ["head"], "text": "c", "m": 3.0},
    ]
    figure = parallel_coordinates(rows, ["p", "flag", "parts", "text"], "m")
    found = [line[:, 1].tolist() for line in lines(figure)]
    assert found == [[1, 1, 1, 0.5, 0], [0.5, 0, 0, 0, 0.5], [0, 1, 0.5, 1, 1]]
    assert {"none", "True", "False", "head, depth", "empty"} <= set(texts(figure))


def test_parallel_coordinates_leaves_failed_trials_out():
    rows = [*trials(5), {"train.lr": 99.0, "mAP": None}, {"train.lr": 99.0, "mAP": math.nan}, {}]
    figure = parallel_coordinates(rows, ["train.lr", "train.batch"], "mAP")
    assert len(lines(figure)) == 5 and "99" not in texts(figure)
    none = parallel_coordinates(rows[5:], ["train.lr"], "mAP")
    assert texts(none) == ["No trial has a result (mAP)."]


@pytest.mark.parametrize(
    ("rows", "axes"),
    [
        (trials(1), ["train.lr"]),
        (trials(1), []),
        (trials(500), ["train.lr", "train.batch", "train.hugme.without", "train.hugme.literal"]),
        ([{"a": 3, "mAP": 0.5}] * 4, ["a"]),  # equal on every axis
        ([{"a": -3, "mAP": 0.5}, {"a": 0, "mAP": 0.4}], ["a"]),
        ([{"a": math.nan, "mAP": 0.5}, {"mAP": 0.4}], ["a"]),
        ([{"a": f"text {n} " * 20, "mAP": n} for n in range(200)], ["a"]),
    ],
)
def test_parallel_coordinates_takes_odd_cases(rows, axes):
    figure = parallel_coordinates(rows, axes, "mAP")
    ElementTree.fromstring(svg(figure))
    assert np.isfinite(np.concatenate(lines(figure))).all()
    assert all(len(text) < 40 for text in texts(figure))


def test_parallel_coordinates_keeps_long_names_apart():
    names = [f"train.heads.hugme.a_rather_long_setting_name_{n}" for n in range(9)]
    rows = [dict.fromkeys(names, n) | {"mAP": n} for n in range(3)]
    figure = parallel_coordinates(rows, names, "mAP")
    figure.draw_without_rendering()
    heads = [t.get_window_extent() for t in figure.axes[0].texts if t.get_va() == "bottom"]
    assert len(heads) == 10
    for left, right in pairwise(heads):
        assert left.x1 < right.x0
    assert min(box.x0 for box in heads) >= 0 and max(box.y1 for box in heads) <= figure.bbox.y1


def test_text_is_shortened_in_the_middle_and_wrapped_at_its_seams():
    assert short("corner in diagonals", 11) == "corne…onals" and short("abc", 3) == "abc"
    assert wrapped("train.weight_decay", 12) == "train.\nweight_decay"
    assert wrapped("a.b", 12) == "a.b" and wrapped("", 5) == ""
    assert wrapped("one.two.three.four.five.six", 5) == "…\nfour.\nfive.\nsix"


# ---- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_files_have_the_same_bytes_twice(tmp_path, suffix):
    def figure():
        return heat_map(values(3, 3), ("x", list("abc")), ("y", list("abc")), "m", mark=(1, 1))

    first = figure()
    written = [
        save(drawn, tmp_path / "deep" / f"{n}{suffix}").read_bytes()
        for n, drawn in enumerate((first, first, figure()))
    ]
    assert written[0] == written[1] == written[2]
    assert not re.search(rb"Date>|/CreationDate", written[0])
    if suffix == ".png":
        with Image.open(tmp_path / "deep" / "0.png") as picture:
            assert min(picture.size) > 200


def test_another_process_draws_the_same_and_changes_nothing_global():
    held = np.arange(9.0).reshape(3, 3)
    held[1, 1] = np.nan
    code = (
        "import matplotlib; before = matplotlib.rcParams.copy();"
        "import sys, numpy as np; from numpy import nan, array;"
        "from pipelines.studies import figures;"
        f"f = figures.heat_map({held!r}, ('x', 'abc'), ('y', 'abc'), 'm', (0, 0));"
        "sys.stdout.buffer.write(figures.svg(f).encode());"
        "assert matplotlib.rcParams.copy() == before;"
        "assert not {'matplotlib.pyplot', 'torch'} & {*sys.modules}"
    )
    done = run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
    figure = heat_map(held, ("x", list("abc")), ("y", list("abc")), "m", (0, 0))
    assert done.stdout.decode() == svg(figure)


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.pdf"):
        save(parallel_coordinates([], [], "m"), tmp_path / "figure.jpg")


def test_svgs_stand_on_one_page_without_touching_each_other():
    held = values(3, 3)
    held[0, 0] = np.nan
    figure = heat_map(held, ("x", list("abc")), ("y", list("abc")), 'a "url(#b)" <i> $x$')
    one, other = svg(figure, "one", "a <title>"), svg(figure, "other")
    found = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (one, other)]
    assert found[0] and not found[0] & found[1]
    for text, ids in zip((one, other), found, strict=True):
        asked = set(re.findall(r'(?:href="|url\()#([^")]+)', re.sub(r">[^<]*<", "><", text)))
        assert asked and asked <= ids
        assert "<style" not in text and "<?xml" not in text and "http" not in text
    assert 'a "url(#b)" &lt;i&gt; $x$' in one  # as it was given, no formula
    assert 'aria-label="a &lt;title&gt;"' in one and one.startswith("<svg viewBox=")


def test_light_colours_are_not_drawn_on_white():
    shades = figures._shades([0.1, 0.2, 0.3], True)
    assert all(min(shade[:3]) < 0.35 for shade in shades)
