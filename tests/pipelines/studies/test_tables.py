"""pipelines.studies.paper and tables: the rows of the papers, their numbers, and their words."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from cache.errors import DataError, SettingsError
from cache.statuses import STATUS
from pipelines.settings import Tables
from pipelines.studies import table_figures
from pipelines.studies.paper import ABLATIONS, Papers, entries, grid, published
from pipelines.studies.paper_tables import NAMES
from pipelines.studies.summary import Entry, Summary, difference, half_width, summarise
from pipelines.studies.sweep import sweep
from pipelines.studies.tables import plan, tables
from pipelines.studies.trials import Trial
from pipelines.studies.tune import tune
from tests.train import made
from train.heads import names
from train.metrics import MEASURES, bootstrap, paired

# In the order of the papers' tables.
HUGME = ("objects", "scene", "head", "depth", "body", "cooccurrence", "similarity", "darn", "hegl")
RRLA = ("boa", "geometry", "bpa", "eld", "objects")
RRLA_HERE = {
    "train.rrla.words": "labels",
    "train.rrla.regions": "features",
    "train.rrla.heads": 2,
    "train.rrla.graph_width": 16,
}


def asked_of(**changes):
    base = {
        "seeds": [0, 1],
        "grid": 3,
        "settings": {"rrla": RRLA_HERE, "ml_gcn": {"train.ml_gcn.words": "labels"}},
    }
    return {"tables": {**base, **changes}}


def test_there_is_a_row_for_every_head_and_every_ablation():
    found = entries(made.settings(), Tables())
    assert [row.head for row in found if not row.without] == names()
    assert [row.without for row in found if row.head == "hugme"] == ["", *HUGME]
    assert [row.without for row in found if row.head == "rrla"] == ["", *RRLA]
    for row in found:
        assert [one.seed for one in row.settings] == [0, 1, 2]
        assert {one.head for one in row.settings} == {row.head}
        if row.without:
            assert getattr(row.settings[0], row.head).without == [row.without]


def test_the_parts_in_the_settings_are_those_of_the_papers_in_their_order():
    assert ABLATIONS == {"hugme": HUGME, "rrla": RRLA}
    assert list(published()["emotic"]["hugme"]) == list(HUGME)
    assert set(published()["emotic"]["rrla"]) <= set(RRLA)


def test_settings_of_one_head_are_its_own():
    own = {"rrla": {"train.lr": 0.01, "train.rrla.without": ["bpa"]}}
    found = entries(made.settings(), Tables(settings=own, heads=["rrla", "hugme"]))
    assert {one.lr for row in found for one in row.settings if one.head == "rrla"} == {0.01}
    assert {one.lr for row in found for one in row.settings if one.head == "hugme"} == {3e-3}
    assert found[-1].settings[0].rrla.without == ["bpa", "objects"]
    with pytest.raises(SettingsError, match="mpl"):
        entries(made.settings(), Tables(heads=["mpl"]))


def test_the_figure_is_beta_by_lambda():
    found = grid(made.settings(), Tables(seeds=[4, 5]))
    assert len(found) == 121 and len({(b, c) for b, c, _ in found}) == 121
    for beta, lambda_c, one in found:
        assert (one.hugme.beta, one.hugme.lambda_c, one.seed) == (beta, lambda_c, 4)
    assert {(0.5, 0.8), (0.0, 1.0), (1.0, 0.0)} <= {(b, c) for b, c, _ in found}
    assert grid(made.settings(), Tables(grid=0)) == []
    assert grid(made.settings(), Tables(heads=["mlp"])) == []


def test_half_of_a_t_interval_by_hand():
    # sd of 1, 2, 3 is 1; t of two degrees of freedom at 97.5 % is 4.30265
    assert half_width(np.array([1.0, 2, 3]), 0.95) == pytest.approx(4.30265 / math.sqrt(3))
    assert math.isnan(half_width(np.array([1.0]), 0.95))


def test_differences_are_those_of_the_paired_bootstrap():
    """For one seed they are what `compare` says of the two heads."""
    rng = np.random.default_rng(0)
    true = (rng.random((60, 4)) < 0.4).astype(np.int8)
    pictures = np.arange(60) // 2
    found = [bootstrap(true, rng.random((60, 4)), pictures, 200, 0.9, 3) for _ in range(2)]
    one, other = (_summary(some.mean, some.drawn(), "persons of both") for some in found)
    gap = paired(*found)
    assert difference(one, other, 0.9) == pytest.approx((gap.difference, gap.low, gap.high))
    others = _summary(0.5, found[1].drawn(), "other persons")
    unknown = _summary(0.5, found[1].drawn(), "")
    assert difference(one, others, 0.9)[0] == pytest.approx(0.5 - found[0].mean)
    for pair in ((one, others), (unknown, unknown)):  # nothing is known to be shared
        assert np.isnan(difference(*pair, 0.9)[1:]).all()


def _summary(mean, drawn, resampled):
    return Summary(
        entry=None,  # type: ignore[arg-type]
        main="mAP",
        mean={"mAP": mean},
        drawn=drawn,
        resampled=resampled,
    )


def test_published_values_are_those_of_the_papers():
    papers = Papers("emotic", "multi")
    assert papers.value("hugme", "", "mAP") == 31.47 and papers.alike
    values = [papers.value("hugme", part, "mAP") for part in HUGME]
    assert values == [30.92, 29.26, 30.93, 30.41, 30.48, 30.55, 30.27, 30.74, 30.14]
    assert papers.value("rrla", "", "mAP") == 32.41
    assert papers.value("rrla", "eld", "mAP") == 30.35
    assert papers.value("rrla", "geometry", "mAP") == 31.86
    assert math.isnan(papers.value("rrla", "bpa", "mAP"))
    assert math.isnan(papers.value("linear", "", "mAP"))
    single = Papers("demo", "single")
    assert single.value("hugme", "", "accuracy") == 91.11 and not single.alike
    assert "cannot be compared" in single.note()[0]
    assert Papers("demo", "distribution").note() == []


@pytest.fixture
def made_tables(asked, tmp_path):
    return tables(asked(**asked_of())), tmp_path / "results" / "tables"


def test_the_tables_say_what_the_trials_measured(made_tables, tmp_path):
    result, folder = made_tables
    assert result["missing"] == {} and result["seeds"] == [0, 1]
    kept = {
        one["key"]: one
        for one in map(
            json.loads,
            (p.read_text() for p in (tmp_path / "results/trials").glob("*") if p.is_file()),
        )
    }
    rows = {(row["head"], row["without"]): row for row in result["rows"]}
    assert len(rows) == len(names()) + 9 + 5
    for row in rows.values():
        values = [kept[key]["measured"]["test"]["mAP"] for key in row["trials"]]
        assert row["mean"]["mAP"] == pytest.approx(np.mean(values)) and len(values) == 2
    first = list(csv.reader((folder / "table1.csv").read_text().splitlines()))
    head = first[0]
    assert head == ["label", "positives", *names()]
    by_name = {line[0]: dict(zip(head, line, strict=True)) for line in first[1:]}
    for name in names():
        own = rows[name, ""]
        assert by_name["mAP"][name] == f"{100 * own['mean']['mAP']:.2f}"
        for label in made.NAMES:
            assert by_name[label][name] == f"{100 * np.mean(own['ap'][label]):.2f}"
    assert by_name["mAP published, EMOTIC"]["hugme"] == "31.47"
    assert by_name["N evaluated"]["mlp"] == "40"
    third = list(csv.reader((folder / "table3.csv").read_text().splitlines()))
    assert len(third) == 1 + 10
    full, scene = rows["hugme", ""], rows["hugme", "scene"]
    gap = 100 * (scene["mean"]["mAP"] - full["mean"]["mAP"])
    line = next(line for line in third if line[0] == "without scene (context)")
    assert line[3] == f"{gap:+.2f}".replace("-", "−") and line[5:] == ["29.26", "−2.21"]
    fourth = list(csv.reader((folder / "table4.csv").read_text().splitlines()))
    assert fourth[0][3:5] == ["C-F1", "O-F1"] and len(fourth) == 1 + 6
    for name in ("table1", "table3", "table4"):
        markdown = (folder / f"{name}.md").read_text()
        assert "made" in markdown and "cannot be compared" in markdown
        assert (folder / f"{name}.tex").read_text().count("\\toprule") == 1
    assert not (folder / "table2.md").exists()


def test_the_figure_has_its_numbers_beside(made_tables):
    result, folder = made_tables
    rows = list(csv.DictReader((folder / "figure2.csv").read_text().splitlines()))
    assert len(rows) == 9 and {row["beta"] for row in rows} == {"0", "0.5", "1"}
    for row, one in zip(rows, result["figure2"], strict=True):
        assert float(row["mAP"]) == pytest.approx(one["value"], abs=1e-6)
    for ending in ("svg", "pdf", "png"):
        assert (folder / f"figure2.{ending}").stat().st_size > 1000
    page = (folder / "tables.html").read_text()
    assert "made-up labels" in page and "UNTRAINED depth: made" in page and "<svg" in page


def test_the_pictures_of_the_parts_are_the_differences_of_the_tables(made_tables):
    _, folder = made_tables
    kept = json.loads((folder / "tables.json").read_text())
    ablations, map_ = table_figures.sections(kept)
    assert [caption.split()[0] for caption, _ in ablations.figures] == ["hugme", "rrla"]
    (caption, figure), _ = ablations.figures
    assert "mean of 2 seeds" in caption and "Left of 0 the part helps" in caption
    (plane,) = figure.axes
    names = [text.get_text() for text in plane.get_yticklabels()]
    dots = [line for line in plane.lines if line.get_marker() == "o"]
    drawn = {name: float(dot.get_xdata()[0]) for name, dot in zip(names, dots, strict=True)}
    third = {line[0]: line for line in csv.reader((folder / "table3.csv").read_text().splitlines())}
    for part in HUGME:
        said = third[f"without {NAMES.get(part, part)}"][3].replace("−", "-")
        assert drawn[f"without {part}"] == pytest.approx(float(said), abs=0.0051)
    values = [drawn[name] for name in names]
    assert values == sorted(values)
    assert map_.title.startswith("Figure 2") and map_.figures[0][0].startswith("HugMe over")
    none = {**kept, "rows": [row for row in kept["rows"] if not row["without"]], "cell": None}
    assert table_figures.sections(none) == []


def test_a_second_run_fits_only_what_changed(asked, fits):
    first = tables(asked(**asked_of(heads=["hugme", "mlp"], grid=2, seeds=[0])))
    assert len(fits) == first["fitted"] == first["fits"] == 2 + 9 + 4
    again = tables(asked(**asked_of(heads=["hugme", "mlp"], grid=2, seeds=[0])))
    assert len(fits) == 15 and again["fitted"] == 0 and again["rows"] == first["rows"]
    settings = {"mlp": {"train.lr": 1e-2}}
    other = tables(asked(**asked_of(heads=["hugme", "mlp"], grid=2, seeds=[0], settings=settings)))
    assert len(fits) == 16 and other["fitted"] == 1
    assert plan(asked(**asked_of(heads=["hugme", "mlp"], grid=2, seeds=[0, 1])))["left"] == 11


def test_heads_on_other_persons_have_no_interval_of_their_difference(asked, tmp_path):
    """One person of test lacks objects, another one the scene: as many are left to both heads."""
    given = made.arrays(persons=96)
    test = np.flatnonzero(given["splits"] == "test")
    views = given["views"]
    views["objects"].status[test[0]] = STATUS["unreadable"]
    views["head"].status[test[-1]] = STATUS["unreadable"]
    made.write_cache(tmp_path / "some", given)
    cache = {"cache": {"root": str(tmp_path / "some")}}
    tables(asked(**cache, **asked_of(heads=["hugme"], grid=0, seeds=[0])))
    rows = list(csv.DictReader((tmp_path / "results/tables/table3.csv").read_text().splitlines()))
    between = {row["head"]: row["difference over pictures"] for row in rows}
    alike = {name for name, said in between.items() if said}
    assert alike == {f"without {NAMES.get(part, part)}" for part in HUGME} - {
        "without objects",
        "without head",
    }
    assert all(row["difference"] for row in rows[1:])
    kept = {}
    for path in (tmp_path / "results" / "trials").glob("*.json"):
        one = json.loads(path.read_text())
        kept[tuple(one["settings"]["hugme.without"])] = one
    fewer, other = kept["objects",], kept["head",]
    numbers = [one["measured"]["test"]["n_evaluated"] for one in (fewer, other)]
    assert numbers[0] == numbers[1] == len(test) - 1
    entry = Entry("hugme", "", ())
    full, part = (
        summarise(
            replace(entry, settings=(made.settings(),)),
            [Trial(made.settings(), one["key"], "ok", "", one)],
            "test",
            0.95,
        )
        for one in (fewer, other)
    )
    gap, low, high = difference(full, part, 0.95)
    assert np.isfinite(gap) and np.isnan([low, high]).all()
    assert np.isfinite(difference(full, full, 0.95)).all()
    del fewer["resampled"]  # as an older emocache left it
    old = summarise(full.entry, [Trial(made.settings(), "", "ok", "", fewer)], "test", 0.95)
    assert np.isnan(difference(old, old, 0.95)[1:]).all()


def test_a_split_on_which_nobody_has_a_label_is_said(asked, tmp_path):
    given = made.arrays(persons=96)
    given["targets"][given["splits"] == "test"] = 0
    made.write_cache(tmp_path / "none", given)
    cache = {"cache": {"root": str(tmp_path / "none")}}
    with pytest.raises(DataError, match="no mAP on test"):
        tables(asked(**cache, **asked_of(heads=["mlp"], grid=0, seeds=[0])))


def test_ablations_stand_where_the_whole_head_cannot_be_had(asked, tmp_path):
    given = made.arrays(persons=96)
    del given["views"]["objects"]
    made.write_cache(tmp_path / "fewer", given)
    cache = {"cache": {"root": str(tmp_path / "fewer")}}
    result = tables(asked(**cache, **asked_of(heads=["hugme"], grid=0, seeds=[0])))
    assert [row["without"] for row in result["rows"]] == ["objects"] and "hugme" in result[
        "missing"
    ]
    assert [table.name for table in result["tables"]] == ["table3"]


def test_a_row_that_cannot_be_had_is_named_and_the_others_stand(asked):
    result = tables(asked(**asked_of(heads=["mlp", "rrla"], grid=0, seeds=[0], settings={})))
    assert set(result["missing"]) == {"rrla", *(f"rrla without {p}" for p in RRLA)}
    assert all("rrla" in why and "view" in why for why in result["missing"].values())
    assert result["tables"][0].columns[2:] == ["mlp"]
    assert any("Not fitted: rrla" in note for note in result["tables"][0].notes)
    with pytest.raises(DataError, match="words"):
        tables(asked(**asked_of(heads=["rrla"], grid=0, seeds=[0], settings={})))


def test_single_labels_have_table_2_in_accuracy(asked, tmp_path):
    given = made.arrays(persons=96)
    given["targets"] = np.eye(4, dtype=np.float32)[given["targets"].argmax(1)]
    made.write_cache(tmp_path / "single", given)
    settings = asked(
        cache={"root": str(tmp_path / "single")}, **asked_of(heads=["hugme"], grid=2, seeds=[0])
    )
    result = tables(settings)
    found = {table.name: table for table in result["tables"]}
    assert set(found) == {"table1", "table2", "table3"}
    assert found["table2"].columns[1] == "accuracy"
    assert found["table2"].rows[0][-1] == "91.11" and found["table3"].columns[1] == "accuracy"
    row = result["rows"][0]
    assert row["measure"] == "accuracy"
    assert found["table2"].rows[0][1] == f"{100 * row['mean']['accuracy']:.2f}"


def test_distributions_have_the_six_measures_and_less_kl_is_better(asked, tmp_path):
    given = made.arrays(persons=96)
    rng = np.random.default_rng(0)
    given["targets"] = rng.dirichlet(np.ones(4), 96).astype(np.float32)
    made.write_cache(tmp_path / "shares", given)
    cache = {"cache": {"root": str(tmp_path / "shares")}}
    result = tables(asked(**cache, **asked_of(heads=["hugme", "mlp"], grid=2, seeds=[0])))
    found = {table.name: table for table in result["tables"]}
    assert set(found) == {"table2", "table3"}
    assert found["table2"].columns[1:7] == list(MEASURES)
    assert {row["measure"] for row in result["rows"]} == {"kl"}
    for row, cells in zip(result["rows"][:2], found["table2"].rows, strict=True):
        assert cells[4] == f"{row['mean']['kl']:.4f}" and "published" not in str(cells)
    for line in found["table3"].rows[1:]:  # as many digits as the interval beside
        assert len(line[3].lstrip("+−")) == len("0.1234") and line[3][0] in "+−"
        assert len(line[4].split(" to ")[0].lstrip("−")) == len("0.1234")
    swept = sweep(asked(**cache, sweep={"over": {"train.lr": [1e-5, 3e-3]}}))
    values = [row["val_kl"] for row in swept["rows"]]
    assert swept["measure"] == "val_kl" and values == sorted(values)
    space = {"train.lr": {"low": 1e-5, "high": 1e-2, "log": True}}
    tuned = tune(asked(**cache, tune={"space": space, "trials": 3, "seeds": [0]}))
    assert tuned["measure"] == "val_loss" and tuned["measured"]["measure"] == "kl"
