"""emocache report on the real run."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cache.index import Index
from pipelines.settings import load
from train.scores import Scores


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
