"""The whole pipeline on each form of data set, small: from its own files to the report."""

import csv
import html
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cache.boxes import Box
from cache.index import Index
from cache.store import open_view
from extract.detectors import Detections
from extract.families import Families
from extract.weights import Weights
from pipelines import stages
from pipelines.report import charts
from pipelines.results import Results
from pipelines.settings import Settings, load
from tests.extract.datasets.made import MIKELS, Folder
from tests.networks import real
from tests.pipelines.conftest import ROOT
from tests.shared import shared
from train import heads
from train.head import SquaredHead
from train.metrics import MEASURES
from train.metrics.measures import MAIN
from train.run import open_head
from train.scores import Scores

PROFILE = ROOT / "pipelines" / "profiles" / "demo.yaml"
DPT, MINILM = "Intel/dpt-swinv2-tiny-256", "sentence-transformers/all-MiniLM-L6-v2"
YOLO = "yolo26n"
QUICK = (
    "device=cpu",
    "weights.source=[untrained]",
    f"weights.untrained=[resnet18, blazeface, {YOLO}, {DPT}, {MINILM}]",
    *(f"views.{view}.network=resnet18" for view in ("body", "head", "objects", "scene")),
    *(f"views.{view}.size=32" for view in ("body", "head", "objects", "depth", "scene")),
    "views.objects.k=2",
    "data.split.val=0.3",
    "data.split.test=0.3",
    "train.epochs=2",
    "evaluate.bootstrap=100",
    "report.people=3",
)
HUGME = ("train.head=hugme", "train.hugme.hidden=[16, 8]", "train.hugme.graph_width=8")
RRLA = (
    "train.head=rrla",
    "train.rrla.heads=2",
    "train.rrla.width=8",
    "train.rrla.values=8",
    "train.rrla.graph_width=16",
    "train.rrla.regions=features",
    "train.rrla.words=labels",
)
ML_GCN = ("train.head=ml_gcn", "train.ml_gcn.words=labels", "train.ml_gcn.hidden=16")
BY_NUMBER = ("data.split.group=([0-9]+)[.]",)  # not by bytes, which other encoders may write
KOSTI = ("train.head=kosti", "train.kosti.hidden=16")
CAER_NET = ("train.head=caer_net", "train.caer_net.hidden=16")
MLP = ("train.head=mlp", "train.mlp.hidden=[16]")
LINEAR = ("train.head=linear",)
HELO = ("train.head=helo", "train.helo.width=16", "train.helo.tokens=[2, 2]", "train.helo.heads=2")

COUNT = 18
NOBODY = (48, 48)  # the size of the pictures in which no person is found
BOXES: tuple[Box, Box] = ((1, 2, 30, 40), (33, 2, 60, 44))
FOUND, BY_FACE = (
    "people found by yolo26n (choose best)",
    "people found by yolo26n (about the annotated faces",
)
NOISE = "UNTRAINED, random weights: yolo26n"
DRAWN = "splits drawn 40% : 30% : 30%"


# Networks that take no time


class Detector:
    """One thing in the middle of each picture that is not `NOBODY`, and another at its corner."""

    device, region_width = torch.device("cpu"), 0

    def __init__(self, name: str, classes: tuple[str, ...]) -> None:
        self.name, self.classes = name, classes

    def __call__(self, pictures: list[torch.Tensor]) -> list[Detections]:
        return [self._one(*picture.shape[:0:-1]) for picture in pictures]

    def _one(self, width: int, height: int) -> Detections:
        boxes = np.array([middle(width, height), (0, 0, 8, 8)], np.float32)
        found = Detections(boxes, np.float32([0.9, 0.6]), np.arange(2) % len(self.classes))
        return found[np.arange(2)[int((width, height) == NOBODY) :]]


class Depth:
    """How bright each picture is, in three colours; its map is one of them."""

    name, device, width = DPT, torch.device("cpu"), 3

    def __call__(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pictures.float().mean((2, 3)), pictures[:, 0].float()


BUILD = Families.build


def middle(width: int, height: int) -> Box:
    return width / 4, height / 4, width * 3 / 4, height * 3 / 4


@cache
def network(families: Families, weights: Weights, kind: str) -> Any:
    """Built once."""
    stands_in = {
        YOLO: Detector(YOLO, ("person", "chair")),
        "blazeface": Detector("blazeface", ("face",)),
        DPT: Depth(),
    }
    return stands_in.get(weights.network) or BUILD(families, weights, "cpu", kind)


@contextmanager
def quick(place: Path) -> Iterator[None]:
    """Work in `place`, where detectors and depth are functions, and other networks untrained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Families, "build", lambda self, w, _, kind: network(self, w, kind))
        patch.chdir(place)
        yield


# Data sets in their own forms


def split_of(number: int) -> str:
    return "train" if number < 9 else "val" if number < 13 else "test"


def pictures(folder: Folder, name: str, size: tuple[int, int] | None = None) -> dict[int, str]:
    """`COUNT` pictures by number, every sixth of which shows nobody; name: of their paths."""
    numbers = range(COUNT)
    sizes = {n: size or (NOBODY if n % 6 == 5 else (64, 48)) for n in numbers}
    return {n: folder.picture(name.format(n), n, sizes[n]) for n in numbers}


def boxes_of(number: int) -> tuple[Box, ...]:
    """Two persons in pictures of even numbers, else one."""
    return BOXES if number % 2 == 0 else BOXES[:1]


def named(*names: str) -> Callable[[int], str]:
    """One of these names for each number, in turn."""
    return lambda number: names[number % len(names)]


def table(folder: Folder, path: str, rows: list[tuple]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    folder.text(path, text.getvalue())


def emotic(folder: Folder) -> None:
    paths = pictures(folder, "mscoco/images/{:02}.jpg", (64, 48))
    felt = named("['Peace', 'Fear']", "['Pain']", "['Peace']", "['Yearning', 'Pain', 'Fear']")
    header = ("Folder", "Filename", "Image Size", "BBox", "Categorical_Labels", "Continuous_Labels")
    rows: dict[str, list[tuple]] = {split: [header] for split in ("train", "val", "test")}
    for number, path in paths.items():
        place, _, name = path.rpartition("/")
        for at, box in enumerate(boxes_of(number)):
            rated = [1 + number % 9, 5, 9 - number % 7]
            row = (place, name, "[64, 48]", list(box), felt(number + at), rated)
            rows[split_of(number)].append(row)
    inverted = ("mscoco/images", "13.jpg", "[64, 48]", [30, 2, 1, 40], "['Pain']", [5, 5, 5])
    gone = ("mscoco/images", "gone.jpg", "[64, 48]", [1, 2, 30, 40], "['Pain']", [5, 5, 5])
    rows["test"] += [inverted, gone]
    for split, some in rows.items():
        table(folder, f"{split}.csv", some)


CAERS = named("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")


def caers_folders(folder: Folder) -> dict[int, str]:
    paths = {}
    for number in range(COUNT):
        split = "test" if split_of(number) == "test" else "train"
        size = NOBODY if number % 6 == 5 else (64, 48)
        path = f"{split}/{CAERS(number)}/{number:04}.png"
        paths[number] = folder.picture(path, number, size)
    return paths


def caers_lists(folder: Folder) -> None:
    """Faces in the middle of the picture; none in the first."""
    lines: dict[str, list[str]] = {"train": [], "test": ["test/Sad/9999.png,5,28,18,36,26"]}
    for number, path in caers_folders(folder).items():
        face = "28,18,36,26" if number else ",,,"
        lines[path.partition("/")[0]].append(f"{path},{number % 7},{face}")
    for split, some in lines.items():
        folder.lines(f"{split}.txt", some)


def heco(folder: Folder) -> None:
    felt = named("Happinesst", "Fear", "Peace", "Anger")
    rows = [("Image", "xmin", "ymin", "xmax", "ymax", "Category")]
    rows[0] += ("Valence", "Arousal", "Dominance", "Label_SA", "Label_CA")
    for number, path in pictures(folder, "images/{}.jpg", (64, 48)).items():
        for at, box in enumerate(boxes_of(number)):
            name = path.rpartition("/")[2]
            rows.append((name, *box, felt(number + at), 1 + number % 9, 5, 9 - number % 7, 1, 0))
    rows.append(("3.jpg", *BOXES[1], "", 5, 5, 5, 0, 0))
    table(folder, "labels/HECO.csv", rows)


def folders(folder: Folder) -> None:
    where = {"train": "Training", "val": "valid", "test": "test"}
    for number in range(COUNT):
        size = NOBODY if number % 6 == 5 else (64, 48)
        label = named("joy", "fear", "awe & wonder")(number)
        folder.picture(f"{where[split_of(number)]}/{label}/{number}.jpg", number, size)
    folder.text("test/joy/damaged.jpg", "no picture")


def emotion6(folder: Folder) -> None:
    names = ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")
    lines = []
    for number, path in pictures(folder, "images/joy/{}.jpg").items():
        shares = np.roll([0.6, 0.3, 0.1, 0, 0, 0, 0], number).tolist()
        cells = (path.removeprefix("images/"), 1 + number % 9, 5, *shares)
        lines.append("\t".join(map(str, cells)))
    folder.picture("images/joy/short.jpg", COUNT)
    lines.append("joy/short.jpg\t5\t5\t0.5\t0\t0\t0\t0\t0\t0")
    header = "\t".join(["[image_filename]", "[valence]", "[arousal]"])
    folder.lines("ground_truth.txt", lines, header + "".join(f"\t[prob. {n}]" for n in names))


def emoset(folder: Folder) -> None:
    rows: dict[str, list[list[str]]] = {"train": [], "val": [], "test": []}
    for number, path in pictures(folder, "image/{}.jpg").items():
        label = MIKELS[number % 8]
        folder.json(f"annotation/{number}.json", {"brightness": 0.5, "scene": "beach"})
        rows[split_of(number)].append([label, path, f"annotation/{number}.json"])
    for split, some in rows.items():
        folder.json(f"{split}.json", some)


def ferplus(folder: Folder) -> None:
    where = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}
    lines: dict[str, list[str]] = {split: [] for split in where}
    for number in range(COUNT + 1):
        split = split_of(number)
        folder.picture(f"{where[split]}/{number}.png", number, NOBODY)
        votes = [*np.roll([7, 2, 1, 0, 0, 0, 0, 0], number).tolist(), 0, 0]
        if number == COUNT:
            votes = [3, 0, 0, 0, 0, 0, 0, 0, 7, 0]  # unknown wins
        lines[split].append(f'{number}.png,"(0, 0, 48, 48)",{",".join(map(str, votes))}')
    for split, some in lines.items():
        folder.lines(f"{where[split]}/label.csv", some)


def coco(folder: Folder) -> None:
    felt = named(["joy", "awe"], ["fear"], ["joy"])
    images: dict[str, list[dict]] = {"train": [], "val": [], "test": []}
    people: dict[str, list[dict]] = {"train": [], "val": [], "test": []}
    for number in range(COUNT):
        split = split_of(number)
        folder.picture(f"images/{split}/{number}.jpg", number)
        images[split].append({"id": number, "file_name": f"{number}.jpg"})
        for at, (x1, y1, x2, y2) in enumerate(boxes_of(number)):
            person = {"id": 2 * number + at, "image_id": number, "category_id": 1}
            person |= {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            people[split].append(person | {"attributes": {"emotions": felt(number + at)}})
    people["test"].append(people["test"][0] | {"id": 99, "bbox": [1, 2]})
    for split in images:
        value = {"images": images[split], "annotations": people[split]}
        value["categories"] = [{"id": 1, "name": "person"}]
        folder.json(f"annotations/instances_{split}.json", value)


FELT = named("joy; awe", "fear", "joy", "awe; fear", "awe")


def persons_csv(folder: Folder, felt: Callable[[int], str] = FELT) -> None:
    """felt: the labels of a person, by the number of the line."""
    rows = [("path", "x1", "y1", "x2", "y2", "labels", "split")]
    for number, path in pictures(folder, "own/{}.jpg", (64, 48)).items():
        for box in boxes_of(number):
            rows.append((path, *box, felt(len(rows) - 1), split_of(number)))
    rows.append(("own/13.jpg", *BOXES[1], "", "test"))
    table(folder, "persons.csv", rows)


def persons_jsonl(folder: Folder) -> None:
    names = ("joy", "fear", "awe")
    lines = []
    for number, path in pictures(folder, "{}.png").items():
        shares = dict(zip(names, np.roll([0.6, 0.3, 0.1], number).tolist(), strict=True))
        lines.append(json.dumps({"path": path, "labels": shares}))
    folder.lines("persons.jsonl", lines)


@dataclass(frozen=True)
class Format:
    """A form of data set. more: settings; origins: of the persons that count, how many; lost:
    status to how many others; note: what results must say of it."""

    reader: str
    fill: Callable[[Folder], Any]
    kind: str
    labels: int
    more: tuple[str, ...]
    origins: Mapping[str, int]
    lost: Mapping[str, int] = field(default_factory=dict)
    note: tuple[str, ...] = ()


ANNOTATED = {"annotated": COUNT + COUNT // 2}
SOUGHT = {"found": COUNT - 3, "whole": 3}
FORMATS = {
    "emotic": Format("emotic", emotic, "multi", 26, KOSTI, ANNOTATED, {"bad_box": 1, "missing": 1}),
    "caers lists": Format(
        "caers",
        caers_lists,
        "single",
        7,
        (*CAER_NET, *BY_NUMBER),
        {"found": COUNT - 3, "face": 3},
        {"missing": 1},
        (BY_FACE, NOISE, "val is 30% of train"),
    ),
    "caers folders": Format(
        "caers",
        caers_folders,
        "single",
        7,
        (*HUGME, *BY_NUMBER),
        SOUGHT,
        note=(FOUND, NOISE, "val is 30% of train"),
    ),
    "heco": Format(
        "heco", heco, "single", 8, (*KOSTI, *BY_NUMBER), ANNOTATED, {"unlabelled": 1}, (DRAWN,)
    ),
    "folders": Format(
        "folders", folders, "single", 3, LINEAR, SOUGHT, {"unreadable": 1}, (FOUND, NOISE)
    ),
    "emotion6": Format(
        "emotion6",
        emotion6,
        "distribution",
        7,
        (*KOSTI, *BY_NUMBER),
        SOUGHT,
        {"unlabelled": 1},
        (FOUND, NOISE, DRAWN),
    ),
    "emoset": Format("emoset", emoset, "single", 8, ML_GCN, SOUGHT, note=(FOUND, NOISE)),
    "ferplus": Format(
        "ferplus", ferplus, "distribution", 8, MLP, {"annotated": COUNT}, {"unlabelled": 1}
    ),
    "coco": Format("coco", coco, "multi", 3, RRLA, ANNOTATED, {"bad_box": 1}),
    "persons csv": Format("persons", persons_csv, "multi", 3, HUGME, ANNOTATED, {"unlabelled": 1}),
    "persons jsonl": Format(
        "persons",
        persons_jsonl,
        "distribution",
        3,
        (*LINEAR, *BY_NUMBER),
        SOUGHT,
        note=(FOUND, NOISE, DRAWN),
    ),
}


# Runs


def settings(name: str, root: Path, cache: Path, *more: str) -> Settings:
    where = (f"data.name={name}", f"data.root={root}", f"cache.root={cache}")
    return load(PROFILE, (*QUICK, *where, *more))


def written(fill: Callable[[Folder], Any], root: Path) -> Path:
    folder = Folder(root)
    fill(folder)
    return folder.write()


def run(settings: Settings) -> SimpleNamespace:
    """Every stage once and `extract` again, in the working directory: what each said, and the
    names of the networks that either extraction loaded."""
    loaded: list[list[str]] = [[], []]
    return SimpleNamespace(
        settings=settings,
        prepared=stages.prepare(settings),
        planned=stages.plan(settings, probe=False),
        extracted=stages.extract(settings, on_load=lambda found: loaded[0].append(found.network)),
        again=stages.extract(settings, on_load=lambda found: loaded[1].append(found.network)),
        loaded=loaded,
        trained=stages.train(settings),
        metrics=stages.evaluate(settings),
        report=stages.report(settings).read_text(),
        sheet=Results().contact_sheet.read_text(),
        scores=Scores.read(Results().scores),
        index=Index.read(settings.cache.root),
    )


@pytest.fixture(scope="module", params=FORMATS.values(), ids=FORMATS.keys())
def form(request) -> Format:
    return request.param


@pytest.fixture(scope="module")
def done(form, tmp_path_factory) -> SimpleNamespace:
    """What a whole run on this form gave."""
    place = tmp_path_factory.mktemp("format")
    root = written(form.fill, place / "data")
    with quick(place):
        return run(settings(form.reader, root, place / "features", *form.more))


def statuses(done: SimpleNamespace, split: str) -> Counter[str]:
    return Counter(done.prepared["persons"][split])


def test_every_person_is_counted_with_where_the_box_comes_from(form, done):
    prepared = done.prepared
    assert prepared["origins"] == dict(form.origins)
    assert set(prepared["persons"]) == {"train", "val", "test"}
    every = statuses(done, "train") + statuses(done, "val") + statuses(done, "test")
    assert every == {"ok": sum(form.origins.values()), **form.lost}
    assert all(statuses(done, split)["ok"] for split in ("train", "val", "test"))
    assert (prepared["labels"], prepared["kind"]) == (form.labels, form.kind)


def test_persons_that_are_found_have_the_box_of_the_detector(form, done):
    people, shown = done.index.persons.to_pylist(), done.index.pictures.to_pylist()
    for row in done.index.wanted("persons"):
        person, picture = people[row], shown[people[row]["picture"]]
        size = picture["width"], picture["height"]
        box = {"found": middle(*size), "whole": (0, 0, *size), "face": person["face"]}
        if person["origin"] != "annotated":
            assert done.index.boxes[row].tolist() == list(box[person["origin"]])
            assert (size == NOBODY) == (person["origin"] != "found")


def test_extract_writes_every_row_that_is_wanted(form, done):
    assert set(done.planned["views"]) == set(done.extracted["rows"])
    for name, rows in done.extracted["rows"].items():
        view = open_view(done.settings.cache.root, name)
        wanted = form.labels if view.space == "labels" else len(done.index.wanted(view.space))
        assert sum(rows.values()) == done.planned["views"][name]["rows"] == wanted
        assert view.done.sum() == wanted
        assert set(rows) <= {"ok", "no_face", "no_object"}, name


def test_an_extraction_of_what_is_there_loads_no_network(done):
    faces = done.index.persons["face"].take(done.index.wanted("persons")).null_count
    needed = {"resnet18", YOLO, DPT, MINILM, *(["blazeface"] if faces else [])}
    assert set(done.loaded[0]) == needed
    assert done.loaded[1] == [] and done.again["networks"] == []
    assert not any(done.again["rows"].values())


def test_the_head_is_fitted_on_labels_of_the_kind_that_the_set_has(form, done):
    persons = {split: statuses(done, split)["ok"] for split in ("train", "val")}
    assert done.trained["persons"] == persons
    assert done.trained["note"] == done.index.note and done.index.kind == form.kind
    assert done.trained["dataset"] == form.reader
    assert list(done.trained["positives"]) == list(done.index.labels)


def test_metrics_are_those_of_the_kind_with_persons_that_add_up(form, done):
    found = done.metrics["test"]
    assert found["kind"] == form.kind
    assert 0 <= found["mAP_low"] <= found["mAP"] <= found["mAP_high"] <= 1
    assert ("accuracy" in found) == ("balanced_accuracy" in found) == (form.kind == "single")
    for name in MEASURES:
        assert (name in found) == (form.kind == "distribution")
    assert ("C_F1" in found) == (form.kind != "distribution")
    counted = statuses(done, "test")
    assert found["n_evaluated"] == counted["ok"] == len(done.scores.y_score)
    assert found["n_evaluated"] + found["n_dropped"] == sum(counted.values())
    assert found["dropped"] == {why: n for why, n in counted.items() if why != "ok"}


def test_scores_are_probabilities_where_labels_are_shares_of_one(form, done):
    if form.kind == "distribution":
        assert np.allclose(done.scores.y_score.sum(1), 1, atol=1e-5)
    assert np.isfinite(done.scores.y_score).all()


def test_results_say_how_people_were_found_and_splits_were_drawn(form, done):
    note = done.metrics["test"]["note"]
    for part in form.note:
        assert part in note and html.escape(part, quote=False) in done.report + done.sheet
    if not form.note:
        assert "people found" not in note and "drawn" not in note
    assert note == done.index.note == done.prepared["note"]


def test_the_report_names_every_label_and_shows_persons(form, done):
    for label in done.index.labels:
        assert html.escape(label) in done.report
    assert done.report.count('<article class="card"') == 3


def test_the_contact_sheet_has_a_figure_for_each_person(form, done):
    assert done.sheet.count("<figure>") == sum(form.origins.values()) + sum(form.lost.values())
    unseen = form.lost.get("missing", 0) + form.lost.get("unreadable", 0)
    assert done.sheet.count("no picture:") == unseen


# Every head on every kind of labels


@pytest.fixture(scope="module", params=["emotic", "heco", "persons jsonl"])
def cached(request, tmp_path_factory) -> SimpleNamespace:
    """The features of a set of each kind, with the settings that made them."""
    form, place = FORMATS[request.param], tmp_path_factory.mktemp("kind")
    root = written(form.fill, place / "data")
    more = (form.reader, root, place / "features", *BY_NUMBER)
    with quick(place):
        stages.prepare(settings(*more))
        stages.extract(settings(*more))
    return SimpleNamespace(kind=form.kind, more=more)


HEADS = {
    "hugme": HUGME,
    "rrla": RRLA,
    "kosti": KOSTI,
    "caer_net": CAER_NET,
    "ml_gcn": ML_GCN,
    "mlp": MLP,
    "linear": LINEAR,
    "aa_knn": ("train.head=aa_knn",),
    "sa_bfgs": ("train.head=sa_bfgs",),
    "helo": HELO,
}


def test_no_head_is_left_out():
    assert sorted(HEADS) == sorted(heads.names())


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_every_head_is_measured_on_every_kind(cached, head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = settings(*cached.more, *head)
    stages.train(here)
    found = stages.evaluate(here)["test"]
    main = MAIN[cached.kind].name
    assert found["kind"] == cached.kind and np.isfinite(found[main])
    assert stages.report(here).read_text().count('<article class="card"') == 3
    scores = Scores.read(Results().scores).y_score
    assert np.isfinite(scores).all()
    if cached.kind == "distribution":
        assert (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-5)


# What a head learns of labels


def changed(splits: set[str]) -> Callable[[int], str]:
    """`FELT` with every label another one, for the persons of these splits."""
    other = {"joy": "fear", "fear": "awe", "awe": "joy"}
    where = [split_of(number) for number in range(COUNT) for _ in boxes_of(number)]

    def felt(line: int) -> str:
        names = FELT(line).split("; ")
        return "; ".join(other[name] if where[line] in splits else name for name in names)

    return felt


GRAPHS = {
    "hugme": ["cooccurrence", "similarity"],
    "rrla": ["cooccurrence"],
    "ml_gcn": ["cooccurrence"],
    "kosti": [],
}


def head_on(here: Settings, felt: Callable[[int], str]) -> Any:
    """The head that is fitted where persons of the data have these labels."""
    written(lambda folder: persons_csv(folder, felt), here.data.root)
    stages.prepare(here)
    stages.extract(here)
    stages.train(here)
    return open_head(here.cache.root, Results().head).model


@pytest.mark.parametrize("name", ["hugme", "rrla", "ml_gcn", "kosti"])
def test_label_statistics_and_weights_come_from_train_alone(name, tmp_path):
    """Other labels of val and test, in number and in company, leave every bit of the head; other
    ones of train do not."""
    more = (*HEADS[name], "train.select=last")
    here = settings("persons", tmp_path / "data", tmp_path / "features", *more)
    with quick(tmp_path):
        first = head_on(here, FELT)
        same, other = head_on(here, changed({"val", "test"})), head_on(here, changed({"train"}))
    graphs = {label: (graph, same.graphs()[label]) for label, graph in first.graphs().items()}
    assert sorted(graphs) == GRAPHS[name]
    assert all(torch.equal(*both) for both in graphs.values())
    if graphs:
        assert not torch.equal(first.graphs()["cooccurrence"], other.graphs()["cooccurrence"])
    if isinstance(first, SquaredHead):
        assert torch.equal(first.weights, same.weights)
        assert not torch.equal(first.weights, other.weights)
    there = same.state_dict()
    assert all(torch.equal(value, there[key]) for key, value in first.state_dict().items())


# Real photographs


def in_class_folders(source: Path, root: Path, counts: Mapping[str, int]) -> int:
    """EMOTIC's pictures with the one label of their first person, and without boxes; counts: how
    many of each split at most. Gives how many there are."""
    copied = 0
    for split, count in counts.items():
        felt: dict[str, str] = {}
        with open(source / f"{split}.csv", newline="") as lines:
            for row in csv.DictReader(lines):
                happy = "Happiness" in row["Categorical_Labels"]
                felt.setdefault(f"{row['Folder']}/{row['Filename']}", "happy" if happy else "other")
        for path, label in list(felt.items())[:count]:
            (root / split / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, root / split / label)
            copied += 1
    return copied


@pytest.mark.slow
def test_people_are_found_in_real_photographs_and_hugme_learns_their_one_label(
    tmp_path, monkeypatch
):
    """The real networks, and all views."""
    for name in ("resnet50", "blazeface", YOLO, MINILM):
        real(name)
    pictures = shared("data/emotic_pictures")
    counts = {"train": 8, "val": 3, "test": 4}
    count = in_class_folders(pictures, tmp_path / "data", counts)
    monkeypatch.chdir(tmp_path)
    given = ("device=cpu", "data.name=folders", "data.root=data", "views.scene.size=128")
    given += ("weights.source=[store, packages, untrained]", "evaluate.bootstrap=100")
    given += ("train.epochs=4", "report.people=4", *HUGME)
    done = run(load(PROFILE, given))
    assert done.prepared["origins"]["found"] >= 0.8 * count
    assert sum(done.prepared["origins"].values()) == count
    best = open_view(done.settings.cache.root, "people").read("box")[:, 0]
    origins = done.index.persons["origin"].to_pylist()
    for row in done.index.wanted("persons"):
        if origins[row] == "found":
            assert np.abs(done.index.boxes[row] - best[done.index.picture_rows[row]]).max() < 0.01
    assert done.loaded[1] == []
    found = done.metrics["test"]
    assert found["kind"] == "single" and found["n_evaluated"] == counts["test"]
    assert "people found by yolo26n (choose best)" in found["note"]
    assert "UNTRAINED" not in found["note"]
    assert np.allclose(done.scores.y_score.sum(1), 1, atol=1e-5)
    assert done.report.count('<article class="card"') == 4
    assert done.sheet.count("<figure>") == count


@pytest.mark.parametrize(
    ("subject", "rule"),
    [
        ("person", "people found by yolo26n (about the annotated faces, else choose best)"),
        ("face", FOUND),
    ],
)
def test_the_note_says_by_which_rules_persons_were_found(subject, rule, tmp_path):
    """One frame has no face, so its person is found by `people.choose`, whatever the others are."""
    root = written(caers_lists, tmp_path / "data")
    here = settings("caers", root, tmp_path / "features", f"people.subject={subject}")
    with quick(tmp_path):
        note = stages.prepare(here)["note"]
    assert rule in note
    assert ("the annotated face alone stands for the person" in note) == (subject == "face")


def test_a_graph_of_few_labels_lists_each_pair_once():
    """Three labels have fewer pairs than the report lists."""
    alike = np.array([[1, 0.3, 0.2], [0.3, 1, 0.1], [0.2, 0.1, 1]])
    (graph,) = charts.graphs(("awe", "fear", "joy"), {"similarity": alike})
    assert graph["pairs"] == [("awe · fear", 0.3), ("awe · joy", 0.2), ("fear · joy", 0.1)]
