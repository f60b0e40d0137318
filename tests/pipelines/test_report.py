"""emocache report on the real run."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from cache.index import Index
from pipelines.report.data import gather
from pipelines.report.gallery import together
from pipelines.report.packing import packed
from pipelines.report.what_if import what_if
from pipelines.results import Results
from pipelines.settings import load
from train.run import open_head
from train.scores import Scores
from train.whatif import Without
from train.whatif import what_if as asked_of


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "distribution"])
def test_the_command_reports_single_labels_and_distributions(workplace, emocache, kind):
    """The features of the real run, and other labels for its persons."""
    root = workplace / "features"
    index = Index.read(root)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(26), len(index.persons)).astype(np.float32)
    if kind == "single":
        shares = np.eye(26, dtype=np.float32)[rng.integers(0, 4, len(shares))]
    place = index.persons.schema.get_field_index("labels")
    labels = pa.array(list(shares), pa.list_(pa.float32()))
    table = index.persons.set_column(place, "labels", labels)
    replace(index, persons=table, kind=kind).write(root)
    for command in ("train", "evaluate", "report"):
        done = emocache(command, "--set", "train.epochs=2", "--set", "report.people=3")
        assert done.code == 0, done.said
    text = (workplace / "results" / "report.html").read_text()
    scores = Scores.read(workplace / "results" / "scores.parquet")
    persons = text.split('<section id="persons"')[1]  # after those from the best to the worst
    shown = [int(row) for row in re.findall(r"<h3>person (\d+)</h3>", persons)]
    cards = persons.split('<article class="card"')[1:]
    assert len(shown) == len(cards) == 3
    for row, card in zip(shown, cards, strict=True):
        (at,) = np.flatnonzero(scores.person_rows == row)
        if kind == "single":
            true, predicted = (
                index.labels[values[at].argmax()] for values in (scores.y_true, scores.y_score)
            )
            said = f"{true}, {'right' if true == predicted else f'predicted {predicted}'}"
        else:
            least = np.minimum(scores.distribution[at], scores.y_score[at])
            said = f"intersection {least.sum():.2f}"
        assert said in card and "limit" not in card
    assert ("<dt>Accuracy</dt>" in text) == (kind == "single")
    assert ("<b>Canberra</b>" in text) == (kind == "distribution")


@pytest.mark.slow
def test_a_head_without_faces_needs_no_head_view_and_says_nothing_of_it(workplace, emocache):
    other = ("--set", "train.head=kosti", "--set", "train.epochs=1", "--set", "report.people=3")
    for view in ("head", "objects"):
        shutil.rmtree(workplace / "features" / f"{view}.zarr")
    for command in ("train", "evaluate", "report"):
        done = emocache(command, *other)
        assert done.code == 0, done.said
    text = (workplace / "results" / "report.html").read_text()
    cards = text[text.index('id="persons"') : text.index('id="origin"')]
    assert cards.count("<article") == 3
    assert "face" not in cards and "bject" not in cards
    index = Index.read(workplace / "features")
    path = load().data.root / index.pictures["path"][int(index.picture_rows[0])].as_py()
    box = ",".join(f"{side:g}" for side in index.boxes[0])
    done = emocache("predict", path, "--box", box)
    assert done.code == 0 and "emotions" in done.out, done.said
    assert "face" not in done.out and "objects" not in done.out


def test_each_person_is_asked_without_each_view_and_each_object(workplace, monkeypatch):
    """Against one question at a time, in the order in which the report lists the objects."""
    monkeypatch.setattr("pipelines.report.what_if.BATCH", 4)
    settings = load(workplace / "params.yaml")
    opened = open_head(settings.cache.root, "results/head")
    rows = opened.features.rows("test").numpy()
    seen = together([opened.explain(rows.tolist())])
    places = np.array([5, 0, 3, 1, 2])
    steps = []
    found = what_if(
        opened, rows, seen.objects_of, places, lambda done, total: steps.append((done, total))
    )
    assert steps == [(4, 5), (5, 5)] and found.asked.tolist() == places.tolist()
    assert found.views == ("body", "head", "objects", "depth", "scene")
    some = 0
    for at, place in enumerate(places):
        numbers = seen.objects_of(place)
        cases = [*(Without(views=(view,)) for view in found.views),
                 *(Without(objects=(int(number),)) for number in numbers)]  # fmt: skip
        alone = asked_of(opened.model, opened.features, int(rows[place]), cases)
        np.testing.assert_allclose(found.without_view[at], alone[:5], atol=1e-5)
        mine = slice(*found.first[at : at + 2].tolist())
        np.testing.assert_allclose(found.without_object[mine], alone[5:], atol=1e-5)
        objects = opened.features.batch(torch.as_tensor(rows[[place]])).views["objects"]
        classes = objects["label"][0].numpy()[numbers]
        first = seen.first[place]
        assert classes.tolist() == seen.object_classes[first : first + len(numbers)].tolist()
        some += len(numbers)
    assert some > 3 and np.abs(found.without_object).sum() > 0


def test_the_report_asks_those_of_the_worst_answers(workplace):
    settings = load(workplace / "params.yaml", ["report.what_if=3", "report.thumbnails=2"])
    steps = []
    data = gather(settings, Results(), lambda done, total: steps.append((done, total)))
    gallery = data.gallery
    asked = gallery.what_if.asked
    assert len(asked) == 3 and steps[-1] == (5, 5)
    others = np.setdiff1d(np.arange(len(gallery.rows)), asked)
    assert gallery.measure[asked].max() <= gallery.measure[others].min()
    held = packed(gallery, (0.0, 1.0))
    assert held["depth"]["said"].endswith("UNTRAINED")
    none = load(workplace / "params.yaml", ["report.what_if=0"])
    assert gather(none, Results()).gallery.what_if is None


def test_other_runs_and_the_papers_tables_stand_in_the_same_page(workplace, emocache):
    """The same results once more as another run, and tables of two rows and one point."""
    shutil.copytree("results", "again")
    digest = Index.read(workplace / "features").digest()
    row = {"head": "hugme", "measure": "mAP", "n_evaluated": 7}
    tables = {
        "dataset": "emotic", "note": "made numbers", "split": "test", "seeds": [0],
        "confidence": 0.95, "index": digest, "untrained": ["a made network"],
        "rows": [
            {**row, "without": "", "difference": dict.fromkeys(("value", "low", "high"))},
            {**row, "without": "depth", "difference": {"value": -0.1, "low": -0.2, "high": 0.1}},
        ],
        "cell": {"measure": "mAP", "n_evaluated": 7, "half_interval": 0.1},
        "figure2": [{"beta": 0.5, "lambda": 0.8, "value": 0.3}],
    }  # fmt: skip
    folder = workplace / "mine"
    folder.mkdir()
    (folder / "tables.json").write_text(json.dumps(tables))
    asked = ("report", "--set", "report.people=1", "--set", "report.tables=mine")
    done = emocache(*asked, "--set", "report.beside=[again]")
    assert done.code == 0, done.said
    text = (workplace / "results" / "report.html").read_text()
    titles = [
        "Runs",
        "Differences",
        "Labels: B (hugme) less A (hugme)",
        "What each part is worth",
        "Figure 2",
    ]
    places = [text.index(f'<h2 id="s{n}-title">{title}') for n, title in enumerate(titles, 1)]
    assert places == sorted(places)
    for n in range(1, 6):
        assert f'<a href="#s{n}">' in text
    assert "no difference shown" in text and "made numbers" in text
    assert "UNTRAINED a made network" in text
    other = {**tables, "index": "0" * 64}
    (folder / "tables.json").write_text(json.dumps(other))
    refused = emocache(*asked)
    assert refused.code == 1 and "emocache tables" in refused.said and digest[:12] in refused.said
    (folder / "tables.json").unlink()
    assert "tables.json cannot be shown" in emocache(*asked).said
    gone = emocache("report", "--set", "report.beside=[nowhere]")
    assert gone.code == 1 and "there is no results folder nowhere" in gone.said
    itself = emocache("report", "--set", "report.beside=[results]")
    assert itself.code == 1 and "this very run" in itself.said
