"""A small project of made pictures, for the commands of UniEmoX: people of two colours before
grounds of two, the label being the person's colour."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPConfig

from pipelines import stages
from pipelines.settings import Settings, load
from tests.pipelines.conftest import ROOT

SPLITS = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
COLOURS = {"calm": (40, 90, 220), "alarm": (220, 60, 40)}
CLIP = "tiny-clip"  # a folder with the shape of a CLIP, and no weights
TEACHERS = (
    f"views.teacher_image.network={CLIP}",
    f"views.teacher_text.network={CLIP}",
    "views.teacher_image.size=32",
    f"weights.untrained=[{CLIP}]",
    "pretrain.without=[]",
)


def draw(path: Path, number: int) -> tuple[str, list[float]]:
    """A picture of 64 x 48; the label of its person and their box."""
    random = np.random.default_rng(number)
    label = list(COLOURS)[number % 2]
    pixels = random.integers(90, 160, (48, 64, 3)).astype(np.uint8)
    x, y = (int(value) for value in random.integers(2, 20, 2))
    pixels[y : y + 24, x : x + 16] = COLOURS[label]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return label, [x, y, x + 16, y + 24]


def settings_of(place: Path, *more: str) -> Settings:
    """A nano student on the pictures in `place`; no views but those that `more` names."""
    off = ("body", "head", "objects", "depth", "scene", "labels")
    return load(
        ROOT / "pipelines/profiles/demo.yaml",
        [
            "data.name=persons",
            f"data.root={place / 'data'}",
            f"cache.root={place / 'features'}",
            "cache.shard_rows=8",
            "device=cpu",
            "pretrain.size=32",
            "pretrain.patch=8",
            "pretrain.epochs=2",
            "pretrain.batch=4",
            "pretrain.warmup=1",
            "pretrain.readers=0",
            "pretrain.pictures=2",
            "finetune.epochs=2",
            "finetune.batch=4",
            "finetune.warmup=1",
            "finetune.readers=0",
            "evaluate.bootstrap=100",
            "report.looks=2",
            *(f"views.{name}.network=null" for name in off),
            *more,
        ],
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where data, cache and results of one test lie; commands run there."""
    lines = []
    for number, split in enumerate(SPLITS):
        path = f"pictures/{number:02}.png"
        label, box = draw(tmp_path / "data" / path, number)
        lines.append(
            {
                "path": path,
                "labels": [label],
                "box": box,
                "split": split,
                "attributes": {"scene": f"room {number}", "object": ["person", "wall"]},
            }
        )
    table = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "data" / "persons.jsonl").write_text(table)
    monkeypatch.chdir(tmp_path)
    layers = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPConfig(
        text_config={**layers, "intermediate_size": 32, "vocab_size": 99},
        vision_config={**layers, "intermediate_size": 32, "image_size": 32, "patch_size": 16},
        projection_dim=24,
    ).save_pretrained(CLIP)
    monkeypatch.setattr("train.uniemox.student.SIZES", {"tiny": (24, 2, 2)})
    return tmp_path


@pytest.fixture
def prepared(place):
    """The same with its index."""
    stages.prepare(settings_of(place))
    return place
