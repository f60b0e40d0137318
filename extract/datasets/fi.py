"""FI (You et al., AAAI 2016): pictures from Flickr and Instagram, eight emotions of Mikels.

In class folders."""

from extract.datasets import dataset
from extract.datasets.folders import Folders


@dataset("fi")
class Fi(Folders):
    """Class folders with the labels of FI, in splits or without."""

    known, title = "mikels", "FI"
