"""Made-up results on real pictures: what the tests of evaluation and report work on."""

import ast
import csv
from pathlib import Path

import numpy as np

from pipelines.evaluation import measure
from pipelines.overlay import ObjectMark, PersonMark
from pipelines.report.data import Person, ReportData, read_results
from pipelines.results import Results
from train.scores import Scores
from train.settings import Evaluate

# Label: positive rate, about as on the test split of EMOTIC.
RATE = {
    "Affection": 0.05, "Anger": 0.02, "Annoyance": 0.06, "Anticipation": 0.47, "Aversion": 0.05,
    "Confidence": 0.33, "Disapproval": 0.08, "Disconnection": 0.15, "Disquietment": 0.09,
    "Doubt/Confusion": 0.07, "Embarrassment": 0.02, "Engagement": 0.77, "Esteem": 0.12,
    "Excitement": 0.38, "Fatigue": 0.06, "Fear": 0.05, "Happiness": 0.48, "Pain": 0.04,
    "Peace": 0.18, "Pleasure": 0.3, "Sadness": 0.09, "Sensitivity": 0.05, "Suffering": 0.07,
    "Surprise": 0.05, "Sympathy": 0.1, "Yearning": 0.06,
}  # fmt: skip
LABELS, RATES = list(RATE), np.array(list(RATE.values()))

# As many single labels as CAER-S has, and shares of those of FER+.
SEVEN = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
EIGHT = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def scores(split="test", persons=400, seed=0, signal=1.2) -> Scores:
    rng = np.random.default_rng([seed, len(split)])
    true = (rng.random((persons, len(RATES))) < RATES).astype(np.float32)
    logit = np.log(RATES / (1 - RATES)) + signal * (true - RATES) + rng.normal(0, 0.9, true.shape)
    rows = np.arange(persons) + 1000
    dropped = {"bad_box": 3, "unreadable": 1} if split == "test" else {}
    score = (1 / (1 + np.exp(-logit))).astype(np.float32)  # as heads give them
    return Scores(split, tuple(LABELS), rows, rows // 2, true, score, dropped=dropped)


def single_scores(split="test", labels=SEVEN, persons=400, signal=1.8) -> Scores:
    """One label a person, and probabilities that sum to 1."""
    rng = np.random.default_rng([1, len(split)])
    rates = rng.dirichlet(np.full(len(labels), 4))
    true = np.eye(len(labels), dtype=np.int8)[rng.choice(len(labels), persons, p=rates)]
    logit = rng.normal(0, 1, true.shape) + signal * true
    score = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    rows = np.arange(persons) + 1000
    return Scores(split, tuple(labels), rows, rows // 2, true, score, dropped={"bad_box": 3})


def share_scores(split="test", labels=EIGHT, persons=400) -> Scores:
    """Votes of ten annotators a person as shares, and a softmax."""
    rng = np.random.default_rng([2, len(split)])
    wished = rng.dirichlet(np.linspace(1.2, 0.1, len(labels)), persons)
    votes = np.array([rng.multinomial(10, row) for row in wished]) / 10
    score = 0.7 * wished + 0.3 * rng.dirichlet(np.ones(len(labels)), persons)
    rows = np.arange(persons) + 1000
    return Scores(
        split,
        tuple(labels),
        rows,
        rows // 2,
        (votes > 0.5).astype(np.int8),
        score,
        dropped={"bad_box": 3},
        distribution=votes,
        train_mean=votes.mean(axis=0),
    )


MADE = {"multi": scores, "single": single_scores, "distribution": share_scores}
KINDS = tuple(MADE)


def provenance() -> dict:
    return {
        "dataset": "emotic",
        "note": "made-up scores",
        "cache_key": "b61f0c2a9d3e" + 52 * "0",
        "fitted_on": {
            "dataset": "emotic",
            "note": "made-up scores",
            "cache_key": "b61f0c2a9d3e" + 52 * "0",
        },
        "seed": 0,
        "best_epoch": 20,
        "weights": ["ResNet-50, ImageNet (Keras)", "DPT: untrained"],
        "untrained": ["depth"],
    }


def results(folder: Path, persons=400, kind="multi", **more) -> Path:
    """A results folder as train and evaluate leave it."""
    test, val = (MADE[kind](split, persons=persons, **more) for split in ("test", "val"))
    measure(test, Evaluate(bootstrap=200), provenance(), val=val).write(Results(folder))
    with (folder / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "train_loss", "val_loss", "val_map"])
        for epoch in range(1, 31):
            loss = 0.12 + 0.3 * np.exp(-epoch / 6)
            writer.writerow(
                [
                    epoch,
                    loss,
                    loss + 0.02 + 0.0009 * max(0, epoch - 12) ** 1.5,
                    0.36 - 0.2 * np.exp(-epoch / 5) - 0.0002 * max(0, epoch - 20) ** 2,
                ]
            )
    return folder


def report_data(folder: Path, pictures: Path, persons=12, kind="multi", **more) -> ReportData:
    """`pictures` is the folder of EMOTIC pictures with the CSVs of the release."""
    test = MADE[kind]("test", **more)
    found = read_results(Results(results(folder, kind=kind, **more)))
    rng = np.random.default_rng(0)
    word = rng.normal(size=(len(test.labels), 8)) + 0.8
    word /= np.linalg.norm(word, axis=1, keepdims=True)
    together = test.y_true.T @ test.y_true
    return ReportData(
        head="HugMe",
        dataset="emotic",
        note="made-up scores and boxes on real pictures",
        split="test",
        labels=test.labels,
        networks=networks(),
        views=("body", "head", "objects", "depth", "scene"),
        persons=[
            made_person(row, number, test, kind, found["per_class"], rng)
            for number, row in enumerate(annotated(pictures)[:persons])
        ],
        graphs={
            "cooccurrence": together / np.maximum(np.diag(together), 1)[:, None],
            "similarity": np.maximum(word @ word.T, 0),
        },
        **found,
    )


def networks() -> list[dict]:
    resnet = {
        "network": "resnet50",
        "source": "packages",
        "name": "ResNet-50, ImageNet, Keras v1",
        "licence": "MIT",
        "sha256": "863f7e63d95b1583cdd5af6bbd58e51c",
        "trained": True,
    }
    depth = {
        "network": "Intel/dpt-hybrid-midas",
        "source": "untrained",
        "name": "random weights",
        "licence": "",
        "sha256": "untrained-seed0-torch2.15.0",
        "trained": False,
    }
    return [{"view": "body", **resnet}, {"view": "scene", **resnet}, {"view": "depth", **depth}]


def annotated(pictures: Path) -> list[tuple[Path, tuple, tuple]]:
    """(picture, person box, size) of every person in the CSVs, as the annotation states them."""
    rows = []
    for split in ("test", "val", "train"):
        with (pictures / f"{split}.csv").open() as file:
            for row in csv.DictReader(file):
                path = pictures / row["Folder"] / row["Filename"]
                rows.append(
                    (
                        path,
                        tuple(ast.literal_eval(row["BBox"])),
                        tuple(ast.literal_eval(row["Image Size"])),
                    )
                )
    return rows


def made_person(row, number, test, kind, per_class, rng) -> Person:
    path, box, (width, height) = row
    x1, y1, x2, _ = box
    wide = x2 - x1
    face = (x1 + 0.3 * wide, y1, x1 + 0.7 * wide, y1 + 0.4 * wide) if number % 5 else None
    weights = rng.dirichlet(np.ones(number % 4)) if number % 4 else []
    objects = []
    for name, weight in zip(("chair", "cell phone", "dining table"), weights, strict=False):
        x, y = rng.uniform(0, 0.7) * width, rng.uniform(0.2, 0.7) * height
        objects.append(
            ObjectMark(
                (x, y, x + 0.25 * width, y + 0.25 * height),
                name,
                float(rng.uniform(0.3, 1)),
                float(weight),
            )
        )
    chance = dict(zip(test.labels, test.y_score[number].tolist(), strict=True))
    limits = {row["label"]: row["threshold"] for row in per_class}
    true = [label for label, t in zip(test.labels, test.y_true[number], strict=True) if t]
    predicted = [label for label, score in chance.items() if score >= limits[label]]
    shares = None
    if kind == "single":
        predicted = [max(chance, key=chance.get)]
    elif kind == "distribution":
        true, predicted = [], []
        shares = dict(zip(test.labels, test.distribution[number].tolist(), strict=True))
    return Person(
        name=f"person {test.person_rows[number]}",
        picture=path,
        mark=PersonMark(box, face, objects),
        true=true,
        predicted=predicted,
        scores=chance,
        shares=shares,
        notes=[] if face else ["no face found: the head view is zeros"],
    )
