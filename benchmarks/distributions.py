"""Label distributions of real data: HeLo beside an MLP, AA-kNN and SA-BFGS, in the same folds.

    python benchmarks/distributions.py [--sets SJAFFE emotion6 ...] [--all] [--seed 0]
                                       [--keep FOLDER] [--json]

SJAFFE, SBU_3DFE, emotion6 and Movie come with features; every row is a sample. Of FER+'s valid
faces the features are ResNet-50's on the whole face, 48 x 48 pixels enlarged to 128 x 128, and
the distribution is that of the votes. Without --sets: SJAFFE and emotion6, some minutes; --all:
all five, an hour or more on 2 cores.

Ten folds; the people of SJAFFE and SBU_3DFE are known, so the folds are of people (`groups`).
Published figures part rows, not people: those sets are measured so as well, under the name
`leaking`.

One tenth of the units chooses the epoch. All heads have the settings below, chosen before any of
these figures was seen. SA-BFGS' penalty, its default, was chosen on three of ten folds of SJAFFE,
SBU_3DFE and emotion6 once, which can only favour it. These sets have one modality, so that HeLo has
no cross-attention and no transport here: what is left of it is the label part.
"""

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from made import ROOT, machine  # isort: split

from extract.run import extract
from pipelines import stages
from pipelines.settings import Settings, load
from pipelines.studies.crossval import crossval
from pipelines.studies.crossval_page import differences_of, table_of
from pipelines.studies.rendering import Table
from pipelines.workplace import index_of, networks_of, views_of

SHARED = ROOT.parent / "shared/data"
SETS = ("SJAFFE", "SBU_3DFE", "emotion6", "Movie", "ferplus")
USUAL = ("SJAFFE", "emotion6")
PEOPLE = ("SJAFFE", "SBU_3DFE")  # sets that say whose face it is
HEADS = ["helo", "mlp", "aa_knn", "sa_bfgs"]
ONE_VIEW = [  # of pictures, where the other views are not extracted
    "train.helo.physiological=[body]",
    "train.helo.behavioural=[]",
    *(f"train.{head}.views=[body]" for head in HEADS[1:]),
]
TRAIN = [
    "train.standardise=true",
    "train.lr=3e-4",
    "train.batch=32",
    "train.epochs=100",
    "train.patience=10",
    "device=auto",
]


def settings_of(folder: Path, data: list[str], more: list[str]) -> Settings:
    """Of this project's own params.yaml with some changed."""
    places = [f"cache.root={folder / 'features'}", *data, *more]
    return load(ROOT / "params.yaml", [*places, *TRAIN])


def ready(settings: Settings, views: tuple[str, ...] | None = None) -> None:
    """Prepare and extract; views: those of pictures that are wanted."""
    stages.prepare(settings)
    index = index_of(settings)
    every = views_of(settings, index)
    some = {name: every[name] for name in views or every}
    extract(settings.data, settings.cache, settings.extract, some, networks_of(settings))


def of_set(name: str, folder: Path) -> list[str]:
    """The settings under which a set's data lie in the cache; made where they are not yet."""
    if name != "ferplus":
        data = ["data.name=ldl", f"data.root={SHARED / 'ldl'}", f"data.file={name}.mat"]
        ready(settings_of(folder, data, []))
        return data
    data = ["data.name=ferplus", f"data.root={folder / 'faces'}", *ONE_VIEW]
    if not (folder / "faces").is_dir():
        arrays = [SHARED / "ferplus/ferplus_FER2013Valid.npz"]
        stages.unpack(settings_of(folder, data, []), arrays)
    ready(settings_of(folder, data, []), ("body",))
    return data


def measured(settings: Settings) -> dict[str, Any]:
    """Cross-validation in the present folder, and how long it took."""
    started = time.perf_counter()
    result = crossval(settings)
    return {**result, "seconds": round(time.perf_counter() - started, 1)}


def show(title: str, result: dict[str, Any]) -> None:
    """Print tables for people."""
    print(f"\n{title}: N {result['rows'][0]['n_evaluated']:,}, {result['folds']}")
    tables: list[Table | None] = [table_of(result), differences_of(result)]
    for table in tables:
        if table is not None:
            print("\n" + table.title)
            for row in (table.columns, *table.rows):
                print("  " + " | ".join(row))
    print(f"seed {result['seed']}, cache key {result['rows'][0]['cache_key']}, "
          f"{result['seconds']} s")  # fmt: skip


def parsed(parser: argparse.ArgumentParser, epochs: int) -> argparse.Namespace:
    """The arguments, with those that benchmarks of cross-validation share."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(USUAL))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--folds", type=int, default=10)
    given = parsed(parser, epochs=100)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        base = (given.keep or Path(temporary)).resolve()
        for name in SETS if given.all else given.sets:
            folder = base / name
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.chdir(folder):
                data = of_set(name, folder)
                for protocol in ("groups", "leaking") if name in PEOPLE else ("random",):
                    heads = json.dumps(HEADS)
                    more = [
                        f"folds.protocol={protocol}",
                        f"folds.heads={heads}",
                        f"folds.k={given.folds}",
                        f"folds.seed={given.seed}",
                        f"train.seed={given.seed}",
                    ]
                    settings = settings_of(folder, data, more)
                    train = settings.train.model_copy(update={"epochs": given.epochs})
                    result = measured(settings.model_copy(update={"train": train}))
                    found[f"{name}, {protocol}"] = result
                    if not given.json:
                        show(f"{name}, {protocol}", result)
    if given.json:
        print(json.dumps({"machine": machine(), "sets": found}))
    else:
        print(f"\n{machine()}")


if __name__ == "__main__":
    main()
