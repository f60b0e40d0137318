"""Real labels: FER+ faces through the real ResNet-50 into the heads, beside plain baselines.

    python benchmarks/faces.py [--train 8000] [--valid 0] [--keep FOLDER] [--seed 0] [--json]

--train and --valid take so many usable faces of a file, drawn once by a fixed seed, so that fewer
are among more; 0 takes all. --keep leaves pictures and cache in FOLDER: the next run, of more
faces or of other heads, extracts only what is missing.

Every face is a picture of its own and the whole of it the person's box; only the body view is
extracted, and the labels view for HEGL. One cache, two labellings of it, by the ten votes a face:

majority  one label, by the rule of FER+'s authors: labels with a single vote lose it, and the
          first one must then have more than half of the votes, else the face is dropped
shares    the votes for the eight emotions / their sum, single votes too

Out of both go faces for which no emotion has more votes than `unknown` or `NF` (not a face), faces
that stand twice in a file (the first stays), and faces of train that stand in valid.

Rows named `pixels` are the same heads on the 48 x 48 grey pixels in place of the body view, and
`scikit-learn` its logistic regression on the 512 leading directions of either, of one label only.

A sixth of the faces of train is held out as the split val: it chooses epoch, settings and penalty.
FER+'s valid is the split test, scored once for each head; FER+'s own test is not used.

FER2013's faces have 48 x 48 grey pixels, enlarged to 128 x 128 here for a network that learned
photographs of things: figures say what these features are worth, not what a face can tell.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from made import ROOT, fill, machine  # isort: split

from PIL import Image
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cache.audit import leaked_persons
from cache.contents import weights_in_words
from cache.errors import DataError
from cache.index import Index
from cache.manifest import write_manifest
from cache.settings import Cache
from cache.spec import ArraySpec, ViewSpec
from cache.store import open_view
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.prepare import prepare
from extract.run import extract
from extract.settings import Data
from pipelines.comparison import compare
from pipelines.evaluation import measure
from pipelines.results import Results
from pipelines.settings import Settings, load
from pipelines.workplace import device_of, networks_of, views_of
from train.checkpoint import fitted_key
from train.metrics import MEASURES, accuracy
from train.run import score, train_head
from train.scores import Scores
from train.settings import Evaluate, Train

FERPLUS = ROOT.parent / "shared/data/ferplus"
FILES = {"train": "ferplus_FER2013Train.npz", "valid": "ferplus_FER2013Valid.npz"}
SIDE = 48
WHOLE = (0, 0, SIDE, SIDE)
SUBSET_SEED = 0
HELD_OUT = 6  # one in so many faces of train
DEFINITIONS = {
    "neutral": "no emotion shown; a calm, expressionless face",
    "happiness": "feeling delighted; feeling enjoyment or amusement",
    "surprise": "sudden discovery of something unexpected",
    "sadness": "feeling unhappy, sorrow, disappointed, or discouraged",
    "anger": "intense displeasure or rage; furious; resentful",
    "disgust": "feeling repulsion or revulsion",
    "fear": "feeling afraid of danger, threat or pain; horror",
    "contempt": "feeling that someone is worthless or beneath oneself; scorn",
}
EMOTIONS = len(DEFINITIONS)  # the first columns of the votes; then unknown and NF
OTHERS = ["head", "objects", "depth", "scene"]
PENALTIES = [1e-5, 1e-4, 1e-3, 1e-2]  # C of scikit-learn, the strongest first
DIRECTIONS = 512  # as many as the head `linear` keeps of a view by default
PACKAGES = ["torch", "torchvision", "scikit-learn", "numpy", "pillow"]


class Majority(Dataset):
    """The faces that `root/faces.json` names, one label each."""

    name, note = "ferplus-majority", "FER+: the label with most of the votes, single ones left out"
    labels, definitions, kind = tuple(DEFINITIONS), DEFINITIONS, "single"

    def records(self):
        for path, split, votes in json.loads((self.root / "faces.json").read_text()):
            person = self.person(split, np.array(votes, np.int16))
            yield PictureRecord(path, split, "FER2013", SIDE, SIDE, [person])

    def person(self, split: str, votes: np.ndarray) -> PersonRecord:
        heard = np.where(votes > 1, votes, 0)
        label = np.zeros(EMOTIONS, np.float32)
        about: dict[str, Any] = {"votes": votes[:EMOTIONS], "annotators": int(votes.sum())}
        if 2 * heard.max() > heard.sum():
            label[heard.argmax()] = 1  # an emotion: faces that unknown or NF wins are not here
        else:
            about |= {"status": "unlabelled", "reason": "no label has more than half of the votes"}
        return PersonRecord(WHOLE, split, label, **about)


class Shares(Majority):
    """The same faces, each with the shares of its votes."""

    name, note = "ferplus-shares", "FER+: the votes for eight emotions / their sum"
    kind = "distribution"

    def person(self, split, votes):
        some = votes[:EMOTIONS]
        shares = (some / some.sum()).astype(np.float32)
        return PersonRecord(WHOLE, split, shares, votes=some, annotators=int(votes.sum()))


def usable(which: str, taken: set[bytes]) -> tuple[dict[str, Any], dict[str, int]]:
    """The faces of a file that can be used, in an order drawn once, and what was dropped and why.

    taken: faces that another file has; those found are added.
    """
    with np.load(FERPLUS / FILES[which]) as file:
        images, votes, names = file["images"], file["votes"], file["names"]
    no_emotion = votes[:, EMOTIONS:].max(1) >= votes[:, :EMOTIONS].max(1)
    dropped: Counter[str] = Counter()
    seen: set[bytes] = set()
    kept = []
    for at, image in enumerate(images):
        pixels = image.tobytes()
        if no_emotion[at]:
            dropped["no emotion has more votes than unknown or NF"] += 1
        elif pixels in taken:
            dropped["the same pixels as a face of valid"] += 1
        elif pixels in seen:
            dropped["the same pixels as an earlier face"] += 1
        else:
            seen.add(pixels)
            kept.append(at)
    taken |= seen
    order = np.random.default_rng(SUBSET_SEED).permutation(kept)
    return {"images": images[order], "votes": votes[order], "names": names[order]}, dict(dropped)


def write_faces(root: Path, train: int, valid: int) -> dict[str, Any]:
    """Pictures and `faces.json` below `root`; how many of each split, and what was dropped."""
    taken: set[bytes] = set()
    rows: list[tuple[str, str, list[int]]] = []
    about: dict[str, Any] = {"dropped": {}, "usable": {}}
    for which, most in (("valid", valid), ("train", train)):
        faces, about["dropped"][which] = usable(which, taken)
        about["usable"][which] = len(faces["names"])
        (root / which).mkdir(parents=True, exist_ok=True)
        for number in range(min(most or len(faces["names"]), len(faces["names"]))):
            path = f"{which}/{faces['names'][number]}"
            if not (root / path).exists():
                Image.fromarray(faces["images"][number]).save(root / path)
            held_out = number % HELD_OUT == 0
            split = "test" if which == "valid" else "val" if held_out else "train"
            rows.append((path, split, faces["votes"][number].tolist()))
    (root / "faces.json").write_text(json.dumps(rows))
    about["splits"] = dict(Counter(split for _, split, _ in rows))
    return about


def candidates(seed: int) -> dict[str, list[Train]]:
    """The heads, and of each the settings that the held-out faces choose among."""

    def several(
        head: str, *owns: dict[str, Any], rates: tuple[float, ...] = (3e-4,)
    ) -> list[Train]:
        base = {"head": head, "seed": seed, "epochs": 30, "batch": 128, "patience": 5}
        return [
            Train.model_validate({**base, "standardise": True, "lr": lr, head: own})
            for lr in rates
            for own in owns
        ]

    penalties = [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    layer = {"views": ["body"], "hidden": [], "dropout": 0.0}
    wide: list[dict[str, Any]] = [{"hidden": [256, 128], "dropout": drop} for drop in (0.2, 0.5)]
    return {
        "linear (ridge)": several(
            "linear", {"views": ["body"], "components": 0, "penalties": penalties}
        ),
        "mlp, no hidden layer": several("mlp", layer, rates=(1e-4, 1e-3)),
        "mlp": several("mlp", *({**own, "views": ["body"]} for own in wide)),
        "hugme without hegl": several(
            "hugme", *({**own, "without": [*OTHERS, "hegl"]} for own in wide)
        ),
        "hugme": several("hugme", *({**own, "without": OTHERS} for own in wide)),
    }


ON_PIXELS = ("linear (ridge)", "mlp, no hidden layer", "mlp")


class Bench:
    """A cache of the faces, the labels it holds now, and what is measured on it."""

    def __init__(self, folder: Path, settings: Settings, seed: int):
        self.folder, self.seed = folder, seed
        self.cache = Cache(root=folder / "features", shard_rows=1024)
        self.pixels = folder / "pixels"
        self.settings = settings.model_copy(update={"cache": self.cache})
        self.device = device_of(settings)
        self.rules = Evaluate()
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - started

    def label(self, reader: type[Dataset]) -> dict[str, int]:
        """Give the cache this reader's labels, extract what is missing; rows extracted by view."""
        data = Data(name=reader.name, root=self.folder / "faces")
        with self.timed("prepare"):
            prepare(data, self.cache.root)
        index = Index.read(self.cache.root)
        found = views_of(self.settings, index)
        views = {name: found[name] for name in ("body", "labels")}
        with self.timed("extract"):
            networks = networks_of(self.settings)
            outcome = extract(data, self.cache, self.settings.extract, views, networks)
        return {name: sum(counts.values()) for name, counts in outcome.rows.items()}

    def run(self, kind: str) -> dict[str, Any]:
        """Every head and baseline on the labels at hand."""
        index, merit = Index.read(self.cache.root), self.merit(kind)
        out = self.folder / "results" / kind
        with self.timed("pixels as a view"):
            self.put_pixels(index)
        tried = candidates(self.seed)
        jobs = [(f"pixels: {name}", self.pixels, tried[name]) for name in ON_PIXELS]
        jobs += [(name, self.cache.root, settings) for name, settings in tried.items()]
        scored: dict[str, Scores] = {}
        chosen: dict[str, Any] = {}
        for name, root, settings in jobs:
            with self.timed(f"{kind}: {name}"):
                scored[name], chosen[name] = self.best_of(root, out / name, settings, merit)
        like = scored["pixels: mlp"]
        rows = {split: self.rows(index, split) for split in ("train", "val", "test")}
        mean = index.targets[rows["train"]].mean(0)
        same = np.broadcast_to(mean, like.y_score.shape)
        scored = {"the mean of train for all": replace(like, y_score=same), **scored}
        if kind == "majority":
            for where, root in (("pixels: ", self.pixels), ("", self.cache.root)):
                name = f"{where}scikit-learn"
                with self.timed(f"{kind}: {name}"):
                    values = open_view(root, "body").read()
                    said, chosen[name] = logistic(values, index.targets, rows, merit)
                scored[name] = replace(scored[f"{where}mlp"], y_score=said)

        leaked = leaked_persons(self.cache.root, "test")
        result: dict[str, Any] = {"rows": {}, "refused": {}, "chosen": chosen}
        for name, scores in scored.items():
            try:
                result["rows"][name] = self.measure(name, scores, mean, leaked, out / name)
            except DataError as error:  # scores of ridge regression are no distribution
                result["refused"][name] = str(error)
        result["evaluated"] = len(like.person_rows)
        result["fitted_on"] = {split: len(rows[split]) for split in ("train", "val")}
        result["persons"] = {
            split: dict(Counter(index.person_status[index.splits == split].tolist()))
            for split in rows
        }
        result["of_each_label"] = dict(zip(index.labels, like.y_true.sum(0).tolist(), strict=True))
        result["cache_key"] = result["rows"]["hugme"]["cache_key"]
        result["leaked"] = len(leaked)
        result["differences"] = {
            f"{b} - {a}": compare(out / a, out / b, self.rules)["measures"]
            for a, b in pairwise(["pixels: mlp", "mlp", "hugme without hegl", "hugme"])
        }
        return result

    def best_of(
        self, root: Path, out: Path, tried: list[Train], merit: Callable[..., float]
    ) -> tuple[Scores, dict[str, Any]]:
        """Fit each, keep the one that is best on val, score test with it."""
        found = []
        for number, settings in enumerate(tried):
            place = out / str(number)
            fitted = train_head(root, settings, self.device, place)
            val = score(root, place / "head", "val", self.device)
            true = val.y_true if val.distribution is None else val.distribution
            found.append((merit(true, val.y_score), number, fitted))
        best, number, fitted = max(found, key=lambda one: one[:2])
        own = getattr(tried[number], tried[number].head).model_dump()
        about = {
            "merit_on_val": round(best, 4),
            "all_merits": [round(one[0], 4) for one in found],
            "lr": tried[number].lr,
            "dropout": own.get("dropout"),
            "best_epoch": fitted["best_epoch"],
            "epochs": fitted["epochs"],
        }
        scores = score(root, out / str(number) / "head", "test", self.device)
        return scores, about

    def measure(
        self, name: str, scores: Scores, mean: np.ndarray, leaked: np.ndarray, out: Path
    ) -> dict[str, Any]:
        key = fitted_key(scores.info, scores.index)
        data = {"dataset": scores.dataset, "note": scores.note, "cache_key": key}
        weights = [one for view in scores.info["views"].values() for one in view["weights"]]
        provenance = {
            **data,
            "fitted_on": data,
            "head": name,
            "seed": self.seed,
            "weights": sorted({weights_in_words(one) for one in weights}),
        }
        if scores.distribution is not None:
            scores = replace(scores, train_mean=mean)
        found = measure(scores, self.rules, provenance, leaked=leaked)
        found.write(Results(out))
        return found.metrics["test"]

    def put_pixels(self, index: Index) -> None:
        """A second cache, of the same persons, whose body view is the grey pixels themselves: so
        the same heads are fitted on them in the same way."""
        paths, width = index.pictures["path"].to_pylist(), SIDE * SIDE
        values = np.empty((len(index.persons), width), np.float16)
        for person, picture in enumerate(index.picture_rows):
            values[person] = np.asarray(Image.open(self.folder / "faces" / paths[picture])).ravel()
        index.write(self.pixels)
        arrays = {"features": ArraySpec((width,), "float16", dims=("feature",))}
        spec = ViewSpec("body", "persons", arrays, {"made": "grey pixels"})
        fill(self.pixels, spec, index.ids("persons"), features=values)
        write_manifest(self.pixels, index.digest())

    @staticmethod
    def rows(index: Index, split: str) -> np.ndarray:
        return np.flatnonzero((index.splits == split) & (index.person_status == "ok"))

    @staticmethod
    def merit(kind: str) -> Callable[[np.ndarray, np.ndarray], float]:
        """What settings are chosen by, on val: accuracy; of shares the cross-entropy, which is
        the KL divergence and a constant, less than nothing so that more is better."""
        if kind == "majority":
            return lambda true, said: float(accuracy(true > 0.5, said))
        return lambda true, said: float((true * np.log(np.maximum(said, 1e-12))).sum(1).mean())


def logistic(
    values: np.ndarray,
    targets: np.ndarray,
    rows: dict[str, np.ndarray],
    merit: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Scores on test of scikit-learn's multinomial logistic regression, its penalty chosen on val:
    a check of the project's own fits by another hand."""
    directions = min(DIRECTIONS, len(rows["train"]) - 1)
    scaled = make_pipeline(StandardScaler(), PCA(directions, svd_solver="covariance_eigh"))
    train = scaled.fit_transform(values[rows["train"]].astype(np.float32))
    seen = {n: scaled.transform(values[rows[n]].astype(np.float32)) for n in ("val", "test")}
    label = targets[rows["train"]].argmax(1)
    model = LogisticRegression(max_iter=100, tol=1e-3, warm_start=True)
    best, merits = None, []
    for penalty in PENALTIES:
        # Its steps are small: threads that wait for each other made them five times as slow.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # `steps` says where it stopped
            model.set_params(C=penalty).fit(train, label)
        said = {name: np.zeros((len(some), EMOTIONS)) for name, some in seen.items()}
        for name, some in seen.items():
            said[name][:, model.classes_] = model.predict_proba(some)
        merits.append(round(merit(targets[rows["val"]], said["val"]), 4))
        if best is None or merits[-1] > best[0]:
            best = merits[-1], penalty, said["test"], int(model.n_iter_.max())
    assert best is not None
    about = {"merit_on_val": best[0], "all_merits": merits, "C": best[1], "steps": best[3]}
    return best[2], about


def table(result: dict[str, Any]) -> Iterator[str]:
    """The figures in lines."""
    for which, reasons in result["dropped"].items():
        for reason, count in reasons.items():
            yield f"{which}: {count} dropped, {reason}"
    for kind, names in (
        ("majority", ["accuracy", "balanced_accuracy", "mAP"]),
        ("shares", MEASURES),
    ):
        found = result[kind]
        without = {s: n for s, n in found["persons"]["test"].items() if s not in ("ok", "removed")}
        yield f"\n{kind}: {found['evaluated']} faces of valid, dropped {without or 'none'}"
        width = max(len(name) for name in found["rows"])
        yield " " * width + "".join(f"{name:>26}" for name in names)
        for name, row in found["rows"].items():
            cells = (
                f"{row[n]:.3f} ({row[f'{n}_low']:.3f} to {row[f'{n}_high']:.3f})" for n in names
            )
            yield f"{name:{width}}" + "".join(f"{cell:>26}" for cell in cells)
        for name, why in found["refused"].items():
            yield f"{name}: {why}"
        for name, measures in found["differences"].items():
            first = next(one for one in measures if one["measure"] in ("accuracy", "kl"))
            yield (
                f"{name}: {first['measure']} {first['difference']:+.4f} "
                f"({first['low']:+.4f} to {first['high']:+.4f}), p {first['p']:.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=8000, help="faces of train; 0: all")
    parser.add_argument("--valid", type=int, default=0, help="faces of valid; 0: all")
    parser.add_argument("--keep", type=Path, help="folder in which pictures and cache stay")
    parser.add_argument("--seed", type=int, default=0, help="of the fits")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()

    if not FERPLUS.exists():
        raise SystemExit(f"needs the FER+ faces in {FERPLUS}")
    for reader in (Shares, Majority):
        dataset(reader.name)(reader)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(asked.keep or Path(temporary), load(ROOT / "params.yaml"), asked.seed)
        with bench.timed("write pictures"):
            about = write_faces(bench.folder / "faces", asked.train, asked.valid)
        result: dict[str, Any] = {
            "machine": {**machine(*PACKAGES), "device": bench.device},
            **about,
            "seeds": {"subset": SUBSET_SEED, "fit": asked.seed, "bootstrap": bench.rules.seed},
            "extracted": {},
        }
        # Shares first: they keep every usable face. The other labels find the features there.
        for kind, reader in (("shares", Shares), ("majority", Majority)):
            result["extracted"][kind] = bench.label(reader)
            result[kind] = bench.run(kind)
        result["weights"] = [
            weights_in_words(one) for one in open_view(bench.cache.root, "body").spec.weights
        ]
        result["seconds"] = {
            **{name: round(took, 1) for name, took in bench.seconds.items()},
            "all": round(time.perf_counter() - started, 1),
        }
    print("\n".join(table(result)))
    if asked.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
