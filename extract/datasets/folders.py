"""A folder a class: `<class>/**` or `<train|val|test>/<class>/**`, one label a picture.

For pictures of one's own, and, as `fi`, `ube` and `emo8`, for sets that come so. There are no
boxes: `prepare` looks for the person, and where there is none the whole picture stands for one, as
UniEmoX does. Labels are the names of the folders in alphabetical order, or as `labels.yaml` in the
root has them, with their definitions.
"""

from collections.abc import Iterator
from pathlib import Path

from cache.errors import DataError
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import (
    LabelNames,
    folders_in,
    is_picture,
    pictures_below,
    split_of,
)
from extract.definitions import read, shipped

# Where sets keep their class folders, besides the root.
INNER = ("images", "image", "data", "pictures", "emotion_dataset")


@dataset("folders")
class Folders(Dataset):
    """Pictures in class folders; a set with fixed labels names their file in `known`."""

    kind = "single"
    known = ""  # the file of labels that the set has, below `labels`
    title = "pictures in class folders"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._classes = _classes(self.root)
        self.splits = tuple(dict.fromkeys(split for split, _ in self._classes if split))
        own = self.root / "labels.yaml"
        names = sorted({folder.name for _, folder in self._classes})
        if self.known:
            self.definitions = shipped(self.known)
        else:
            self.definitions = read(own) if own.is_file() else {name: name for name in names}
        self.labels = tuple(self.definitions)
        self._names = LabelNames(self.labels, self.counts)
        self.note = self.title

    def records(self) -> Iterator[PictureRecord]:
        """Pictures by split, class and path."""
        self.counts.clear()
        for place in {folder.parent for _, folder in self._classes}:
            beside = sum(path.is_file() and is_picture(path.name) for path in place.iterdir())
            if beside:
                self.counts["pictures beside the class folders, left out"] += beside
        for split, folder in self._classes:
            labels = self._names.one(self._names.place(folder.name, str(folder)))
            found = pictures_below(folder, self)
            if not found:
                self.counts["class folders without pictures"] += 1
            for path in found:
                person = PersonRecord(None, split, labels)
                yield PictureRecord(path, split, self.title, None, None, [person])


def _classes(root: Path) -> list[tuple[str, Path]]:
    """Each class folder with its split, "" where there are none. Raises DataError where folders
    of splits and of classes stand side by side, or there is neither."""
    places = [root, *(root / name for name in INNER if (root / name).is_dir())]
    for place in places:
        inside = [folder for folder in folders_in(place) if folder.name not in INNER]
        splits = [folder for folder in inside if split_of(folder.name)]
        others = [folder for folder in inside if not split_of(folder.name)]
        if splits and others:
            raise DataError(
                f"{place} has folders of splits ({splits[0].name}) beside others "
                f"({others[0].name}): put each class below its split, or set data.root"
            )
        if splits:
            return [(split_of(s.name), folder) for s in splits for folder in folders_in(s)]
        if others:
            return [("", folder) for folder in others]
    raise DataError(f"{root} has no class folders: set data.root to the folder that holds them")
