"""What stage 1 costs beside its networks: COCO pictures with all their persons, side by side in one
run.

    python benchmarks/extract.py [--pictures 40] [--rounds 4] [--scale 1,2,4] [--json]

ours        `extract` into an empty cache, networks loaded before
networks    the same calls of the same networks, on the tensors that ours gave them, and no more
per person  as it is done without a cache: for each person open the picture, crop, run each
            network on one input, save .npy
peer        Hugging Face `datasets.map` for the one view that it can share, the whole picture
            through ResNet-50, against ours with that view alone

`of_networks_alone` is networks / ours, `times_per_person_way` is per person / ours, both medians
over the rounds (two of them for the per-person way); `per_person_bound` is how many times as many
multiply-adds the per-person way has.
`objects.mask: drop` runs as well: what it saves, and how far its objects are the paper's.
Networks and sizes are those of params.yaml; without --scale, persons are not multiplied.
"""

import argparse
import importlib
import json
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from made import ROOT, machine  # isort: split

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from cache.boxes import square_around
from cache.settings import Cache
from cache.store import open_view
from extract import images
from extract import settings as config
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.loaded import Networks, Timed
from extract.prepare import prepare
from extract.run import extract
from extract.views import View, make_views
from pipelines.settings import Settings, load

COCO = ROOT.parent / "shared/data/coco/coco_mini"
SLOW_ROUNDS = 2  # of the per-person way and of `drop`
PICTURE_VIEWS = ("depth", "scene")
PACKAGES = ["torch", "torchvision", "transformers", "ultralytics", "pillow", "datasets"]


class Coco(Dataset):
    """COCO pictures with every person annotated for itself; `root/people.json` says whom."""

    name, note = "coco", "no emotions: for timing only"
    labels = ("none",)
    definitions = {"none": "nothing is said of emotion here"}  # noqa: RUF012

    def records(self):
        for path, boxes in json.loads((self.root / "people.json").read_text()).items():
            persons = [PersonRecord(tuple(box), "train", np.zeros(1, np.float32)) for box in boxes]
            yield PictureRecord(path, "train", "coco", None, None, persons)


def people(most: int) -> dict[str, list[list[float]]]:
    """Pictures of COCO with their persons' boxes, those with the most persons spread evenly."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for split in ("train2017", "val2017"):
        about = json.loads((COCO / f"annotations/instances_{split}.json").read_text())
        names = {one["id"]: f"{split}/{one['file_name']}" for one in about["images"]}
        person = next(c["id"] for c in about["categories"] if c["name"] == "person")
        for one in about["annotations"]:
            x, y, width, height = one["bbox"]
            if one["category_id"] == person and not one["iscrowd"] and width * height > 400:
                found[names[one["image_id"]]].append([x, y, x + width, y + height])
    names = sorted(name for name in found if (COCO / name).exists())
    return {name: found[name] for name in names[:most]}


class Bench:
    """A data folder with copies of the pictures, and what runs over them."""

    def __init__(self, folder: Path, settings: Settings, pictures: int):
        self.folder, self.settings = folder, settings
        self.people = people(pictures)
        self.data = config.Data(name="coco", root=folder / "data")
        for path in self.people:
            (self.data.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(COCO / path, self.data.root / path)
        (self.data.root / "people.json").write_text(json.dumps(self.people))
        self.index = folder / "index_of"
        prepare(self.data, self.index)
        self.networks = Networks(
            settings.weights, lambda: device_of(settings), batch=settings.extract.batch
        )

    @property
    def persons(self) -> int:
        return sum(map(len, self.people.values()))

    def views(self, mask: str = "subject", only: tuple[str, ...] = ()) -> dict[str, View]:
        section = self.settings.views.objects.model_copy(update={"mask": mask})
        views = self.settings.views.model_copy(update={"objects": section})
        made = make_views(views, self.settings.cache.dtype)
        return {n: v for n, v in made.items() if n != "labels" and (not only or n in only)}

    def ours(self, views: dict[str, View], name: str = "cache") -> dict[str, Any]:
        """Extract everything into an empty cache; gives where the time went."""
        root = self.folder / name
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.index, root)
        cache = Cache(root=root, shard_rows=self.settings.cache.shard_rows)
        return extract(self.data, cache, self.settings.extract, views, self.networks).speed


def device_of(settings: Settings) -> str:
    from pipelines.workplace import device_of as of

    return of(settings)


class Record:
    """The calls of networks, by view, with the very inputs they had."""

    def __init__(self, bench: Bench):
        self.calls: list[tuple[str, Any, tuple, dict]] = []
        views, at, call = bench.views(), threading.local(), Timed.__call__
        for name, view in views.items():
            view.compute = self._naming(name, view.compute, at)  # type: ignore[method-assign]

        def watched(timed: Timed, *inputs: Any, **more: Any) -> Any:
            self.calls.append((at.view, timed.network, inputs, more))
            return call(timed, *inputs, **more)

        Timed.__call__ = watched  # type: ignore[method-assign]
        try:
            bench.ours(views)
        finally:
            Timed.__call__ = call  # type: ignore[method-assign]

    @staticmethod
    def _naming(name: str, compute: Callable[..., Any], at: threading.local) -> Callable[..., Any]:
        def named(*inputs: Any) -> Any:
            at.view = name
            return compute(*inputs)

        return named

    def replay(self) -> Counter:
        """Run them again; seconds by view."""
        seconds: Counter = Counter()
        for view, network, inputs, more in self.calls:
            started = time.perf_counter()
            to_memory(network(*inputs, **more))
            seconds[view] += time.perf_counter() - started
        return seconds

    def operations(self) -> Counter:
        """Multiply-adds by view."""
        counted: Counter = Counter()
        for view, network, inputs, more in self.calls:
            with FlopCounterMode(display=False) as counter:
                network(*inputs, **more)
            counted[view] += counter.get_total_flops() // 2
        return counted


def to_memory(result: Any) -> None:
    """Features come to the processor, as in extraction; detectors bring theirs by themselves."""
    for one in result if isinstance(result, tuple) else (result,):
        if isinstance(one, torch.Tensor):
            one.cpu()


def per_person(bench: Bench) -> None:
    """Today's way, written plainly."""
    views, networks, out = bench.views(), bench.networks, bench.folder / "npy"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    sizes = {name: view.settings.size for name, view in views.items()}

    def features(view: View, crop: Image.Image) -> Any:
        square = crop.resize((sizes[view.name],) * 2, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(square).transpose(2, 0, 1).copy())[None]
        return view.backbone(networks)(pixels)

    def tensor(picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(picture).transpose(2, 0, 1).copy())

    number = 0
    for path, boxes in bench.people.items():
        for box in boxes:
            picture = Image.open(bench.data.root / path).convert("RGB")
            person = picture.crop(tuple(map(round, box)))
            np.save(out / f"{number}.body.npy", features(views["body"], person).cpu())
            (faces,) = views["head"].detector(networks)([tensor(person)])
            if len(faces) and faces.scores.max() >= views["head"].settings.score:
                found = faces.boxes[faces.scores.argmax()] + np.array([box[0], box[1]] * 2)
                square = square_around(tuple(found), 1.6, *picture.size)
                head = picture.crop(tuple(map(round, square)))
                np.save(out / f"{number}.head.npy", features(views["head"], head).cpu())
            masked = Image.fromarray(images.mask_subject(np.array(picture), tuple(box)))
            (things,) = views["objects"].detector(networks)([tensor(masked)])
            wanted = views["objects"].settings
            best = np.argsort(-things.scores)[: wanted.k]
            some = [
                features(views["objects"], masked.crop(tuple(map(round, things.boxes[i])))).cpu()
                for i in best
                if things.scores[i] >= wanted.score and box_has_pixels(things.boxes[i])
            ]
            np.save(out / f"{number}.objects.npy", torch.cat(some) if some else np.zeros((0, 1)))
            depth, map_ = features(views["depth"], picture)
            np.save(out / f"{number}.depth.npy", depth.cpu())
            np.save(out / f"{number}.map.npy", map_.cpu())
            np.save(out / f"{number}.scene.npy", features(views["scene"], picture).cpu())
            number += 1


def box_has_pixels(box: np.ndarray) -> bool:
    return bool(round(box[2]) > round(box[0]) and round(box[3]) > round(box[1]))


def datasets_map(bench: Bench) -> Callable[[], None] | None:
    """Hugging Face datasets: the scene view, batched, written to Arrow."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        return None
    datasets.disable_progress_bars()
    scene = bench.views(only=("scene",))["scene"]
    size, network = scene.settings.size, scene.backbone(bench.networks)

    def embed(batch: dict[str, Any]) -> dict[str, Any]:
        squares = [
            np.array(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
            for picture in batch["image"]
        ]
        pixels = torch.from_numpy(np.stack(squares).transpose(0, 3, 1, 2).copy())
        return {"features": network(pixels).cpu().numpy().astype(np.float16)}

    def run() -> None:
        paths = [str(bench.data.root / path) for path in bench.people]
        made = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
        made.map(
            embed,
            batched=True,
            batch_size=bench.settings.extract.batch,
            remove_columns=["image"],
            load_from_cache_file=False,
            cache_file_name=str(bench.folder / "map.arrow"),
            new_fingerprint=str(time.perf_counter_ns()),
        )

    return run


def agreement(bench: Bench) -> dict[str, Any]:
    """How far the objects of `mask: drop` are those of `mask: subject`, in the caches of both."""
    a, b = (open_view(bench.folder / name, "objects") for name in ("cache", "drop"))
    box, label, count, features = (
        [view.read(name) for view in (a, b)] for name in ("box", "label", "count", "features")
    )
    matched, cosines = 0, []
    for row in range(len(a)):
        for i in range(count[0][row]):
            for j in range(count[1][row]):
                same = label[0][row, i] == label[1][row, j]
                if same and iou(box[0][row, i], box[1][row, j]) > 0.5:
                    matched += 1
                    x, y = (
                        f[row, n].astype(np.float64) for f, n in zip(features, (i, j), strict=True)
                    )
                    cosines.append(float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y))))
                    break
    return {
        "objects_subject": int(count[0].sum()),
        "objects_drop": int(count[1].sum()),
        "of_subject_found": round(matched / max(1, int(count[0].sum())), 3),
        "median_cosine": round(statistics.median(cosines), 4) if cosines else None,
    }


def iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    areas = [np.prod(np.clip(box[2:] - box[:2], 0, None)) for box in (a, b)]
    return float(shared / max(sum(areas) - shared, 1e-9))


def seconds(job: Callable[[], Any]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def side_by_side(bench: Bench, rounds: int) -> dict[str, Any]:
    bench.ours(bench.views())  # loads the networks, warms up
    record = Record(bench)
    operations = record.operations()
    peer = datasets_map(bench)
    took: dict[str, list[float]] = defaultdict(list)
    parts, by_view = [], []
    scene = bench.views(only=("scene",))

    def ours() -> None:
        started = time.perf_counter()
        parts.append(bench.ours(bench.views())["parts"])
        took["ours"].append(time.perf_counter() - started)

    def alone() -> None:
        by_view.append(record.replay())
        took["networks"].append(sum(by_view[-1].values()))

    for number in range(rounds):
        # In turns, so that a machine that slows down or quickens favours neither.
        for job in (ours, alone) if number % 2 == 0 else (alone, ours):
            job()
        took["ours, scene alone"].append(seconds(lambda: bench.ours(scene, "scene")))
        if peer:
            took["datasets.map, scene"].append(seconds(peer))
        if number < SLOW_ROUNDS:
            took["per person"].append(seconds(lambda: per_person(bench)))
            took["ours, drop"].append(seconds(lambda: bench.ours(bench.views("drop"), "drop")))
    share = bench.persons / len(bench.people)

    def bound(cost: Counter) -> float:
        person = sum(cost[name] for name in cost if name not in PICTURE_VIEWS)
        picture = sum(cost[name] for name in PICTURE_VIEWS)
        return round((person + share * picture) / (person + picture), 3)

    def times(slow: str, fast: str) -> float:
        pairs = zip(took[slow], took[fast], strict=False)  # as many as the slower has rounds
        return round(statistics.median(a / b for a, b in pairs), 3)

    by_time: Counter = Counter()
    for one in by_view:
        by_time.update(one)
    return {
        "of_networks_alone": times("networks", "ours"),
        "times_per_person_way": times("per person", "ours"),
        "per_person_bound": bound(operations),
        "per_person_bound_by_time": bound(by_time),
        "drop_saves": round(1 - 1 / times("ours", "ours, drop"), 3),
        "drop": agreement(bench),
        "times_datasets_map": times("datasets.map, scene", "ours, scene alone") if peer else None,
        "median_s": {name: round(statistics.median(all_), 2) for name, all_ in took.items()},
        "parts_s": parts[-1],
        "giga_multiply_adds": {name: round(n / 1e9, 2) for name, n in operations.items()},
    }


def growth(folder: Path, settings: Settings, pictures: int, scale: list[int]) -> list[dict]:
    """Seconds and peak memory as the same pictures come once, twice, four times as others."""
    found: list[dict[str, Any]] = []
    first = Bench(folder / "first", settings, pictures)
    first.ours(first.views())  # loads the networks
    for times in scale:
        bench = Bench(folder / str(times), settings, pictures)
        bench.networks = first.networks
        for copy in range(1, times):  # other bytes, so that they are other pictures
            for path in list(people(pictures)):
                other = f"{copy}/{path}"
                (bench.data.root / other).parent.mkdir(parents=True, exist_ok=True)
                data = (bench.data.root / path).read_bytes()
                (bench.data.root / other).write_bytes(data + b"\0" * copy)
                bench.people[other] = bench.people[path]
        (bench.data.root / "people.json").write_text(json.dumps(bench.people))
        prepare(bench.data, bench.index)
        took = seconds(lambda bench=bench: bench.ours(bench.views()))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found.append(
            {"times": times, "persons": bench.persons, "s": round(took, 2), "peak_MB": round(peak)}
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--scale", default="", help="as 1,2,4: how cost grows, instead")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()

    if not COCO.exists():
        raise SystemExit(f"needs COCO pictures in {COCO}")
    dataset("coco")(Coco)
    settings = load(asked.params, asked.set)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "bench", settings, asked.pictures)
        result: dict[str, Any] = {
            "machine": {**machine(*PACKAGES), "device": device_name(settings)},
            "pictures": len(bench.people),
            "persons": bench.persons,
        }
        if asked.scale:
            scale = [int(times) for times in asked.scale.split(",")]
            result["growth"] = growth(Path(folder), settings, asked.pictures, scale)
        else:
            result |= side_by_side(bench, asked.rounds)
            result["untrained"] = [
                name for name in bench.networks.loaded if not bench.networks.weights(name).trained
            ]
    if asked.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:26}{value}")


def device_name(settings: Settings) -> str:
    device = device_of(settings)
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


if __name__ == "__main__":
    main()
