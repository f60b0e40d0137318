"""Made-up results on real pictures: what the tests of evaluation and report work on."""

import ast
import csv
from pathlib import Path

import numpy as np

from pipelines.evaluation import measure
from pipelines.overlay import ObjectMark, PersonMark
from pipelines.report import Person, ReportData, read_results
from train.run import Scores
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


def scores(split="test", persons=400, seed=0, signal=1.2) -> Scores:
    rng = np.random.default_rng([seed, len(split)])
    true = (rng.random((persons, len(RATES))) < RATES).astype(np.float32)
    logit = np.log(RATES / (1 - RATES)) + signal * (true - RATES) + rng.normal(0, 0.9, true.shape)
    rows = np.arange(persons) + 1000
    dropped = {"bad_box": 3, "unreadable": 1} if split == "test" else {}
    return Scores(
        split, tuple(LABELS), rows, rows // 2, true, 1 / (1 + np.exp(-logit)), dropped, info={}
    )


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


def results(folder: Path, persons=400) -> Path:
    """A results folder as train and evaluate leave it."""
    test, val = scores("test", persons), scores("val", persons)
    measure(test, LABELS, Evaluate(bootstrap=200), provenance(), val=val).write(folder)
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


def report_data(folder: Path, pictures: Path, persons=12) -> ReportData:
    """`pictures` is the folder of EMOTIC pictures with the CSVs of the release."""
    test = scores("test")
    found = read_results(results(folder))
    limits = [row["threshold"] for row in found["per_class"]]
    rng = np.random.default_rng(0)
    word = rng.normal(size=(len(LABELS), 8)) + 0.8
    word /= np.linalg.norm(word, axis=1, keepdims=True)
    together = test.y_true.T @ test.y_true
    return ReportData(
        head="HugMe",
        dataset="emotic",
        note="made-up scores and boxes on real pictures",
        split="test",
        labels=LABELS,
        networks=networks(),
        persons=[
            made_person(row, number, test, limits, rng)
            for number, row in enumerate(annotated(pictures)[:persons])
        ],
        cooccurrence=together / np.maximum(np.diag(together), 1)[:, None],
        similarity=np.maximum(word @ word.T, 0),
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


def made_person(row, number, test, limits, rng) -> Person:
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
    chance = dict(zip(LABELS, test.y_score[number].tolist(), strict=True))
    return Person(
        name=f"person {test.person_rows[number]}",
        picture=path,
        mark=PersonMark(box, face, objects),
        true=[label for label, t in zip(LABELS, test.y_true[number], strict=True) if t],
        predicted=[
            label for label, limit in zip(LABELS, limits, strict=True) if chance[label] >= limit
        ],
        probabilities=chance,
        notes=[] if face else ["no face found: the head view is zeros"],
    )
