"""Curves and pictures of a run, for TensorBoard and DVCLive to show."""

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cache.files import write_atomic
from train.uniemox.settings import Descent

Picture = Any  # of PIL, or an array (H, W, 3) of uint8


class Logs:
    """Where `settings.log` says, below `folder`: tensorboard/, a folder in it for each run, and
    dvclive/, of the last run alone.

    What comes first tells what run it is: epoch 1 begins one, a later epoch goes on with the last,
    in place of what it had said of this epoch and those after. DVCLive neither saves an experiment
    nor writes dvc.yaml, and has nothing to do with Git, a DVC repository or the network; its steps
    are epochs. Libraries are loaded when something is there to be logged.
    """

    def __init__(self, folder: Path | str, settings: Descent):
        self.folder, self.settings = Path(folder), settings
        self._open = False
        self._writer: Any = None
        self._live: Any = None

    def row(self, row: Mapping[str, int | float]) -> None:
        """The numbers of an epoch, by name; `epoch` (from 1) is one of them."""
        epoch = int(row["epoch"])
        self._begin(epoch)
        numbers = {name: value for name, value in row.items() if name != "epoch"}
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()  # so that it can be watched
        if self._live is not None:
            self._live.step = epoch
            for name, value in numbers.items():
                self._live.log_metric(name, value)
            self._live.make_summary()

    def picture(self, name: str, picture: Picture, epoch: int) -> None:
        """A picture of an epoch (from 1)."""
        self._begin(epoch)
        pixels = np.asarray(picture)
        if self._writer is not None:
            self._writer.add_image(name, pixels, epoch, dataformats="HWC")
            self._writer.flush()
        if self._live is not None:
            self._live.log_image(f"{name}/{epoch}.png", pixels)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._open, self._writer, self._live = False, None, None

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, epoch: int) -> None:
        if self._open:
            return
        self._open = True
        if "tensorboard" in self.settings.log:
            self._writer = self._tensorboard(epoch)
        if "dvclive" in self.settings.log:
            self._live = _quiet(self.folder / "dvclive", epoch)

    def _tensorboard(self, epoch: int) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        name = f"{type(self.settings).__name__.lower()}_{self.settings.seed}"
        runs = self.folder / "tensorboard"
        before = sorted(runs.glob(f"*_{name}"))  # their names begin with the time
        if epoch > 1 and before:
            return SummaryWriter(before[-1], purge_step=epoch)
        writer = SummaryWriter(runs / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}")
        writer.add_text("settings", f"```\n{self.settings.model_dump_json(indent=1)}\n```")
        return writer


def _quiet(folder: Path, epoch: int) -> Any:
    """A DVCLive that writes below `folder` and does nothing else."""
    from dvclive import Live

    class Quiet(Live):
        # DVCLive makes a DVC repository of every Git repository that it is called in, and posts to
        # DVC Studio where there is a token.
        def _init_dvc(self) -> None:
            self._dvc_file = "dvc.yaml"

        def _init_studio(self) -> None:
            self._studio_events_to_skip = {"start", "data", "done"}

    if epoch > 1:
        _forget(folder / "plots" / "metrics", epoch)
    return Quiet(dir=str(folder), resume=epoch > 1, report=None, save_dvc_exp=False, dvcyaml=None)


def _forget(metrics: Path, epoch: int) -> None:
    """Take out of the curves what they say of this epoch and of later ones."""
    for path in sorted(metrics.rglob("*.tsv")):
        with open(path, newline="", encoding="utf-8") as file:
            heading, *rows = list(csv.reader(file, delimiter="\t")) or [["step"]]
        at = heading.index("step")
        # The last row of a killed run may be half of one.
        before = [row for row in rows if len(row) == len(heading) and int(row[at]) < epoch]
        sink = io.StringIO()
        csv.writer(sink, delimiter="\t", lineterminator="\n").writerows([heading, *before])
        write_atomic(path, sink.getvalue().encode())
