"""The embedded demo data set: collages with planted labels, in EMOTIC's official file form.

    <root>/Annotations/Annotations.mat    train, val and test as in the official release
    <root>/demo/images/demo_0001.jpg ...
    <root>/planted.json                   what was planted where, and by which rules

People and things are cut from photographs inside installed packages (`pipelines.demo.cutouts`) and
put on nine grounds (`pipelines.demo.grounds`). **The labels are made up.** They follow the rules
below and chance; they say nothing about anyone pictured. Even which person counts as `lot A` is
drawn by lot from the seed.

A label holds for a person when the weights of the cues that apply add up to its threshold. One
annotator (train), five (val) or three (test) then look, and each overlooks a label or adds one at
the rates of `demo.missed` and `demo.added`. As in EMOTIC, val and test combine by union.

| cue             | applies when                                                | seen by |
| --------------- | ----------------------------------------------------------- | ------- |
| lot             | the person was drawn into lot A                             | body    |
| shown           | the face is not covered by a flower or a scrap of paper     | head    |
| cosy            | a cat or a cup is near                                      | objects |
| alarm           | a stop sign or a motorcycle is near                         | objects |
| travel          | a clock or a bus is near                                    | objects |
| company         | a second person is in the picture                           | objects, scene |
| open            | ground: lake, leaves, meadow                                | scene   |
| festive         | ground: crowd, sunset, stars                                | scene   |
| bleak           | ground: wall, fog, rubble                                   | scene   |
| bright          | daylight, not evening                                       | scene, all |
| close           | the person is near the camera                               | depth, body |

Near is a distance of centres below `NEAR` picture diagonals; the same things also stand far off,
beyond `FAR`, where they plant nothing, so distance matters. The weights are in `RULES`.

What real networks see of it (seed 0, 160 pictures, 239 persons, each thing counted once a person,
with that person masked out): BlazeFace at 0.5 finds 139 of 139 shown faces and takes 2 of 100
covers for one; YOLO26n at 0.3 finds 95 % of the things (cat 88, cup 86, bus 97, motorcycle 98,
clock and stop sign 100) and, at 0.4 and IoU 0.5, 88 % of the people.
"""

import io
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from cache.boxes import Box
from cache.errors import DataError
from pipelines.demo import cutouts
from pipelines.demo.cutouts import FIGURES, THINGS
from pipelines.demo.grounds import GROUNDS, Grounds, light
from pipelines.demo.settings import Demo

NOTE = (
    "Made-up labels: planted by stated rules and chance in collages of stock photographs. "
    "No claim about anyone pictured."
)
FOLDER = "demo/images"
SIZES = ((480, 320), (480, 340), (480, 360))
NEAR, FAR = 0.36, 0.45  # distance of centres in picture diagonals
ANNOTATORS = {"train": 1, "val": 5, "test": 3}

Cues = dict[str, float]

# label -> (weight of each cue, the sum from which the label holds)
RULES: dict[str, tuple[Cues, float]] = {
    "Affection": ({"cosy": 2, "company": 1, "shown": 1, "lot": 1, "alarm": -1}, 3),
    "Anticipation": ({"travel": 3, "festive": 1, "bright": 1, "close": 1}, 3),
    "Confidence": ({"shown": 2, "close": 2, "lot": 1, "bright": 1}, 4),
    "Disconnection": ({"shown": -3, "bleak": 1, "company": -1, "cosy": -1, "lot": -1}, -1),
    "Disquietment": ({"alarm": 3, "bleak": 2, "bright": -2, "lot": -1}, 1),
    "Engagement": ({"shown": 2, "travel": 1, "cosy": 1, "close": 1}, 3),
    "Excitement": ({"festive": 3, "alarm": 1, "company": 1, "lot": 1}, 4),
    "Fatigue": ({"bright": -3, "close": -1, "bleak": 1, "lot": -1}, -1),
    "Happiness": (
        {"cosy": 2, "festive": 2, "bright": 1, "shown": 1, "lot": 1, "alarm": -2, "bleak": -1},
        4,
    ),
    "Peace": ({"open": 3, "cosy": 1, "bright": 1, "alarm": -2, "company": -1}, 3),
    "Pleasure": ({"cosy": 3, "festive": 2, "open": 1, "bright": 1, "alarm": -2}, 4),
    "Sadness": ({"bleak": 3, "bright": -2, "cosy": -2, "shown": -1, "company": -1}, 0),
}

# valence, arousal, dominance: start value and weight of each cue, on EMOTIC's scale of 1 to 10
SCALES: dict[str, tuple[float, Cues]] = {
    "valence": (
        4.5,
        {"cosy": 1.5, "alarm": -1.5, "festive": 1, "open": 0.5, "bleak": -1, "bright": 1, "lot": 1},
    ),
    "arousal": (4.5, {"alarm": 2, "travel": 1, "festive": 2, "open": -1, "company": 0.5}),
    "dominance": (4.0, {"shown": 1.5, "close": 2, "lot": 0.5, "bleak": -0.5}),
}


@dataclass(frozen=True)
class Person:
    figure: str
    mirrored: bool
    place: Box  # of the whole cut-out, may leave the picture
    box: Box  # the part inside the picture
    face: Box
    shown: bool
    cover: int
    close: bool
    cues: tuple[str, ...]
    scores: Mapping[str, float]  # how far each label is above its threshold; 0 and more holds

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for label, score in self.scores.items() if score >= 0)


@dataclass(frozen=True)
class Placed:
    thing: str
    mirrored: bool
    box: Box


@dataclass(frozen=True)
class Scene:
    number: int
    split: str
    size: tuple[int, int]
    ground: str
    dim: bool
    persons: tuple[Person, ...]
    things: tuple[Placed, ...]

    @property
    def filename(self) -> str:
        return f"demo_{self.number + 1:04d}.jpg"


def make_scenes(root: Path, settings: Demo) -> Counter[str]:
    """Write the data set; the same settings and library versions give the same bytes.

    Returns what was planted, by name. Raises DataError when `root` holds another data set.
    """
    _clear(root)
    studio, lot = Studio(), draw_lot(settings)
    scenes = [
        plan_scene(studio, lot, settings, number, split)
        for number, split in enumerate(splits(settings))
    ]
    # Written first: it marks the folder as made here, should the rest be cut short.
    story: dict[str, Any] = {"note": NOTE, "settings": settings.model_dump(), "lot A": sorted(lot)}
    story |= {"rules": rules(), "scenes": [facts(scene) for scene in scenes]}
    (root / "planted.json").write_text(json.dumps(story, indent=1), encoding="utf-8")
    for scene in scenes:
        path = root / FOLDER / scene.filename
        studio.draw(scene, settings).save(path, quality=92, subsampling=0)
    tables = {
        split: [annotation(scene, settings) for scene in scenes if scene.split == split]
        for split in ANNOTATORS
    }
    write_mat(root / "Annotations" / "Annotations.mat", tables)
    return _count(scenes)


def _clear(root: Path) -> None:
    """An empty data set's folders; what an earlier run made is removed, anything else is not."""
    if root.exists() and any(root.iterdir()):
        if not (root / "planted.json").is_file():
            raise DataError(
                f"{root} holds something else than demo scenes and is left as it is: choose "
                "another folder"
            )
        shutil.rmtree(root / FOLDER, ignore_errors=True)
        (root / "Annotations" / "Annotations.mat").unlink(missing_ok=True)
    (root / FOLDER).mkdir(parents=True)
    (root / "Annotations").mkdir(exist_ok=True)


def _count(scenes: list[Scene]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for split in ANNOTATORS:
        chosen = [scene for scene in scenes if scene.split == split]
        counts[f"{split} pictures"] = len(chosen)
        counts[f"{split} persons"] = sum(len(scene.persons) for scene in chosen)
    shown = [person.shown for scene in scenes for person in scene.persons]
    counts["faces shown"], counts["faces hidden"] = sum(shown), len(shown) - sum(shown)
    counts["things"] = sum(len(scene.things) for scene in scenes)
    return counts


def rules() -> list[dict[str, Any]]:
    """One row a planted label: its name, threshold, and the weight of each cue that counts."""
    return [{"label": label, "from": least, **weights} for label, (weights, least) in RULES.items()]


# What is planted


def splits(settings: Demo) -> list[str]:
    """The split of each picture, by lot, in the shares of the settings."""
    val = max(1, round(settings.val * settings.pictures))
    test = max(1, round(settings.test * settings.pictures))
    names = ["val"] * val + ["test"] * test + ["train"] * (settings.pictures - val - test)
    order = np.random.default_rng([settings.seed, 0]).permutation(settings.pictures)
    return [names[i] for i in order]


def draw_lot(settings: Demo) -> frozenset[str]:
    """The figures of lot A: about half of them."""
    names = sorted(FIGURES)
    chosen = np.random.default_rng([settings.seed, 1]).permutation(len(names))[: len(names) // 2]
    return frozenset(names[i] for i in chosen)


def plan_scene(
    studio: "Studio", lot: frozenset[str], settings: Demo, number: int, split: str
) -> Scene:
    """Where everything stands in picture `number`, and what that plants."""
    random = np.random.default_rng([settings.seed, 2, number])
    size = SIZES[random.integers(len(SIZES))]
    ground = str(random.choice(list(GROUNDS)))
    dim = bool(random.random() < 0.4)
    poses = _place_persons(studio, size, random)
    things = _place_things(studio, poses, size, random)
    persons = []
    for pose in poses:
        shown = bool(random.random() < 0.6)
        near = {
            THINGS[placed.thing].group
            for placed in things
            if distance(pose["box"], placed.box, size) < NEAR
        }
        holds = {
            "lot": pose["figure"] in lot,
            "shown": shown,
            "cosy": "cosy" in near,
            "alarm": "alarm" in near,
            "travel": "travel" in near,
            "company": len(poses) > 1,
            GROUNDS[ground][0]: True,
            "bright": not dim,
            "close": pose["close"],
        }
        cues = tuple(cue for cue, applies in holds.items() if applies)
        scores = {label: total(weights, cues) - least for label, (weights, least) in RULES.items()}
        cover = int(random.integers(2))
        persons.append(Person(**pose, shown=shown, cover=cover, cues=cues, scores=scores))
    return Scene(number, split, size, ground, dim, tuple(persons), tuple(things))


def total(weights: Cues, cues: tuple[str, ...]) -> float:
    return sum(weights.get(cue, 0) for cue in cues)


def distance(a: Box, b: Box, size: tuple[int, int]) -> float:
    """Between the centres, in diagonals of the picture."""
    x, y = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    return float(np.hypot(x, y) / np.hypot(*size))


def _place_persons(studio: "Studio", size: tuple[int, int], random: Any) -> list[dict[str, Any]]:
    """One person, or two that stand apart."""
    width, height = size
    pair = bool(random.random() < 0.45)
    names = random.permutation(sorted(FIGURES))[: 1 + pair]
    sides = [0, 1] if pair else [int(random.integers(2))]
    poses = []
    for name, side in zip(map(str, names), sides, strict=True):
        source = FIGURES[name]
        close = not pair and bool(random.random() < 0.6)
        tall = height * (source.close if close else source.far) * random.uniform(0.96, 1.03)
        picture, face = studio.figures[name]
        scale = tall / picture.height
        wide = scale * picture.width
        mirrored = side == 0 if source.cut_right else bool(random.random() < 0.5)
        middle = width * (random.uniform(0.20, 0.27) if pair else random.uniform(0.23, 0.36))
        left = (middle if side == 0 else width - middle) - wide / 2
        if source.cut_right:
            left = 0 if mirrored else width - wide
        if tall > height:  # a close-up of a walker, cut by the lower edge
            top = height * random.uniform(0.04, 0.08)
        elif source.far > 0.8:  # a walker stands on the ground
            top = height * random.uniform(0.97, 0.99) - tall
        else:  # a bust rises from the lower edge
            top = height * random.uniform(1.005, 1.03) - tall
        x1, y1, x2, y2 = face
        if mirrored:
            x1, x2 = picture.width - x2, picture.width - x1
        at = (left + scale * x1, top + scale * y1, left + scale * x2, top + scale * y2)
        place = (left, top, left + wide, top + tall)
        poses.append(
            {
                "figure": name, "mirrored": mirrored, "place": _rounded(place),
                "box": _rounded(_clipped(place, size)), "face": _rounded(at), "close": close,
            }
        )  # fmt: skip
    return poses


def _place_things(
    studio: "Studio", poses: list[dict[str, Any]], size: tuple[int, int], random: Any
) -> list[Placed]:
    """Up to three things, each clearly near or clearly far from every person, and in nobody's box.

    A detector sees the picture with one person masked out: a thing inside that box would be lost.
    """
    # whom each thing shall be near to; an empty wish is to be far from everybody
    wishes: list[tuple[int, ...]] = [(i,) for i in range(len(poses)) if random.random() < 0.8]
    wishes += [()] if random.random() < 0.75 else []
    names = list(map(str, random.permutation(sorted(THINGS))))
    things: list[Placed] = []
    for wish in wishes:
        name = names.pop()
        kind, picture = THINGS[name], studio.things[name]
        for _ in range(400):
            tall = size[1] * random.uniform(kind.low, kind.high)
            wide = tall * picture.width / picture.height
            if wide > size[0] * 0.45:
                continue
            left = random.uniform(3, size[0] - 3 - wide)
            lowest = size[1] - 3 - tall
            top = random.uniform(3, lowest * 0.5) if kind.above else random.uniform(3, lowest)
            box = (left, top, left + wide, top + tall)
            apart = [distance(pose["box"], box, size) for pose in poses]
            if any(NEAR - 0.01 < d < FAR for d in apart):
                continue
            if any(apart[i] > NEAR for i in wish) or (not wish and min(apart) < FAR):
                continue
            hidden = max(_covered(box, pose["box"]) for pose in poses)
            taken = max((_covered(box, other.box) for other in things), default=0)
            if hidden > 0.12 or taken > 0.02:
                continue
            # writing must not be mirrored
            mirrored = name in ("cat", "cup", "motorcycle") and bool(random.random() < 0.5)
            things.append(Placed(name, mirrored, _rounded(box)))
            break
    return things


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = box
    return max(0.0, x1), max(0.0, y1), min(float(size[0]), x2), min(float(size[1]), y2)


def _rounded(box: Box) -> Box:
    x1, y1, x2, y2 = (float(round(side)) for side in box)
    return x1, y1, x2, y2


def _covered(box: Box, by: Box) -> float:
    """The part of a box that another covers."""
    width = min(box[2], by[2]) - max(box[0], by[0])
    height = min(box[3], by[3]) - max(box[1], by[1])
    return max(0.0, width) * max(0.0, height) / ((box[2] - box[0]) * (box[3] - box[1]))


# How it is drawn


class Studio:
    """The cut-outs, opened once."""

    def __init__(self) -> None:
        self.figures = {name: cutouts.figure(name) for name in FIGURES}
        self.things = {name: cutouts.thing(name) for name in THINGS}
        self.covers = cutouts.covers()
        self.grounds = Grounds()

    def draw(self, scene: Scene, settings: Demo) -> Image.Image:
        """RGB: ground, things, persons, covers, then the light on all of it."""
        random = np.random.default_rng([settings.seed, 3, scene.number])
        canvas = self.grounds.draw(scene.ground, scene.size, random)
        for placed in scene.things:
            paste(canvas, self.things[placed.thing], placed.box, placed.mirrored)
        for person in scene.persons:
            paste(canvas, self.figures[person.figure][0], person.place, person.mirrored)
            if not person.shown:
                x1, y1, x2, y2 = person.face
                half = 0.85 * max(x2 - x1, y2 - y1)
                x, y = (x1 + x2) / 2, (y1 + y2) / 2
                over = (x - half, y - half, x + half, y + half)
                paste(canvas, self.covers[person.cover], over, False)
        return light(canvas, scene.dim, random)


def paste(canvas: Image.Image, picture: Image.Image, box: Box, mirrored: bool) -> None:
    """A cut-out, scaled into its box, over a soft shadow."""
    x1, y1, x2, y2 = (round(side) for side in box)
    size = max(1, x2 - x1), max(1, y2 - y1)
    small = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2)
    if mirrored:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    alpha, spread = small.getchannel("A"), 8
    shade = Image.new("L", (size[0] + 4 * spread, size[1] + 4 * spread))
    shade.paste(alpha.point(lambda v: v * 2 // 5), (2 * spread, 2 * spread))
    shade = shade.filter(ImageFilter.BoxBlur(spread))
    canvas.paste((0, 0, 0), (x1 - 2 * spread + 3, y1 - 2 * spread + 5), shade)
    canvas.paste(small, (x1, y1), small)


# How it is written


def annotation(scene: Scene, settings: Demo) -> dict[str, Any]:
    """One picture as the official file has it: several annotators in val and test only."""
    random = np.random.default_rng([settings.seed, 4, scene.number])
    people = []
    for person in scene.persons:
        answers = [answer(person, settings, random) for _ in range(ANNOTATORS[scene.split])]
        truth = [start + total(weights, person.cues) for start, weights in SCALES.values()]
        noise = random.normal(0, 0.7, (len(answers), len(truth)))
        scores = np.clip(np.round(truth + noise), 1, 10)
        record: dict[str, Any] = {
            "body_bbox": np.array(person.box),
            "annotations_categories": [{"categories": _cells(given)} for given in answers],
            "annotations_continuous": [_scales(row) for row in scores],
        }
        if scene.split != "train":
            union = [label for label in RULES if any(label in given for given in answers)]
            record["combined_categories"] = _cells(union)
            record["combined_continuous"] = _scales(scores.mean(axis=0))
        people.append(record | {"gender": "unstated", "age": "Adult"})
    return {
        "filename": scene.filename,
        "folder": FOLDER,
        "image_size": {"n_col": float(scene.size[0]), "n_row": float(scene.size[1])},
        "original_database": {"name": "demo", "info": {"image_id": float(scene.number + 1)}},
        "person": people,
    }


def answer(person: Person, settings: Demo, random: Any) -> list[str]:
    """What one annotator gives: never nothing, as in EMOTIC; then it is the likeliest label."""
    given = []
    for label, score in person.scores.items():
        rate = 1 - settings.missed if score >= 0 else settings.added
        if random.random() < rate:
            given.append(label)
    return given or [max(person.scores, key=lambda label: person.scores[label])]


def _scales(values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in zip(SCALES, values, strict=True)}


def _cells(words: list[str]) -> np.ndarray:
    """A MATLAB cell array, one row."""
    cells = np.empty((1, len(words)), dtype=object)
    cells[0, :] = words
    return cells


def write_mat(path: Path, images: dict[str, list[dict[str, Any]]]) -> None:
    """`Annotations.mat` of MATLAB 5 with one struct array a split."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {split: _structs(rows) for split, rows in images.items()}, do_compression=True)
    # The first 116 bytes are free text, in which scipy puts the time of day.
    text = f"MATLAB 5.0 MAT-file. {NOTE}"[:116].ljust(116)
    path.write_bytes(text.encode() + buffer.getvalue()[116:])


def _structs(rows: list[dict[str, Any]]) -> np.ndarray:
    """Dicts of equal keys -> (1, n) MATLAB struct array; lists inside become struct arrays too."""
    array = np.zeros((1, len(rows)), dtype=[(key, object) for key in rows[0]])
    for i, row in enumerate(rows):
        for key, value in row.items():
            array[0, i][key] = _structs(value) if isinstance(value, list) else value
    return array


def facts(scene: Scene) -> dict[str, Any]:
    """One picture of `planted.json`."""
    return {
        "path": f"{FOLDER}/{scene.filename}",
        "split": scene.split,
        "ground": scene.ground,
        "light": "evening" if scene.dim else "daylight",
        "persons": [
            {
                "figure": person.figure, "box": person.box, "face": person.face,
                "shown": person.shown, "cues": person.cues, "labels": person.labels,
            }
            for person in scene.persons
        ],
        "things": [
            {
                "thing": placed.thing, "box": placed.box,
                "distances": [round(distance(p.box, placed.box, scene.size), 3)
                              for p in scene.persons],
            }
            for placed in scene.things
        ],
    }  # fmt: skip
