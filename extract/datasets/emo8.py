"""Emo8 (UniEmoX's authors): pictures in several styles, eight emotions of Mikels.

In class folders."""

from extract.datasets import dataset
from extract.datasets.folders import Folders


@dataset("emo8")
class Emo8(Folders):
    """Class folders with the labels of Emo8, in splits or without."""

    known, title = "mikels", "Emo8"
