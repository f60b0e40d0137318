"""UnBiasedEmo (Panda et al., ECCV 2018): pictures from the web, six emotions. In class folders."""

from extract.datasets import dataset
from extract.datasets.folders import Folders


@dataset("ube")
class Ube(Folders):
    """Class folders with the labels of UnBiasedEmo, in splits or without."""

    known, title = "ube", "UnBiasedEmo"
