"""COCO-style JSON, as annotation tools write it: images, annotations with a `bbox`, categories.

A person is a box. What they feel is, in this order: `labels` of the annotation (names, or an object
of names and shares); `attributes.emotion` or `.emotions` (as CVAT exports them); its category.
Boxes of one picture that are equal are one person with several labels. Crowds (`iscrowd`) are left
out.

Files are `data.file`, or those found: `instances_*.json`, `_annotations.coco.json` in folders of
splits, or any other `.json` in the root or in `annotations`. The split is in a file's name or its
folder's. Labels are the categories by their number, or the names in use, or those of `labels.yaml`
in the root.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortly
from typing import Any

import numpy as np

from cache.boxes import NO_BOX, Box
from cache.errors import DataError
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import (
    Gathering,
    LabelNames,
    finite,
    json_of,
    kind_of,
    names_in_use,
    number,
    split_of,
    target_of,
)
from extract.definitions import read
from extract.images import is_below

PERSONS = {"person", "people", "human", "face"}  # categories that say nothing of what one feels

PATTERNS = (
    ("instances_*.json", "annotations/instances_*.json"),
    ("_annotations.coco.json", "*/_annotations.coco.json"),
    ("*.json", "annotations/*.json"),
)


@dataclass(frozen=True)
class _Person:
    """One box of a picture with what is said of it, before labels have numbers."""

    box: Box | None
    answers: dict[str, float] | list[str]
    where: str
    by_category: bool = False


@dataclass(frozen=True)
class _Image:
    path: str
    split: str
    size: tuple[int, int] | None
    persons: list[_Person]


@dataset("coco")
class Coco(Dataset):
    """COCO-style JSON. Raises `Faults` for what does not fit together in it."""

    choosable = True

    def __init__(self, root: Path, file: Path | None = None) -> None:
        super().__init__(root)
        self._faults = Gathering()
        self._images: dict[str, _Image] = {}
        categories: list[str] = []
        files = _files(self.root, file)
        for path in files:
            categories = self._read(path, categories)
        self._faults.stop()
        self._settle()
        every = [person.answers for image in self._images.values() for person in image.persons]
        used = {name for answers in every for name in answers}
        own = self.root / "labels.yaml"
        others = sorted({p for some in PATTERNS for one in some for p in self.root.glob(one)})
        for path in others:
            if path not in files:
                self.counts[f"{path.relative_to(self.root)} not read (see data.file)"] += 1
        if own.is_file():
            self.definitions = read(own)
        else:
            names = categories if used <= set(categories) else names_in_use(used)
            self.definitions = {name: name for name in names}
        self.labels = tuple(self.definitions)
        self._names = LabelNames(self.labels, self.counts)
        self.kind = kind_of(every)
        self.splits = tuple(dict.fromkeys(i.split for i in self._images.values() if i.split))
        self.note = f"COCO-style JSON {', '.join(path.name for path in files)}"

    def records(self) -> Iterator[PictureRecord]:
        """Pictures in the order of the files."""
        for image in self._images.values():
            persons = [self._person(person, image.split) for person in image.persons]
            width, height = image.size or (None, None)
            yield PictureRecord(image.path, image.split, "COCO JSON", width, height, persons)
        self._faults.stop()

    def _person(self, person: _Person, split: str) -> PersonRecord:
        labels = np.zeros(len(self.labels), np.float32)
        try:
            labels = target_of(person.answers, self._names, self.kind, person.where)
        except DataError as error:
            self._faults.add(str(error))
        status, reason = "ok", ""
        if not labels.any():
            status, reason = "unlabelled", "no labels"
        if person.box is None:
            status, reason = "bad_box", "the box is not four numbers"
        return PersonRecord(
            person.box or NO_BOX, split, labels, annotators=int(labels.any()), status=status,
            reason=reason,
        )  # fmt: skip

    def _read(self, file: Path, known: list[str]) -> list[str]:
        """Take a file in; gives the names of its categories, by number."""
        found = json_of(file)
        lists = ("images", "annotations", "categories")
        if not isinstance(found, dict) or not all(isinstance(found.get(k), list) for k in lists):
            raise DataError(f"{file} has not the lists {', '.join(lists)}: see data.file")
        categories = {
            one["id"]: str(one["name"]) for one in self._sound(found, lists[2], file, "name")
        }
        names = [
            name for _, name in sorted(categories.items(), key=lambda item: str(item[0]).zfill(9))
        ]
        if known and names != known:
            self._faults.add(f"{file} has other categories than the file before it")
        split = _split(file)
        of: dict[Any, str] = {}
        parents = {
            str(one.get("supercategory")) for one in found[lists[2]] if isinstance(one, dict)
        }
        used = {str(one.get("category_id")) for one in found[lists[1]] if isinstance(one, dict)}
        for number_of, name in categories.items():
            if name in parents and str(number_of) not in used and len(names) > 1:
                names.remove(name)  # the heading that Roboflow writes over the others
        for one in self._sound(found, lists[0], file, "file_name"):
            of[one["id"]] = path = self._path(str(one["file_name"]), file)
            width, height = number(one.get("width")), number(one.get("height"))
            sane = 1 <= width < 2**31 and 1 <= height < 2**31
            size = (int(width), int(height)) if sane else None
            if path in self._images and self._images[path].split != split:
                self.counts["pictures in two files (the first one's split counts)"] += 1
            self._images.setdefault(path, _Image(path, split, size, []))
        for one in self._sound(found, lists[1], file, "image_id"):
            where = f"{file}, annotation {one['id']}"
            image = one["image_id"]
            if not isinstance(image, Hashable) or image not in of:
                self._faults.add(f"{where} is of the image {shortly(image)}, which is not there")
            elif one.get("iscrowd"):
                self.counts["crowds, left out"] += 1
            else:
                try:
                    answers = _answers(one, categories, where)
                except DataError as error:
                    self._faults.add(str(error))
                else:
                    if unread := _unread(one):
                        self.counts[f"annotations whose attribute {unread} is not read"] += 1
                    by_category = _said(one) is None
                    person = _Person(_box(one.get("bbox")), answers, where, by_category)
                    self._take(self._images[of[image]], person)
        return names

    def _settle(self) -> None:
        """Where the categories say no more than `person`, they are no labels."""
        persons = [person for image in self._images.values() for person in image.persons]
        silent = [person for person in persons if person.by_category]
        if not silent or not all(PERSONS.issuperset(person.answers) for person in silent):
            return
        if len(silent) == len(persons):
            raise DataError(
                f"every box is of the category {silent[0].answers}, which is no emotion: give "
                "emotions as categories, as `labels`, or as the attribute `emotion`"
            )
        for person in silent:
            self.counts["persons whose category is no emotion, and who have no labels"] += 1
            person.answers.clear()

    def _take(self, image: _Image, person: _Person) -> None:
        box, new = person.box, person.answers
        twin = next((p for p in image.persons if box is not None and p.box == box), None)
        if twin is not None and isinstance(twin.answers, list) and isinstance(new, list):
            self.counts["equal boxes of one picture, made one person"] += 1
            twin.answers.extend(name for name in new if name not in twin.answers)
        else:
            image.persons.append(person)

    def _sound(
        self, found: Mapping[str, Any], what: str, file: Path, key: str
    ) -> list[dict[str, Any]]:
        """The entries of a list that are objects with an id of their own and a `key`."""
        sound: list[dict[str, Any]] = []
        ids: set[Any] = set()
        for at, one in enumerate(found[what]):
            if (
                not isinstance(one, dict)
                or not _is_name(one.get("id"))
                or key not in one
                or (key != "image_id" and not _is_name(one[key]))
            ):
                self._faults.add(f"{file}, {what}[{at}] has no id or no {key}")
            elif one["id"] in ids:
                self._faults.add(f"{file}, {what}[{at}] has the id {one['id']} of another")
            else:
                ids.add(one["id"])
                sound.append(one)
        return sound

    def _path(self, name: str, file: Path) -> str:
        """The picture below the root: as named, beside its file, or in a folder of the usual
        names."""
        name = name.replace("\\", "/")
        if not is_below(name):
            return name
        below = file.parent.relative_to(self.root).as_posix()
        ending = file.stem.rpartition("_")[2]
        for folder in ("", below, "images", ending, f"images/{ending}"):
            if _is_file(self.root / folder / name):
                return (Path(folder) / name).as_posix()
        return name


def _files(root: Path, file: Path | None) -> list[Path]:
    if file is not None:
        if not is_below(file.as_posix()) or not (root / file).is_file():
            raise DataError(f"there is no {file} in {root}: set data.file to a COCO-style JSON")
        return [root / file]
    for patterns in PATTERNS:
        found = sorted(path for pattern in patterns for path in root.glob(pattern))
        if found:
            return found
    raise DataError(
        f"{root} has no JSON, nor has {root / 'annotations'}: set data.root or data.file"
    )


def _is_name(given: Any) -> bool:
    """Whether it names something: a whole number, or a text without halves of characters."""
    if isinstance(given, str):
        return not any("\ud800" <= sign <= "\udfff" for sign in given)
    return isinstance(given, int) and not isinstance(given, bool)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long
        return False


def _split(file: Path) -> str:
    """Of a file: in its name, else its folder's."""
    for text in (file.stem, file.parent.name):
        for word in re.findall(r"[a-z]+", text.lower()):
            if split := split_of(word):
                return split
    return ""


def _answers(
    one: Mapping[str, Any], categories: Mapping[Any, str], where: str
) -> dict[str, float] | list[str]:
    """What an annotation says of the person. Raises DataError for labels of another form, and for
    a category that is not there."""
    given = _said(one)
    if isinstance(given, str):
        given = [given] if given else []
    if isinstance(given, list | dict) and all(isinstance(n, str) and _is_name(n) for n in given):
        return {n: number(s) for n, s in given.items()} if isinstance(given, dict) else list(given)
    if given is not None:
        raise DataError(f"{where} has labels that are neither names nor shares: {shortly(given)}")
    kind = one.get("category_id")
    if not isinstance(kind, Hashable) or kind not in categories:
        raise DataError(f"{where} has the category {shortly(kind)}, which is not there")
    return [categories[kind]]


def _said(one: Mapping[str, Any]) -> Any:
    """What an annotation says that a person feels, besides its category; None where nothing."""
    given, more = one.get("labels"), one.get("attributes")
    if given is None and isinstance(more, dict):
        given = more.get("emotions", more.get("emotion"))
    return given


def _unread(one: Mapping[str, Any]) -> str:
    """Attributes that may have been meant as labels, where the category was taken for one."""
    more = one.get("attributes")
    if _said(one) is not None or not isinstance(more, dict):
        return ""
    return ", ".join(sorted(str(name) for name, value in more.items() if isinstance(value, str)))


def _box(given: Any) -> Box | None:
    """x1, y1, x2, y2 of COCO's x, y, width, height."""
    if not isinstance(given, list) or len(given) != 4:
        return None
    box = finite([number(side) for side in given])
    return None if box is None else (box[0], box[1], box[0] + box[2], box[1] + box[3])
