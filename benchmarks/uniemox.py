"""UniEmoX pre-trained at tiny size on real pictures, and what its cached teachers spare.

    python benchmarks/uniemox.py [--parts coco faces epoch] [--seeds 0 1 2] [--json]

coco   pictures of COCO with people: each loss, first epoch and last, on train and held out; the
       pixel error of hidden patches beside that of the mean training picture; all four fusions, and
       without each loss. Descriptions name what the annotation says is in a picture. The teachers
       are CLIP ViT-B/16 in shape and UNTRAINED: there is no hub here, so L2 and L3 show that they
       are descended, and not what CLIP is worth.
faces  FER+ faces: a linear probe on FER+ valid after pre-training, with a trained ResNet-50 as
       teacher of the picture (L1 + L3) or from pixels alone (--losses L1), beside the same net as
       it began, and the teacher itself. No label is seen in pre-training. A sixth of the faces of
       train chooses the penalty; FER+'s valid is scored once.
epoch  an epoch in parts: waiting for pictures, student, teacher; with the teacher's vectors out of
       the cache, and with the teacher run on each batch.

On a GPU: --parts step --encoder large gives seconds and memory of a step at 224 pixels, and the
share of the device's peak that its matrix products reach.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from made import ROOT, machine  # isort: split

import torch
from PIL import Image

from cache.index import Index
from extract.loaded import Networks
from extract.views import Subject
from pipelines import stages
from pipelines.settings import Settings, load
from pipelines.uniemox.pretrain import prepare as fit_of
from pipelines.uniemox.pretrain import pretrain
from pipelines.workplace import networks_of, views_of
from train.uniemox.encoder import save_encoder
from train.uniemox.pictures import Pictures
from train.uniemox.settings import Pretrain
from train.uniemox.student import Student

SHARED = ROOT.parent / "shared/data"
COCO = SHARED / "coco/coco_mini"
FERPLUS = SHARED / "ferplus"
CLIP = "openai/clip-vit-base-patch16"
PACKAGES = ["torch", "torchvision", "transformers", "timm", "pillow"]
WITH_CLIP = (
    "data.follow_links=true",
    f"views.teacher_image.network={CLIP}",
    f"views.teacher_text.network={CLIP}",
    "views.teacher_text.attributes=[object]",
    f"weights.untrained=[{CLIP}]",
    "views.scene.network=null",
    "pretrain.without=[]",
)
EMOTIONS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
FUSIONS = ("weighted", "scaled", "attended", "gated")
ABLATIONS = (["pixels"], ["similarity"], ["image"], ["person"], ["similarity", "image"])
HELD_OUT = 6  # one in so many
BEGAN = "as it began"
WITHOUT = {"L1": ["similarity", "image", "person"], "L1 + L3": ["similarity", "person"]}


# ---- COCO ----------------------------------------------------------------------------------------


def coco_table(folder: Path, most: int | None = None) -> int:
    """persons.jsonl of COCO's pictures with people, the pictures linked beside; how many. most: of
    train, none for all."""
    lines, number, trained = [], 0, 0
    for part in ("train2017", "val2017"):
        path = COCO / f"annotations/instances_{part}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        names = {one["id"]: one["name"] for one in found["categories"]}
        things = defaultdict(list)
        for one in found["annotations"]:
            if not one.get("iscrowd"):
                things[one["image_id"]].append((names[one["category_id"]], one["bbox"]))
        for picture in found["images"]:
            some = things[picture["id"]]
            people = [box for name, box in some if name == "person" and box[2] * box[3] > 32**2]
            if not people or not (COCO / part / picture["file_name"]).exists():
                continue
            if trained == most:
                break
            number += 1
            trained += number % HELD_OUT != 0
            seen = list(dict.fromkeys(name for name, _ in some))
            for x, y, width, height in people:
                lines.append(
                    {
                        "path": f"{part}/{picture['file_name']}",
                        "labels": [seen[0]],
                        "box": [x, y, x + width, y + height],
                        "split": "val" if number % HELD_OUT == 0 else "train",
                        "attributes": {"object": seen},
                    }
                )
    folder.mkdir(parents=True)
    for part in ("train2017", "val2017"):
        if (COCO / part).is_dir():
            (folder / part).symlink_to(COCO / part)
    (folder / "persons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return number


def of_coco(place: Path, epochs: int) -> dict[str, Any]:
    coco_table(place / "data")
    base = settings_of(
        place,
        [
            *WITH_CLIP,
            f"pretrain.epochs={epochs}",
            "pretrain.warmup=3",
        ],
    )
    stages.prepare(base)
    stages.extract(base)
    rows = []
    runs = [{"fusion": name} for name in FUSIONS] + [{"without": some} for some in ABLATIONS]
    for run in runs:
        own = base.pretrain.model_copy(update=run)
        name = run.get("fusion") or "without " + ", ".join(run["without"])
        result = pretrain(base.model_copy(update={"pretrain": own}), out=place / name)
        curve = read_curves(place / name / "curves.csv")
        first, last = curve[0], curve[-1]
        rows.append(
            {
                "run": name,
                **{
                    loss: [first[loss], last[loss], first[f"val_{loss}"], last[f"val_{loss}"]]
                    for loss in result["losses"]
                },
                "mean_picture": last.get("val_mean_pixels"),
                "visible": last.get("val_visible_pixels"),
                "of_mean_picture": result["held_out"].get("of_mean_picture"),
                "untrained": result["untrained"],
                "seconds": result["seconds"],
            }
        )
        note(f"coco {name}: {rows[-1]}")
    return {
        "pictures": result["pictures"],
        "epochs": epochs,
        "cache_key": fit_of(base).cache_key[:12],
        "columns": "each loss: first epoch, last; held out first, last",
        "rows": rows,
    }


def read_curves(path: Path) -> list[dict[str, float]]:
    from pipelines.results import read_csv

    return read_csv(path)


# ---- FER+ ----------------------------------------------------------------------------------------


def faces_table(folder: Path, train: int, valid: int) -> None:
    """Faces as PNG, and persons.jsonl with their shares of votes. train, valid: how many."""
    lines = []
    for file, count in (("Train", train), ("Valid", valid)):
        with np.load(FERPLUS / f"ferplus_FER2013{file}.npz") as packed:
            arrays = {name: packed[name] for name in ("images", "votes")}  # unpacked once
        order = np.random.default_rng(0).permutation(len(arrays["images"]))
        kept = 0
        for at in order:
            votes = arrays["votes"][at].astype(int)
            heard = np.where(votes > 1, votes, 0)
            if heard[:8].sum() == 0 or 2 * heard[:8].max() <= heard.sum():
                continue  # no emotion has more than half of the votes
            path = folder / "faces" / f"{file}{at:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(arrays["images"][at].reshape(48, 48)).save(path)
            split = "test" if file == "Valid" else "val" if kept % HELD_OUT == 0 else "train"
            label = EMOTIONS[int(heard[:8].argmax())]
            name = str(path.relative_to(folder))
            lines.append({"path": name, "labels": [label], "box": [0, 0, 48, 48], "split": split})
            kept += 1
            if kept == count:
                break
    (folder / "persons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def of_faces(
    place: Path, train: int, valid: int, epochs: int, seeds: list[int], losses: list[str]
) -> dict[str, Any]:
    faces_table(place / "data", train, valid)
    base = settings_of(
        place,
        [
            "data.target=single",
            "views.teacher_image.network=resnet50",
            "views.teacher_image.size=96",
            "views.scene.network=null",
            "views.scene.size=48",
            "cache.dtype=float32",
            "pretrain.size=48",
            # Nine large patches of which half are seen: with small ones a net this small has
            # learned nothing of a face after as many steps.
            "pretrain.patch=16",
            "pretrain.masked=0.5",
            "pretrain.crop=[0.7, 1.0]",
            "pretrain.batch=64",
            "pretrain.lr=0.004",
            f"pretrain.epochs={epochs}",
            f"pretrain.warmup={max(1, epochs // 10)}",
        ],
    )
    stages.prepare(base)
    stages.extract(base)
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for name in (BEGAN, *losses):
            out = place / f"{name} {seed}"
            own = base.pretrain.model_copy(
                update={"seed": seed, "without": WITHOUT.get(name, WITHOUT["L1"])}
            )
            started = time.perf_counter()
            if name == BEGAN:
                torch.manual_seed(seed)
                save_encoder(Student.setup(own, None), out / "uniemox", {"name": BEGAN})
            else:
                pretrain(base.model_copy(update={"pretrain": own}), out=out)
            took = time.perf_counter() - started
            rows.append({"encoder": name, "seed": seed, **probed(base, place, out), "took": took})
            note(f"faces {rows[-1]}")
    teacher = probed(base, place, None)
    note(f"faces, the teacher itself: {teacher}")
    return {
        "epochs": epochs,
        "train": train,
        "rows": rows,
        "teacher": teacher,
        "gain": {name: gains(rows, name) for name in losses},
    }


def gains(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Accuracy above that of the same net as it began, paired by seed: mean, least, most."""
    began = {r["seed"]: r["accuracy"] for r in rows if r["encoder"] == BEGAN}
    found = [r["accuracy"] - began[r["seed"]] for r in rows if r["encoder"] == name]
    return {"mean": statistics.mean(found), "least": min(found), "most": max(found)}


def probed(base: Settings, place: Path, out: Path | None) -> dict[str, Any]:
    """A linear head on the scene view of an encoder; of the teacher's network without one."""
    weights, scene = base.weights, base.views.scene
    if out is None:
        scene = scene.model_copy(update={"network": "resnet50", "size": 96})
    else:
        scene = scene.model_copy(update={"network": "uniemox"})
        weights = weights.model_copy(update={"folder": out})
    none = base.views.teacher_image.model_copy(update={"network": None})
    views = base.views.model_copy(update={"scene": scene, "teacher_image": none})
    cache = base.cache.model_copy(update={"root": place / "probe" / (out or place).name})
    linear = base.train.linear.model_copy(update={"views": ["scene"]})
    train = base.train.model_copy(update={"head": "linear", "linear": linear})
    settings = base.model_copy(
        update={"views": views, "cache": cache, "weights": weights, "train": train}
    )
    stages.prepare(settings)
    stages.extract(settings)
    with working_in(cache.root):
        stages.train(settings)
        numbers = stages.evaluate(settings)["test"]
    names = ("accuracy", "accuracy_low", "accuracy_high", "chance_accuracy", "n_evaluated")
    return {n: numbers[n] for n in (*names, "n_dropped", "cache_key")}


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The commands write below the folder that they run in."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


# ---- an epoch in parts ---------------------------------------------------------------------------


def of_epoch(place: Path, pictures: int, rounds: int) -> dict[str, Any]:
    """Seconds of an epoch of a tiny student at 224, with cached teachers and with CLIP ViT-B/16
    in the loop, alternately."""
    coco_table(place / "data", pictures)  # no more than are read have to be extracted
    settings = settings_of(
        place,
        [
            *WITH_CLIP,
            "pretrain.size=224",
            "pretrain.patch=16",
            "pretrain.batch=16",
        ],
    )
    stages.prepare(settings)
    stages.extract(settings)
    fit, networks = fit_of(settings), networks_of(settings)
    index = Index.read(settings.cache.root)
    views = views_of(settings, index)
    places = list(range(min(pictures, fit.source.count("train"))))
    batches = [places[at : at + 16] for at in range(0, len(places), 16)]
    student = Student.setup(fit.settings, fit.teachers.width)
    optimizer = torch.optim.AdamW(student.parameters(), 1e-4)
    taught(list(fit.source.read("train", batches[:1], 1)), views, networks)  # loads the teacher
    took: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for live in (False, True):
            parts = dict.fromkeys(("waiting", "student", "teacher"), 0.0)
            started = last = time.perf_counter()
            for batch in fit.source.read("train", batches, number + 1):
                parts["waiting"] += time.perf_counter() - last
                if live:
                    before = time.perf_counter()
                    taught([batch], views, networks)
                    parts["teacher"] += time.perf_counter() - before
                before = time.perf_counter()
                loss = student(batch)["loss"]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                last = time.perf_counter()
                parts["student"] += last - before
            parts["waiting"] += time.perf_counter() - last  # for the readers to end
            way = "in the loop" if live else "cached"
            took[way].append(time.perf_counter() - started)
            for part, seconds in parts.items():
                took[f"{way}: {part}"].append(seconds)
    middle = {name: round(statistics.median(some), 2) for name, some in took.items()}
    return {
        "pictures": len(places),
        "student": "tiny, 224/16",
        "teacher": f"{CLIP}, picture and text",
        "rounds": rounds,
        "seconds": middle,
        "cached_over_loop": round(middle["cached"] / middle["in the loop"], 3),
    }


def taught(batches: list[Pictures], views: Any, networks: Networks) -> None:
    """The teachers on these pictures, as a loop without a cache would run them."""
    image, text = views["teacher_image"], views["teacher_text"]
    for batch in batches:
        squares = [square.permute(1, 2, 0).numpy() for square in batch.scene]
        image.run([Subject(square) for square in squares], networks)
        text.compute(text.told(batch.row.tolist()), networks)


# ---- a step, for a GPU ---------------------------------------------------------------------------


def of_step(encoder: str, batch: int, rounds: int) -> dict[str, Any]:
    """Seconds and memory of a step at 224/16, and the share of peak of its matrix products."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Pretrain(encoder=encoder)
    student = Student.setup(settings, 512).to(device)
    optimizer = torch.optim.AdamW(student.parameters(), 1e-4, fused=True)
    pictures = Pictures(
        torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8),
        torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8),
        torch.rand(batch, 2, 196),
        torch.zeros(batch, dtype=torch.bool),
        torch.arange(batch),
        torch.randn(batch, 512),
        torch.randn(batch, 512),
        torch.ones(batch, dtype=torch.bool),
    ).to(device)
    precision = torch.bfloat16 if device == "cuda" else torch.float32

    def step() -> None:
        with torch.autocast(device, precision, enabled=device == "cuda"):
            loss = student(pictures)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    side = 8192 if device == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=precision)
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, run in (("step", step), ("product", lambda: a @ a)):
            synchronise(device)
            before = time.perf_counter()
            run()
            synchronise(device)
            took[name].append(time.perf_counter() - before)
    seconds, product = (statistics.median(took[name]) for name in ("step", "product"))
    flops, peak = counter.get_total_flops() / seconds, 2 * side**3 / product
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "encoder": encoder,
        "batch": batch,
        "seconds": round(seconds, 4),
        "pictures_a_second": round(batch / seconds, 1),
        "memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)
        if device == "cuda"
        else None,
        "teraflops": round(flops / 1e12, 2),
        "share_of_a_large_product": round(flops / peak, 3),
    }


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# ---- what they share -----------------------------------------------------------------------------


def settings_of(place: Path, more: list[str]) -> Settings:
    """Those of the demo with data set and cache in `place`, and no view but what `more` says."""
    none = [f"views.{name}.network=null" for name in ("body", "head", "objects", "depth", "labels")]
    return load(
        ROOT / "pipelines/profiles/demo.yaml",
        [
            "data.name=persons",
            f"data.root={place / 'data'}",
            f"cache.root={place / 'features'}",
            "cache.shard_rows=1024",
            *none,
            *more,
        ],
    )


def note(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ["coco", "faces", "epoch"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=[*parts, "step"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--coco-epochs", type=int, default=20)
    parser.add_argument("--losses", nargs="+", default=["L1 + L3"], choices=list(WITHOUT))
    parser.add_argument("--faces", type=int, default=1500, help="of train")
    parser.add_argument("--valid", type=int, default=1000, help="faces of FER+ valid, at most")
    parser.add_argument("--face-epochs", type=int, default=12)
    parser.add_argument("--pictures", type=int, default=64, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", default="tiny", help="of --parts step")
    parser.add_argument("--batch", type=int, default=8, help="of --parts step")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(*PACKAGES)}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if "coco" in asked.parts:
            result["coco"] = of_coco(place / "coco", asked.coco_epochs)
        if "faces" in asked.parts:
            result["faces"] = of_faces(
                place / "faces",
                asked.faces,
                asked.valid,
                asked.face_epochs,
                asked.seeds,
                asked.losses,
            )
        if "epoch" in asked.parts:
            result["epoch"] = of_epoch(place / "epoch", asked.pictures, asked.rounds)
    if "step" in asked.parts:
        result["step"] = of_step(asked.encoder, asked.batch, asked.rounds)
    if asked.json:
        print(json.dumps(result))
        return
    for name, part in result.items():
        note(f"{name}: {json.dumps(part, indent=1)}")


if __name__ == "__main__":
    main()
