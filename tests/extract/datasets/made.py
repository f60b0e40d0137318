"""A small folder in each data set's own format, with every trap that a reader must survive.

Each maker fills a `Folder`, which writes its files, and the lines of its tables, in any order.
"""

import csv
import io
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from cache.index import Index
from extract.datasets import get_dataset
from extract.prepare import Prepared, prepare
from extract.settings import Data
from tests.extract.finding import Seen, finder, middle

MIKELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
SIZE = (64, 48)


def pixels(number: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture like that of no other number."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.NEAREST)


class Folder:
    """Files to be written below `root`; with a `seed` in another order, tables' lines too."""

    def __init__(self, root: Path, seed: int | None = None) -> None:
        self.root = root
        self._random = None if seed is None else random.Random(seed)
        self._files: dict[str, bytes] = {}

    def mixed(self, lines: Iterable) -> list:
        found = list(lines)
        if self._random is not None:
            self._random.shuffle(found)
        return found

    def picture(self, path: str, number: int, size: tuple[int, int] = SIZE) -> str:
        data = io.BytesIO()
        pixels(number, size).save(data, "JPEG" if path.endswith(".jpg") else "PNG")
        self._files[path] = data.getvalue()
        return path

    def text(self, path: str, text: str | bytes) -> None:
        self._files[path] = text.encode() if isinstance(text, str) else text

    def lines(self, path: str, lines: Iterable[str], header: str = "") -> None:
        every = [*([header] if header else []), *self.mixed(lines)]
        self.text(path, "".join(f"{line}\n" for line in every))

    def json(self, path: str, value: object) -> None:
        self.text(path, json.dumps(value))

    def write(self) -> Path:
        for path in self.mixed(self._files):
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(self._files[path])
        return self.root


def prepared(
    name: str, root: Path, cache: Path, people: Seen = middle, **data
) -> tuple[Prepared, Index]:
    """The index of a folder, with people found by a stub; data: of `Data`."""
    settings = Data(name=name, root=root, **data)
    report = prepare(settings, cache, finder=finder(settings, cache, people))
    json.dumps(report.as_dict(), allow_nan=False)
    return report, Index.read(cache)


def persons(index: Index) -> dict[str, dict]:
    """The first person of each picture, by its path, with the names of the labels."""
    pictures = index.pictures.to_pylist()
    found: dict[str, dict] = {}
    for person, labels in zip(index.persons.to_pylist(), index.targets, strict=True):
        felt = {n: float(v) for n, v in zip(index.labels, labels, strict=True) if v}
        found.setdefault(pictures[person["picture"]]["path"], person | {"felt": felt})
    return found


def felt(reader, person) -> list[str]:
    """Names of the labels of a person's record."""
    return [name for name, value in zip(reader.labels, person.labels, strict=True) if value]


def read(name: str, root: Path) -> dict[str, tuple[str, list[str]]]:
    """By path, the split and the labels of the one person of each picture."""
    reader = get_dataset(name)(root)
    return {
        one.path: (one.persons[0].split, felt(reader, one.persons[0])) for one in reader.records()
    }


def caers_pictures(folder: Folder) -> None:
    """The frames on the disk, in folders of classes that `Angry` is one of."""
    at = "Anger", "Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad"
    for number, name in enumerate(at, 1):
        folder.picture(f"train/{name}/{number:04}.png", number)
    folder.picture("train/Neutral/0008.png", 8)  # no list names it
    folder.picture("test/Sad/0001.png", 11)
    folder.picture("test/Angry/0002.png", 12)
    folder.picture("test/Disgust/0003.png", 3)  # the bytes of a frame of train
    folder.text("train/Sad/Thumbs.db", "no picture")
    folder.text("train/Sad/.hidden.png", "no picture")
    folder.text("train/Sad/notes.txt", "no picture")


def caers_lists(folder: Folder) -> None:
    caers_pictures(folder)
    folder.lines(
        "train.txt",
        [
            "train/Angry/0001.png,0,20,10,40,30",  # on the disk below Anger
            "train/Anger/0002.png,0,20,10,40,30",  # on the disk below Angry
            "train/Disgust/0003.png,1,20,10,40,30",
            "train/Fear/0004.png,2,-27,-3,40,30",  # begins outside
            "train/Happy/0005.png,5,20,10,40,30",  # the class is Sad, the folder Happy
            "train/Neutral/0006.png,4,100,100,120,120",  # wholly outside
            "train/Sad/0007.png,5,20,10,40,30",
            "train/Sad/0007.png,5,20,10,40,30",  # twice
            "train/Surprise/0009.png,6,20,10,40,30",  # not on the disk
            "train\\Surprise\\0010.png,6,,,,",  # nor this one, and it has no face
        ],
    )
    folder.lines(
        "test.txt",
        [
            "test/Sad/0001.png,5,20,10,40,30",
            "test/Angry/0002.png,0,20,10,40,30",
            "test/Disgust/0003.png,1,20,10,40,30",
        ],
    )


HECO = (
    "Image,xmin,ymin,xmax,ymax,Category,Valence,Arousal,Dominance,Label_SA,Label_CA",
    "0.jpg,1,2,30,40,Happinesst,7,5,6,1,0",
    "0.jpg,20,2,50,40,Fear,2,8,3,0,1",
    "1.jpg,1,2,30,40,Peace,,,,,",
    "2.jpg,nan,2,30,40,Anger,2,8,3,,",
    "2.jpg,1,2,30,40,Anger,2,8,3,,",
    "3.jpg,30,2,1,40,Sadness,2,8,3,,",
    "4.jpg,1,2,30,40,,2,8,3,,",
    "5.jpg,1,2,30,40,Disgust,2,8,3,,",
    "5.jpg,1,2,30,40,Disgust,2,8,3,,",  # the same person again
    "6.jpg,-9,2,300,40,Excitement,2,8,3,,",
    "gone.jpg,1,2,30,40,Surprise,2,8,3,,",
)


def heco(folder: Folder, *lines: str) -> None:
    for number in range(7):
        folder.picture(f"images/{number}.jpg", number)
    header, *rows = lines or HECO
    folder.lines("labels/HECO.csv", rows, header)


def class_folders(folder: Folder, labels: Sequence[str], splits: Sequence[str] = ("",)) -> None:
    """Two pictures of each class in each split, and what else lies about."""
    number = 0
    for split in splits:
        for label in labels:
            below = f"{split}/{label}" if split else label
            folder.picture(f"{below}/{number:03}.jpg", number)
            folder.picture(f"{below}/deeper/{number + 1:03}.PNG", number + 1)
            number += 2
        folder.text(f"{below}/Thumbs.db", "no picture")
        folder.text(f"{below}/.hidden.jpg", "no picture")
        folder.text(f"{below}/read.me", "no picture")
        folder.text(f"{below}/damaged.png", "no picture")
    folder.text(".git/x/1.png", "no picture")


def folders(folder: Folder) -> None:
    class_folders(folder, ["joy", "fear", "awe"], ["Training", "valid", "test"])
    folder.picture("Training/joy/twin.png", 77)
    folder.picture("Training/fear/twin.png", 77)
    folder.text("labels.yaml", "joy: feeling glad\nfear: feeling threatened\nawe:\n")


def plain_folders(folder: Folder) -> None:
    class_folders(folder, ["images/joy", "images/fear"])


def fi(folder: Folder) -> None:
    class_folders(folder, MIKELS)


def ube(folder: Folder) -> None:
    class_folders(folder, ["anger", "Fear", "joy", "love", "sadness", "surprise"])


def emo8(folder: Folder) -> None:
    class_folders(folder, MIKELS, ["train", "test"])


EMOTION6 = (
    "[image_filename]\t[valence]\t[arousal]\t[prob. anger]\t[prob. disgust]\t[prob. fear]\t"
    "[prob. joy]\t[prob. sadness]\t[prob. surprise]\t[prob. neutral]",
    "anger/1.jpg\t3.5\t6\t0.5\t0.2\t0.1\t0\t0.1\t0.1\t0",
    "anger/2.jpg\t3.5\t6\t0\t0\t0\t0\t0\t0\t1",
    "joy/3.jpg\t8\t6\t0\t0\t0\t0.333\t0.333\t0\t0.333",  # rounded, and a tie
    "joy/4.jpg\t8\t6\t0\t0\t0\t0.4\t0.1\t0\t0",
    "joy/5.jpg\t8\t6\t0\t0\t0\tnan\t0.1\t0\t0.9",
    "joy/gone.jpg\t8\t6\t0\t0\t0\t1\t0\t0\t0",
)


def emotion6(folder: Folder) -> None:
    for number in range(1, 6):
        name = "anger" if number < 3 else "joy"
        folder.picture(f"images/{name}/{number}.jpg", number)
    header, *rows = EMOTION6
    folder.lines("ground_truth.txt", rows, header)


def emotion6_csv(folder: Folder) -> None:
    """Another order of the columns, and pictures in the root."""
    for number in (1, 2):
        folder.picture(f"{number}.jpg", number)
    header = ("name", "valence", "arousal", *("joy", "neutral", "anger", "disgust", "fear"))
    header += ("sadness", "surprise")
    rows = ("1.jpg,8,6,0.75,0.25,0,0,0,0,0", "2.jpg,2,6,0,0,0.5,0.25,0.25,0,0")
    folder.lines("labels/ground_truth.csv", rows, ",".join(header))


def emoset(folder: Folder) -> None:
    """All three lists: rows of three cells in train, of four in the others."""
    for number, label in enumerate(MIKELS[:6]):
        folder.picture(f"image/{label}/{number}.jpg", number)
        said = {"image_id": number, "emotion": label, "brightness": 0.5, "scene": "beach"}
        folder.json(f"annotation/{label}/{number}.json", said | {"object": ["dog"], "human": 1})
    rows = [
        [label, f"image/{label}/{number}.jpg", f"annotation/{label}/{number}.json"]
        for number, label in enumerate(MIKELS[:6])
    ]
    folder.text("annotation/amusement/0.json", "{damaged")
    rows[1][2] = "annotation/anger/gone.json"
    folder.json("train.json", folder.mixed([*rows[:4], rows[3], ["sadness", "gone.jpg", "x"]]))
    longer = [[row[0], str(number), *row[1:]] for number, row in enumerate(rows)]
    folder.json("val.json", folder.mixed([longer[3], longer[4]]))  # the first is one of train
    folder.json("test.json", folder.mixed([longer[5]]))


# Votes: neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF.
VOTES = {
    "fer1.png": (4, 0, 0, 1, 3, 2, 0, 0, 0, 0),
    "fer2.png": (0, 9, 0, 0, 0, 0, 0, 0, 1, 0),
    "fer3.png": (3, 0, 0, 1, 0, 0, 0, 0, 6, 0),  # unknown wins
    "fer4.png": (0, 0, 0, 0, 0, 0, 0, 0, 0, 10),  # not a face
    "fer5.png": (5, 0, 0, 0, 0, 0, 0, 0, 5, 0),  # as many as unknown
    "fer6.png": (5, 5, 0, 0, 0, 0, 0, 0, 0, 0),
    "gone.png": (0, 0, 0, 0, 10, 0, 0, 0, 0, 0),
}
PARTS = {"FER2013Train": "Training", "FER2013Valid": "PublicTest", "FER2013Test": "PrivateTest"}


def ferplus_faces(folder: Folder, below: str) -> list[tuple[str, str]]:
    """Pictures in the three folders; gives folder and name of each that is annotated."""
    names = list(VOTES)
    where = [(part, name) for part, name in zip((*PARTS, *PARTS, *PARTS), names, strict=False)]
    for number, (part, name) in enumerate(where):
        if name != "gone.png":
            folder.picture(f"{below}{part}/{name}", number, (48, 48))
    return where


def ferplus(folder: Folder) -> None:
    """fer2013new.csv, and the pictures below `images`."""
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"
    rows = [
        f"{PARTS[part]},{name},{','.join(map(str, VOTES[name]))}"
        for part, name in ferplus_faces(folder, "images/")
    ]
    rows.append("Training,,0,0,0,0,0,0,0,0,0,10")  # left out of FER+
    folder.lines("fer2013new.csv", rows, header + ",unknown,NF")


def ferplus_parts(folder: Folder) -> None:
    """label.csv in each folder."""
    where = ferplus_faces(folder, "")
    for part in PARTS:
        rows = [
            f'{name},"(0, 0, 48, 48)",{",".join(map(str, VOTES[name]))}'
            for place, name in where
            if place == part
        ]
        folder.lines(f"{part}/label.csv", rows)


def coco(folder: Folder) -> None:
    """Files of two splits; labels are attributes, several a person."""
    number = 0
    for split in ("train", "val"):
        pictures, people = [], []
        for at in range(1, 5):
            name = f"{split}{at}.jpg"
            if at < 4:
                folder.picture(f"images/{split}/{name}", number)
            pictures.append({"id": at, "file_name": name, "width": 64, "height": 48})
            number += 1
        for at, (picture, box, emotions) in enumerate(
            [
                (1, [4, 4, 20, 30], ["joy", "awe"]),
                (1, [30, 4, 20, 30], ["fear"]),
                (1, [30, 4, 20, 30], ["joy"]),  # the same person again
                (2, [4, 4, -20, 30], ["joy"]),  # inverted
                (2, [4, 4, 20], ["joy"]),
                (2, [40, 4, 200, 30], ["joy"]),  # leaves the picture
                (3, [4, 4, 20, 30], []),
                (4, [4, 4, 20, 30], ["joy"]),  # not on the disk
            ]
        ):
            more = {"attributes": {"emotions": emotions}}
            people.append({"id": at, "image_id": picture, "category_id": 1, "bbox": box} | more)
        people.append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [1] * 4, "iscrowd": 1})
        value = {"images": folder.mixed(pictures), "annotations": folder.mixed(people)}
        value["categories"] = [{"id": 1, "name": "person"}]
        folder.json(f"annotations/instances_{split}.json", value)


def coco_shares(folder: Folder) -> None:
    for number in range(3):
        folder.picture(f"{number}.png", number)
    people = [
        {"id": 1, "image_id": 0, "bbox": [4, 4, 20, 30], "labels": {"joy": 0.7, "fear": 0.3}},
        {"id": 2, "image_id": 1, "bbox": [4, 4, 20, 30], "labels": {"joy": 1}},
        {"id": 3, "image_id": 2, "bbox": [4, 4, 20, 30], "labels": {}},
    ]
    pictures = [{"id": number, "file_name": f"{number}.png"} for number in range(3)]
    value = {"images": folder.mixed(pictures), "annotations": folder.mixed(people)}
    folder.json("made.json", value | {"categories": []})


def persons_csv(folder: Folder) -> None:
    """No splits: they are drawn by group or by picture. Some persons have no box."""
    for number in range(7):
        folder.picture(f"own/{number}.jpg", number)
    folder.picture("own/twin.jpg", 6)
    rows = [
        "own/0.jpg,1,1,20,20,joy; awe,film a,p0",
        "own/0.jpg,30,1,60,20,fear,film a,p1",
        "own/1.jpg,1,1,20,20,fear,film a,p2",
        "own/2.jpg,,,,,joy,,p3",
        "own/3.jpg,20,1,1,20,joy,,p4",
        "own/4.jpg,1,,20,20,joy,,p5",
        "own/5.jpg,1,1,20,20,,,p6",
        "own/6.jpg,1,1,20,20,joy,,p7",
        "own/twin.jpg,1,1,20,20,joy,,p8",
        "own/gone.jpg,1,1,20,20,joy,,p9",
    ]
    folder.lines("persons.csv", rows, "path,x1,y1,x2,y2,labels,group,id")


def persons_jsonl(folder: Folder) -> None:
    rows = []
    for number, split in enumerate(("train", "val", "test")):
        folder.picture(f"{number}.png", number)
        folder.picture(f"more {number}.png", number + 10)
        shares = {"joy": 0.5, "fear": 0.25, "awe": 0.25}
        rows.append({"path": f"{number}.png", "labels": shares, "split": split})
        face = {"face": [20, 14, 30, 24], "valence": 3.5}
        rows.append({"path": f"more {number}.png", "labels": {"awe": 1}, "split": split} | face)
    folder.lines("persons.jsonl", map(json.dumps, rows))


EMOTIC = ("Folder", "Filename", "Image Size", "BBox", "Categorical_Labels", "Continuous_Labels")


def emotic(folder: Folder) -> None:
    """The CSV form; a picture and one of its boxes stand in train and in val."""
    for number in range(3):
        folder.picture(f"mscoco/images/{number}.jpg", number)
    rows = {
        "train": [
            ("0.jpg", "[1, 2, 30, 40]", "['Peace', 'Fear']"),
            ("0.jpg", "[30, 2, 90, 40]", "['Pain']"),
            ("1.jpg", "[30, 2, 1, 40]", "['Pain']"),
            ("1.jpg", "[1, 2, 30, 40]", "[]"),
        ],
        "val": [("0.jpg", "[1, 2, 30, 40]", "['Peace']"), ("gone.jpg", "[1, 2, 9, 9]", "['Fear']")],
        "test": [("2.jpg", "[1, 2, 30, 40]", "['Yearning']")],
    }
    for split, some in rows.items():
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(EMOTIC)
        for name, box, labels in folder.mixed(some):
            writer.writerow(["mscoco/images", name, "[64, 48]", box, labels, "[5, 3, 9]"])
        folder.text(f"{split}.csv", text.getvalue())


def struct(*items: dict) -> np.ndarray:
    """A MATLAB struct array (1, N)."""
    array = np.empty((1, len(items)), [(name, object) for name in items[0]])
    for at, item in enumerate(items):
        array[0, at] = tuple(item.values())
    return array


def emotic_mat(folder: Folder) -> None:
    """The official form, which the demo has too."""
    splits = {}
    for number, split in enumerate(("train", "val", "test")):
        pictures = []
        for at in range(2):
            name = f"{split}{at}.jpg"
            folder.picture(f"mscoco/images/{name}", 2 * number + at)
            label = np.array([["Peace" if at else "Fear"]], object)
            said = {"categories": label}
            person = {"body_bbox": np.array([[1, 2, 30, 40]], float)}
            person |= {"annotations_categories": struct(said), "combined_categories": label}
            size = struct({"n_col": 64, "n_row": 48})
            where = {"filename": name, "folder": "mscoco/images", "image_size": size}
            pictures.append(where | {"person": struct(person)})
        splits[split] = struct(*folder.mixed(pictures))
    data = io.BytesIO()
    savemat(data, splits)
    folder.text("Annotations/Annotations.mat", data.getvalue())


Maker = Callable[[Folder], None]
# Every reader with the makers of its forms.
MADE: dict[str, tuple[Maker, ...]] = {
    "caers": (caers_lists, caers_pictures),
    "coco": (coco, coco_shares),
    "demo": (emotic_mat,),
    "emo8": (emo8,),
    "emoset": (emoset,),
    "emotic": (emotic, emotic_mat),
    "emotion6": (emotion6, emotion6_csv),
    "ferplus": (ferplus, ferplus_parts),
    "fi": (fi,),
    "folders": (folders, plain_folders),
    "heco": (heco,),
    "persons": (persons_csv, persons_jsonl),
    "ube": (ube,),
}


def made(maker: Maker, root: Path, seed: int | None = None) -> Path:
    """The root of the folder that `maker` fills."""
    root.mkdir(parents=True, exist_ok=True)
    folder = Folder(root, seed)
    maker(folder)
    return folder.write()
