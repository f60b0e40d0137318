"""Everybody who was measured, as columns for the page."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.stats import entropy
from sklearn.metrics import jaccard_score

from cache.index import PERSONS, PICTURES, Index
from extract import images
from pipelines.recordings import WINDOWS
from pipelines.report import page as pages
from pipelines.report.data import read_results
from pipelines.report.gallery import (
    NO_FACE,
    NO_OBJECT,
    NO_ROOM,
    PREDICTED,
    STANDS,
    TRUE,
    Gallery,
    Seen,
    decided,
    everybody,
    thumbnails,
    together,
)
from pipelines.report.packing import lines, packed
from pipelines.report.what_if import WhatIf
from pipelines.results import Results
from pipelines.settings import load
from tests.pipelines.conftest import ROOT
from tests.pipelines.gallery_data import gallery_report, made_gallery, made_picture
from tests.pipelines.report_data import results, scores, share_scores, single_scores
from train.explain import Explanation, Faces, Objects
from train.scores import Scores

NAN = float("nan")
HIT = TRUE + PREDICTED


def some(true, score, **more) -> Scores:
    true, score = np.array(true), np.array(score, np.float32)
    rows = np.arange(len(true)) * 10
    labels = tuple("abcd"[: true.shape[1]])
    return Scores("test", labels, rows, rows // 20, true, score, **more)


def test_labels_are_decided_at_their_thresholds():
    given = some([[1, 0, 1], [0, 1, 0], [0, 0, 0]], [[0.5, 0.9, 0.1], [0.4, 0, 0.9], [0, 0, 0.9]])
    marks, measure = decided(given, "multi", np.array([0.5, 0.5, NAN]))
    # a score at its threshold is predicted; a label without a threshold never is
    assert marks.tolist() == [[HIT, PREDICTED, TRUE], [0, TRUE, 0], [0, 0, 0]]
    assert measure.tolist() == pytest.approx([1 / 3, 0, 0])


def test_jaccard_is_that_of_the_metrics_and_of_scikit_learn(tmp_path):
    files = read_results(Results(results(tmp_path)))
    back = files["scores"]
    limits = {row["label"]: row["threshold"] for row in files["per_class"]}
    thresholds = np.array([limits[label] for label in back.labels])
    marks, measure = decided(back, "multi", thresholds)
    assert measure.mean() == pytest.approx(files["metrics"]["test"]["jaccard"], rel=1e-12)
    true, predicted = (marks & TRUE) > 0, (marks & PREDICTED) > 0
    oracle = jaccard_score(true, predicted, average="samples", zero_division=0)
    assert measure.mean() == pytest.approx(oracle, rel=1e-12)


def test_without_any_threshold_nothing_is_decided():
    marks, measure = decided(scores(), "multi", np.full(26, NAN))
    assert not (marks & PREDICTED).any() and np.isnan(measure).all()


def test_single_labels_are_decided_by_the_highest_score():
    given = some([[1, 0, 0], [0, 1, 0]], [[0.2, 0.4, 0.4], [0.1, 0.8, 0.1]])
    marks, measure = decided(given, "single", np.full(3, NAN))
    assert marks.tolist() == [[TRUE, PREDICTED, 0], [0, HIT, 0]]  # of equal ones the first
    assert measure.tolist() == pytest.approx([0.2, 0.8])
    made = single_scores()
    marks, _ = decided(made, "single", np.full(7, NAN))
    right = (marks == HIT).any(axis=1)
    assert right.mean() == (made.y_true.argmax(1) == made.y_score.argmax(1)).mean()


def test_of_distributions_the_divergence_and_the_largest_shares():
    given = share_scores()
    marks, measure = decided(given, "distribution", np.full(8, NAN))
    wanted = entropy(given.distribution, given.y_score, axis=1)
    np.testing.assert_allclose(measure, wanted, rtol=1e-9)
    np.testing.assert_array_equal((marks & TRUE).argmax(1), given.distribution.argmax(1))
    np.testing.assert_array_equal((marks & PREDICTED).argmax(1), given.y_score.argmax(1))
    assert ((marks & TRUE) > 0).sum() == ((marks & PREDICTED) > 0).sum() == 400


def explanation(rows, **more) -> Explanation:
    count = len(rows)
    boxes = np.arange(4.0 * count).reshape(count, 4)
    absent = dict.fromkeys(("attention", "objects", "faces"))
    return Explanation(
        ("a", "b"), ("cup", "dog"), np.array(rows), np.array(rows), boxes,
        np.zeros((count, 2)), **{**absent, **more}, graphs={},
    )  # fmt: skip


def test_what_the_head_saw_is_put_together_the_heaviest_object_first():
    def part(rows, mask, weights):
        mask = np.array(mask)
        boxes = np.array(rows)[:, None, None] + np.arange(3.0)[:, None] + np.zeros(4)
        labels = np.tile([0, 1, 0], (len(rows), 1))
        values = np.tile([0.5, 0.6, 0.7], (len(rows), 1))
        return explanation(
            rows,
            attention=np.array(weights),
            objects=Objects(boxes, labels, values, mask),
            faces=Faces(np.ones((len(rows), 4)), np.array(rows) > 0),
        )

    seen = together(
        [
            part([0, 10], [[True, True, True], [False] * 3], [[0.2, 0.5, 0.3], [0, 0, 0]]),
            part([20], [[True, False, True]], [[0.5, 0, 0.5]]),
        ]
    )
    assert seen.first.tolist() == [0, 3, 3, 5]
    assert seen.weights.tolist() == [0.5, 0.3, 0.2, 0.5, 0.5]
    assert seen.object_boxes[:, 0].tolist() == [1, 2, 0, 20, 22]  # of equal ones the first
    assert seen.object_classes.tolist() == [1, 0, 0, 0, 0]
    assert seen.object_scores.tolist() == [0.6, 0.7, 0.5, 0.5, 0.7]
    assert np.isnan(seen.faces[0]).all() and (seen.faces[1:] == 1).all()
    assert seen.classes == ("cup", "dog")


def test_a_head_that_weighs_nothing_and_one_that_sees_nothing():
    boxes, mask = np.ones((1, 2, 4)), np.array([[True, True]])
    objects = Objects(boxes, np.array([[1, 0]]), np.array([[0.5, 0.6]]), mask)
    seen = together([explanation([0], objects=objects)])
    assert seen.weights is None and seen.faces is None
    assert seen.object_classes.tolist() == [1, 0]  # as they were found
    seen = together([explanation([0, 1]), explanation([2])])
    assert seen.first is None and len(seen.boxes) == 3


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    made_picture(0).save(root / "fine.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    made_picture(1).save(root / "turned.jpg", exif=turned)
    (root / "damaged.png").write_bytes((root / "fine.png").read_bytes()[:2000])
    (root / "none.jpg").write_text("no picture")
    made_picture(2).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    return root


def test_a_picture_that_cannot_be_read_costs_its_own_thumbnail(folder):
    paths = ("fine.png", "turned.jpg", "damaged.png", "none.jpg", "gone.png", "../outside.png",
             "link.png")  # fmt: skip
    made, without = thumbnails(folder, dict(enumerate(paths)), 200)
    assert set(made) == {0, 1} and set(without) == {2, 3, 4, 5, 6}
    sizes = [Image.open(BytesIO(made[n])).size for n in (0, 1)]
    assert sizes == [(200, 150), (150, 200)]  # upright, as the boxes are
    assert "damaged" in without[2] and "not a picture" in without[3]
    assert without[4] == "no such file" and "not below" in without[5] and "link" in without[6]
    assert 6 in thumbnails(folder, {6: "link.png"}, 200, follow_links=True)[0]


def test_a_thumbnail_is_the_picture_and_small_ones_are_not_enlarged(folder):
    made_picture(3, 90, 60).save(folder / "small.png")
    made, _ = thumbnails(folder, {0: "fine.png", 1: "small.png"}, 200)
    wanted = Image.fromarray(images.read(folder / "fine.png").pixels).resize((200, 150))
    off = np.abs(np.asarray(Image.open(BytesIO(made[0])), float) - np.asarray(wanted, float))
    assert off.mean() < 6
    assert Image.open(BytesIO(made[1])).size == (90, 60)


def test_thumbnails_stop_where_there_is_no_more_room(folder):
    paths = {0: "fine.png", 1: "turned.jpg", 2: "fine.png"}
    whole, _ = thumbnails(folder, paths, 200)
    room = len(whole[0]) + len(whole[1])
    made, without = thumbnails(folder, paths, 200, room=room)
    assert set(made) == {0, 1} and without == {2: NO_ROOM}


def unpacked(held: dict) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(base64.b64decode(text), f"<{kind}")
        for name, (kind, text) in held["columns"].items()
    }


def small(**more) -> Gallery:
    """Two persons of one picture of 200 x 100."""
    seen = Seen(
        boxes=np.array([[0, 0, 200, 100], [50, 25, 100, 50.0]]),
        faces=np.array([[NAN] * 4, [50, 25, 60, 40]]),
        first=np.array([0, 0, 1]),
        object_boxes=np.array([[-5, 0, 250, 100.0]]),
        object_classes=np.array([1]),
        object_scores=np.array([0.5]),
        weights=np.array([1.0]),
        classes=("cup", "dog"),
    )
    return Gallery(
        **{
            "kind": "multi",
            "labels": ("glad", "sad"),
            "terms": WINDOWS,
            "rows": np.array([7, 9]),
            "place": np.array([0, 0]),
            "places": ["a.jpg"],
            "sizes": np.array([[200, 100]]),
            "scores": np.array([[0.25, 0.75], [0.5, 0.1]]),
            "marks": np.array([[TRUE, HIT], [0, PREDICTED]]),
            "measure": np.array([0.5, NAN]),
            "thresholds": np.array([0.3, NAN]),
            "seen": seen,
            "notes": [NO_FACE, NO_OBJECT],
            "noted": np.array([[True, True], [False, False]]),
            "thumbnails": {0: b"webp"},
            **more,
        }
    )


def test_columns_of_a_small_case():
    held = packed(small(), (0.0, 1.0))
    json.dumps(held, allow_nan=False)
    found = unpacked(held)
    assert found["rows"].tolist() == [7, 9] and found["sizes"].tolist() == [200, 100]
    assert found["scores"].tolist() == pytest.approx([0.25, 0.75, 0.5, 0.1])
    assert found["marks"].tolist() == [TRUE, HIT, 0, PREDICTED]
    assert found["measure"][0] == 0.5 and np.isnan(found["measure"][1])
    assert found["noted"].tolist() == [3, 0]
    full = 65_535
    assert found["boxes"].tolist() == [0, 0, full, full, *[round(full / 4)] * 2, *[32768] * 2]
    assert found["faces"][:4].tolist() == [0] * 4  # none
    assert found["faces"][4:].tolist() == [round(full * x) for x in (0.25, 0.25, 0.3, 0.4)]
    assert found["first"].tolist() == [0, 0, 1]
    assert found["objectBoxes"].tolist() == [0, 0, full, full]  # clipped to the picture
    assert found["objectClasses"].tolist() == [1] and found["weights"].tolist() == [full]
    assert held["thresholds"] == [0.3, None]
    assert held["measure"]["name"] == "Jaccard" and held["score"] == "score"
    assert "shares" not in found


def test_columns_of_depth_and_of_what_if():
    """The second person alone was asked; it has one object."""
    maps = np.array([[[1.0, 2.0], [3.0, 5.0]]])
    asked = WhatIf(
        asked=np.array([1]),
        views=("body",),
        without_view=np.array([[[-1.0, 0.0]]]),
        first=np.array([0, 1]),
        without_object=np.array([[2.0, 1.0]]),
    )
    held = packed(small(depth=maps, depth_said="a network", what_if=asked), (0.0, 1.0))
    json.dumps(held, allow_nan=False)
    found = unpacked(held)
    assert held["depth"] == {"grid": (2, 2), "said": "a network"}
    assert found["depth"].tolist() == [0, 64, 128, 255]  # 255 / 4 and 255 / 2
    said = {"views": ("body",), "persons": 1, "edges": False, "low": -1.0, "span": 3.0}
    assert held["whatIf"] == said and held["learned"] == [True, True]
    assert packed(small(learned=["sad"]), (0, 1))["learned"] == [False, True]
    assert found["asked"].tolist() == [-1, 0]
    assert found["withoutView"].tolist() == [0, 21_845]
    assert found["withoutFirst"].tolist() == [0, 1]
    assert found["withoutObject"].tolist() == [65_535, 43_690]
    flat = unpacked(packed(small(depth=np.full((1, 1, 2), 7.0)), (0, 1)))
    assert flat["depth"].tolist() == [0, 0]
    none = packed(small(), (0, 1))
    assert none["depth"] is none["whatIf"] is None
    assert not {"depth", "asked", "withoutView"} & set(none["columns"])


def test_columns_leave_out_what_the_head_did_not_look_for():
    seen = Seen(np.zeros((2, 4)))
    found = unpacked(packed(small(seen=seen), (0, 1)))
    assert not {"faces", "first", "objectBoxes", "weights"} & set(found) and "boxes" in found
    found = unpacked(packed(small(seen=seen, sizes=np.zeros((1, 2), int)), (0, 1)))  # recordings
    assert "boxes" not in found


def test_words_for_scores_of_each_kind():
    def words(**more):
        held = packed(small(**more), (0, 1))
        return held["score"], held["measure"]["name"], held["measure"]["more"]

    sums = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert words() == ("score", "Jaccard", True)
    assert words(kind="single", scores=sums) == ("probability", "true label", True)
    assert words(kind="single") == ("score", "true label", True)
    assert words(kind="distribution", shares=sums, scores=sums) == ("share", "KL", False)


def test_a_thumbnail_has_the_line_of_its_place():
    gallery = small(places=["a", "b", "c"], thumbnails={0: b"one", 2: b"three"})
    assert lines(gallery).split("\n") == ["b25l", "", "dGhyZWU="]


def index_of(folder, scored: Scores) -> Index:
    """An index whose first persons are those scored, two a picture of `folder`."""
    count = int(scored.person_rows.max()) + 1
    paths = sorted(path.name for path in folder.iterdir())
    pictures = {"path": paths, "width": [640] * len(paths), "height": [480] * len(paths)}
    persons = {
        "picture": np.minimum(np.arange(count) // 2, len(paths) - 1),
        "origin": ["whole" if row == 2 else "annotated" for row in range(count)],
    }

    def table(columns, schema, rows):
        absent = {n: [""] * rows if schema.field(n).type == pa.string() else [None] * rows
                  for n in schema.names}  # fmt: skip
        return pa.table({**absent, **columns}, schema)

    return Index("made", "", scored.labels, table(pictures, PICTURES, len(paths)),
                 table(persons, PERSONS, count))  # fmt: skip


@pytest.fixture
def gathered(folder):
    """(number of thumbnails, ...) -> everybody of six persons in three pictures of the folder."""
    rows = np.array([2, 3, 4, 5, 6, 7])
    rng = np.random.default_rng(0)
    scored = replace(
        some(rng.random((6, 3)) < 0.5, rng.random((6, 3))),
        person_rows=rows,
        picture_rows=rows // 2,
    )
    index = index_of(folder, scored)
    asked = []

    def explain(some):
        asked.append(list(some))
        return explanation(list(some), faces=Faces(np.ones((len(some), 4)), np.array(some) != 5))

    def get(most: int = 5000) -> Gallery:
        given = (
            f"data.root={folder}",
            "data.name=made",
            f"report.thumbnails={most}",
            "report.what_if=0",  # there is no head
        )
        opened = SimpleNamespace(explain=explain, info={"views": {}})
        settings = load(ROOT / "params.yaml", given)
        limits = {label: 0.5 for label in scored.labels}
        return everybody(settings, index, opened, scored, "multi", limits)

    get.asked, get.scored = asked, scored
    return get


def test_everybody_is_gathered_with_pictures_and_notes(gathered, monkeypatch):
    monkeypatch.setattr("pipelines.report.gallery.BATCH", 4)
    gallery = gathered()
    assert gathered.asked == [[2, 3, 4, 5], [6, 7]]  # not all at once
    assert gallery.rows.tolist() == [2, 3, 4, 5, 6, 7]
    # damaged.png, fine.png, link.png, none.jpg, turned.jpg: the second, the third and the fourth
    assert list(gallery.places) == ["fine.png", "link.png", "none.jpg"]
    assert gallery.place.tolist() == [0, 0, 1, 1, 2, 2]
    assert set(gallery.thumbnails) == {0} and set(gallery.without) == {1, 2}
    said = {note: gallery.rows[whom].tolist()
            for note, whom in zip(gallery.notes, gallery.noted.T, strict=True)}  # fmt: skip
    assert said == {STANDS["whole"]: [2], NO_FACE: [5]}


def test_where_few_thumbnails_are_wanted_the_worst_have_them(gathered):
    gallery = gathered(1)
    worst = gallery.place[np.argsort(gallery.measure, kind="stable")[0]]
    others = [n for n in range(3) if n != worst]
    assert all("report.thumbnails" in gallery.without[n] for n in others)
    assert "report.thumbnails" not in gallery.without.get(int(worst), "")
    none = gathered(0)
    assert not none.thumbnails and len(none.without) == 3


@pytest.fixture(scope="module", params=["multi", "single", "distribution", "recordings"])
def shown(request, tmp_path_factory):
    recorded = request.param == "recordings"
    kind = "multi" if recorded else request.param
    folder = tmp_path_factory.mktemp("gallery")
    data = gallery_report(folder, kind, persons=60, recorded=recorded)
    return data, pages.write(data, folder / "report.html").read_text()


def of_script(text: str, name: str) -> str:
    return re.search(rf'<script [^>]*id="{name}">(.*?)</script>', text, re.S)[1]


def test_the_page_runs_one_script_by_its_hash_and_no_other(shown):
    _, text = shown
    (rules,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in rules and "default-src 'none'" in rules
    assert "unsafe" not in rules.replace("style-src 'unsafe-inline'", "")
    assert text.count("<script") == 3  # columns and thumbnails are data
    for word in ("innerHTML", "eval(", "fetch(", "document.write", "insertAdjacentHTML"):
        assert word not in script
    assert "<noscript>" in text


def test_the_page_holds_everybody(shown):
    data, text = shown
    held = json.loads(of_script(text, "everybody-data"))
    found = unpacked(held)
    assert len(found["rows"]) == 60 and held["many"] == data.terms.many
    np.testing.assert_array_equal(found["rows"], data.scores.person_rows)
    pictures = of_script(text, "everybody-thumbnails").split("\n")
    assert len(pictures) == len(data.gallery.places)
    assert [n for n, one in enumerate(pictures) if one] == sorted(data.gallery.thumbnails)


def test_words_of_data_cannot_leave_their_place(tmp_path):
    data = gallery_report(tmp_path, persons=4)
    evil = "</script><script>alert('x')</script>.jpg"
    gallery = replace(data.gallery, places=[evil, *data.gallery.places[1:]], without={1: evil})
    text = pages.write(replace(data, gallery=gallery), tmp_path / "report.html").read_text()
    assert text.count("<script") == 3
    held = json.loads(of_script(text, "everybody-data"))
    assert held["places"][0] == held["without"]["1"] == evil


def test_bars_have_room_for_the_largest_score(tmp_path):
    data = gallery_report(tmp_path, persons=6)
    text = pages.write(data, tmp_path / "report.html").read_text()
    assert json.loads(of_script(text, "everybody-data"))["scale"] == [0, 1]
    free = replace(data.gallery, scores=data.gallery.scores * 5 - 2)  # of a head without a sigmoid
    text = pages.write(replace(data, gallery=free), tmp_path / "report.html").read_text()
    low, high = json.loads(of_script(text, "everybody-data"))["scale"]
    assert (low, high) == pytest.approx((free.scores.min(), free.scores.max()))


def test_a_report_without_a_gallery_has_no_script(tmp_path):
    data = replace(gallery_report(tmp_path, persons=6), gallery=None)
    text = pages.write(data, tmp_path / "report.html").read_text()
    assert "<script" not in text and "script-src" not in text and "Everybody" not in text


def test_made_pictures_weigh_what_photographs_do():
    """Photographs of EMOTIC and COCO weigh 4.9 kB as thumbnails, so sizes of made pages hold."""
    gallery = made_gallery(scores(persons=24), "multi", np.full(26, 0.5))
    assert 4_500 < np.mean([len(one) for one in gallery.thumbnails.values()]) < 6_500
