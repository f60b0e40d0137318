"""The demo: made-up pictures and labels in EMOTIC's official form, so that its reader runs."""

from pathlib import Path

from extract.datasets import dataset
from extract.datasets.emotic import Emotic


@dataset("demo")
class Demo(Emotic):
    """EMOTIC's reader over the generated scenes; everything it yields was planted by a rule."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.note = "made-up labels, no claim about people"
