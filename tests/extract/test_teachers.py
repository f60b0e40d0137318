"""UniEmoX's teachers: crops as torchvision draws them, numbers as the networks alone give them, and
extractions of a small EmoSet."""

import json
import os
import shutil
import signal
import string
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from cache.keys import differences, key_of
from cache.paths import view_names
from cache.settings import Cache
from cache.statuses import STATUS, USABLE
from cache.store import open_view
from extract import images, run
from extract import settings as config
from extract.backbones import load_backbone
from extract.compute import Work
from extract.estimate import estimate
from extract.loaded import Networks
from extract.plan import make_plan
from extract.repair import repair
from extract.teachers import TeacherImage, TeacherText, make_teachers, random_crop
from extract.views import Subject, give_definitions, make_views
from pipelines.settings import load
from pipelines.workplace import views_of
from tests.extract.datasets.made import Folder, prepared
from tests.extract.test_crash import files
from tests.made_views import Whole

RESNET, BERT = "resnet18", "small-bert"
SHARD_ROWS, PICTURES = 8, 24
WIDTH, LONGEST = 32, 128  # of the BERT
PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


def picture(seed: int, width: int = 60, height: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def image_view(size: int = 64, **settings) -> TeacherImage:
    chosen = config.TeacherImage(network=RESNET, size=size, **settings)
    return TeacherImage(chosen, "float32")


def seen_by(view: TeacherImage, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and flips of a picture's crops."""
    crops = view.prepare(Subject(pixels))
    return crops.boxes, crops.flips


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> config.Weights:
    """Of an untrained ResNet, and of a small BERT that knows letters."""
    folder = tmp_path_factory.mktemp("weights")
    save_bert(folder / BERT)
    return config.Weights(
        source=["folder", "untrained"],
        folder=folder,
        store=folder / "store",
        untrained=[RESNET],
    )


def save_bert(folder: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir()
    letters = string.ascii_lowercase + string.digits
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *letters]
    (folder / "vocab.txt").write_text("\n".join(words + [f"##{one}" for one in letters]))
    torch.manual_seed(5)
    shape = BertConfig(
        vocab_size=len(words) + len(letters),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LONGEST,
    )
    BertModel(shape).save_pretrained(folder)
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


@pytest.fixture
def networks(weights) -> Networks:
    return Networks(weights)


@pytest.fixture(scope="module")
def resnet(weights):
    """Squares (n, S, S, 3) through the backbone, without a view."""
    network = load_backbone(RESNET, weights)
    return lambda squares: network(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)).numpy()


# ---------------------------------------------------------------------------------------- crops


def sizes(boxes: list) -> tuple[np.ndarray, np.ndarray]:
    x1, y1, x2, y2 = np.array(boxes).T
    return x2 - x1, y2 - y1


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.5, 0.6)], ids=str)
def test_crops_are_those_of_torchvision(scale):
    """Where they lie, how large and how wide they are, as distributions of 3,000."""
    wide, high, count = 640, 400, 3000
    draw = np.random.default_rng(5)
    ours = [random_crop((0.0, 0.0, wide, high), scale, draw) for _ in range(count)]
    torch.manual_seed(5)
    blank = torch.zeros((3, high, wide))
    found = [RandomResizedCrop.get_params(blank, scale, (3 / 4, 4 / 3)) for _ in range(count)]
    theirs = [(left, top, left + width, top + height) for top, left, height, width in found]
    measures = []
    for boxes in (ours, theirs):
        width, height = sizes(boxes)
        x1, y1, _, _ = np.array(boxes).T
        share = width * height / wide / high
        measures.append((share, np.log(width / height), x1, y1))
    for one, other in zip(*measures, strict=True):
        assert ks_2samp(one, other).pvalue > 0.01


@pytest.mark.parametrize("wide, high", [(1000, 10), (10, 1000), (1, 1), (1, 90), (7, 2)])
def test_where_no_crop_fits_it_is_the_one_in_the_middle(wide, high):
    blank = torch.zeros((3, high, wide))
    top, left, height, width = RandomResizedCrop.get_params(blank, (1.0, 1.0), (3 / 4, 4 / 3))
    found = random_crop((0.0, 0.0, wide, high), (1.0, 1.0), np.random.default_rng(0))
    assert found == (left, top, left + width, top + height)


@pytest.mark.parametrize("box", [(30.0, 20.0, 80.0, 90.0), (3.2, 4.7, 5.1, 90.9), (7.5, 1, 8, 2)])
def test_a_part_of_a_box_is_of_whole_pixels_that_the_box_touches(box):
    draw = np.random.default_rng(0)
    low, high = np.floor(box[:2]), np.ceil(box[2:])
    found = np.array([random_crop(box, (0.3, 0.9), draw) for _ in range(200)])
    assert (found == np.round(found)).all()
    assert (found[:, :2] >= low).all() and (found[:, 2:] <= high).all()
    assert (found[:, 2:] - found[:, :2] >= 1).all()


def test_crops_lie_in_the_picture_and_have_the_size_that_is_asked_for():
    """To a pixel a side, which is what rounding does."""
    view = image_view(crops=64, scale=(0.3, 0.7))
    flipped = []
    for seed in range(8):
        boxes, flips = seen_by(view, picture(seed, 200, 150))
        assert boxes.shape == (64, 4) and flips.shape == (64,)
        assert (boxes >= 0).all() and (boxes[:, 2] <= 200).all() and (boxes[:, 3] <= 150).all()
        width, height = sizes(boxes.tolist())
        assert ((width + 1) * (height + 1) >= 0.3 * 200 * 150).all()
        assert ((width - 1) * (height - 1) <= 0.7 * 200 * 150).all()
        assert ((width + 1) / (height - 1) >= 3 / 4).all()
        assert ((width - 1) / (height + 1) <= 4 / 3).all()
        flipped += flips.tolist()
    assert set(flipped) == {0, 1} and 0.4 < np.mean(flipped) < 0.6
    assert len(np.unique(seen_by(view, picture(0, 200, 150))[0], axis=0)) > 60


def test_crops_hang_on_pixels_and_seed_alone():
    pixels, other = picture(1), picture(1)
    other[0, 0, 0] ^= 1
    boxes, flips = seen_by(image_view(crops=8), pixels)
    for again in (pixels.copy(), np.asfortranarray(pixels), pixels[::-1][::-1]):
        assert np.array_equal(seen_by(image_view(crops=8, size=96), again)[0], boxes)
        assert np.array_equal(seen_by(image_view(crops=8), again)[1], flips)
    assert np.array_equal(seen_by(image_view(crops=3), pixels)[0], boxes[:3])
    assert np.array_equal(seen_by(image_view(crops=3), pixels)[1], flips[:3])
    assert not np.array_equal(seen_by(image_view(crops=8), other)[0], boxes)
    assert not np.array_equal(seen_by(image_view(crops=8, seed=1), pixels)[0], boxes)


def test_crops_of_one_picture_stay_what_they_are():
    """A cache goes on where it stopped: other crops are another `version` of the view."""
    pixels = np.arange(60 * 40 * 3).astype(np.uint8).reshape(40, 60, 3)
    boxes, flips = seen_by(image_view(crops=3), pixels)
    assert boxes.tolist() == [[2, 8, 28, 31], [11, 6, 43, 40], [10, 10, 41, 39]]
    assert flips.tolist() == [1, 1, 0]


def test_features_of_a_crop_are_those_of_the_backbone_on_it(networks, resnet):
    pictures = [picture(1), picture(2, 33, 71), picture(3, 5, 90)]
    rows = image_view(crops=4).run([Subject(one) for one in pictures], networks)
    assert [row.status for row in rows] == ["ok"] * 3
    mirrored = set()
    for pixels, row in zip(pictures, rows, strict=True):
        squares = []
        for (x1, y1, x2, y2), flip in zip(
            row.values["crop"].astype(int), row.values["flip"], strict=True
        ):
            part = Image.fromarray(pixels[y1:y2, x1:x2])
            square = np.array(part.resize((64, 64), Image.Resampling.BILINEAR))
            squares.append(np.fliplr(square) if flip else square)
            mirrored.add(int(flip))
        found = row.values["features"]
        assert found.shape == (4, 512)
        assert np.abs(found - resnet(squares)).max() < 1e-4
        assert np.abs(found[0] - found[1]).max() > 1e-2
    assert mirrored == {0, 1}


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_without_crops_it_is_the_whole_picture(networks, resnet, fit):
    pixels = picture(4, 90, 30)
    (row,) = image_view(fit=fit).run([Subject(pixels)], networks)
    assert row.values["crop"].tolist() == [[0, 0, 90, 30]] and row.values["flip"].tolist() == [0]
    assert row.values["features"].shape == (1, 512)
    square = images.square(pixels, 64, fit)
    assert np.abs(row.values["features"] - resnet([square])).max() < 1e-4
    if fit == "pad":
        assert np.abs(row.values["features"] - resnet([images.square(pixels, 64)])).max() > 1e-3


class Counting:
    """A backbone whose features are the mean colour, and which counts what it is given at once."""

    width = 3

    def __init__(self):
        self.given: list[int] = []

    def __call__(self, batch):
        self.given.append(len(batch))
        return batch.float().mean((2, 3))


@pytest.mark.parametrize(
    "batch, crops, given", [(8, 3, [6, 6, 3]), (2, 3, [3] * 5), (4, 0, [4, 1]), (99, 1, [5])]
)
def test_crops_of_a_few_pictures_are_in_memory_at_once(batch, crops, given):
    network = Counting()
    few = SimpleNamespace(backbone=lambda *_: network, batch=batch)
    view = image_view(crops=crops)
    subjects = [Subject(picture(number)) for number in range(5)]
    rows = view.run(subjects, few)
    assert network.given == given
    for subject, row in zip(subjects, rows, strict=True):
        squares = view.prepare(subject).squares
        means = [square.mean((0, 1)) for square in squares]
        assert np.allclose(row.values["features"], means, atol=1e-3)


# ----------------------------------------------------------------------------------------- keys


def test_every_setting_of_the_image_is_part_of_its_key(networks):
    given = config.TeacherImage(network=RESNET, crops=2)
    others = {"size": 96, "fit": "pad", "crops": 3, "scale": (0.3, 1.0), "seed": 1}
    assert others.keys() == given.model_fields_set ^ config.TeacherImage.model_fields.keys() | {
        "crops"
    }
    before = TeacherImage(given).parts(networks)
    for name, value in others.items():
        changed = TeacherImage(given.model_copy(update={name: value})).parts(networks)
        assert key_of(changed) != key_of(before)
        assert any(line.startswith(f"settings.{name}: ") for line in differences(before, changed))
    assert before["images"] == images.RULE


def test_a_teacher_without_a_network_is_left_out_and_no_head_has_them(tmp_path):
    assert make_teachers(config.Views(), "float16") == {}
    both = config.Views(
        teacher_image=config.TeacherImage(network=RESNET),
        teacher_text=config.TeacherText(network=BERT),
    )
    assert list(make_teachers(both, "float16")) == ["teacher_image", "teacher_text"]
    assert make_views(both, "float16").keys() == make_views(config.Views(), "float16").keys()


# ---------------------------------------------------------------- extractions of a small EmoSet

SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
FELT = ["awe", "fear", "anger", "sadness"] * 6
SAID = [
    {"scene": "beach", "object": ["Dog"], "brightness": 0.5, "colorfulness": 0.25},
    {"facial_expression": "smile", "human_action": "riding_horse"},
    {"object": ["Tree", "Sea", "Boat"]},
    {},
] * 6
SILENT = (15, 19, 23)  # of val and test, without attributes


class Place:
    """EmoSet in small, and its cache: a person found in the middle of each picture."""

    def __init__(self, root: Path, weights: config.Weights):
        self.data, self.cache, self.weights = root / "data", root / "cache", weights
        folder = Folder(self.data)
        for number in range(PICTURES):
            folder.picture(f"image/{number}.png", number)
        folder.write()
        self.said, self.splits = list(SAID), list(SPLITS)
        self.prepare()

    def prepare(self) -> None:
        folder = Folder(self.data)
        lists = {split: [] for split in ("train", "val", "test")}
        for number, (split, felt) in enumerate(zip(self.splits, FELT, strict=True)):
            folder.json(f"annotation/{number}.json", self.said[number])
            lists[split].append([felt, f"image/{number}.png", f"annotation/{number}.json"])
        for split, rows in lists.items():
            folder.json(f"{split}.json", rows)
        folder.write()
        _, self.index = prepared("emoset", self.data, self.cache)
        assert len(self.index.pictures) == PICTURES

    def views(self, crops: int = 2, **text) -> dict:
        chosen = config.Views(
            teacher_image=config.TeacherImage(network=RESNET, size=32, crops=crops),
            teacher_text=config.TeacherText(network=BERT, **text),
        )
        return make_teachers(chosen, "float32") | {"whole": Whole()}

    def extract(self, views=None, cache=None, workers: int = 0, **more) -> run.Outcome:
        return run.extract(
            config.Data(name="emoset", root=self.data),
            Cache(root=cache or self.cache, shard_rows=SHARD_ROWS),
            config.Extract(batch=4, workers=workers),
            views or self.views(),
            Networks(self.weights),
            **more,
        )

    def descriptions(self, **text) -> dict[int, str]:
        """Of each picture, by the number in its name."""
        views = self.views(**text)
        give_definitions(views, self.index)
        paths = self.index.pictures["path"].to_pylist()
        numbers = [int(Path(path).stem) for path in paths]
        return dict(zip(numbers, views["teacher_text"].descriptions, strict=True))

    def rows(self, *numbers: int) -> list[int]:
        """Of the pictures of these numbers."""
        paths = self.index.pictures["path"].to_pylist()
        return [paths.index(f"image/{number}.png") for number in numbers]


@pytest.fixture
def place(tmp_path, weights):
    return Place(tmp_path, weights)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, weights):
    """Not to be changed."""
    made = Place(tmp_path_factory.mktemp("whole"), weights)
    made.outcome = made.extract()
    return made


def test_descriptions_join_attributes_with_the_label_of_train_alone(whole):
    said = whole.descriptions()
    assert said[0] == (
        "The scene type of this photo is beach. The main subject is Dog. The image has a "
        "brightness of 0.5 and color saturation of 0.25. The overall emotion conveyed is awe."
    )
    assert said[3] == "The overall emotion conveyed is sadness."
    assert said[13] == (
        "Human facial expression is smile. The action being performed is riding horse."
    )
    assert [number for number, text in said.items() if not text] == list(SILENT)
    for number, (split, felt) in enumerate(zip(SPLITS, FELT, strict=True)):
        named = [label for label in whole.index.labels if label in said[number]]
        assert named == ([felt] if split == "train" else [])


def test_teachers_hold_what_their_networks_say(whole, resnet):
    """One sentence, or one picture, at a time."""
    outcome, said = whole.outcome, whole.descriptions()
    assert outcome.rows["teacher_image"] == {"ok": 24}
    assert outcome.rows["teacher_text"] == {"ok": 21, "no_text": 3}
    assert set(outcome.networks) == {RESNET, BERT} and outcome.skipped == {}

    view = open_view(whole.cache, "teacher_text")
    rows = whole.rows(*range(PICTURES))
    features, status, tokens = view.read()[rows], view.status[rows], view.read("tokens")[rows]
    assert np.flatnonzero(status == STATUS["no_text"]).tolist() == list(SILENT)
    assert "no_text" in USABLE and not features[list(SILENT)].any() and view.reasons == {}
    network = load_backbone(BERT, whole.weights)
    for number in np.flatnonzero(status == STATUS["ok"]).tolist():
        assert np.abs(features[number] - network([said[number]])[0].numpy()).max() < 1e-4
        assert tokens[number] == len(network.tokenizer(said[number])["input_ids"])
    assert not tokens[list(SILENT)].any() and view.spec.facts == {"longest": LONGEST}
    assert (tokens > LONGEST).any() and (tokens < LONGEST).any()  # some were cut
    assert np.abs(features[0] - features[4]).max() < 1e-4 < np.abs(features[0] - features[1]).max()

    view = open_view(whole.cache, "teacher_image")
    assert {n: a.shape for n, a in view.arrays.items() if n != "status"} == {
        "features": (24, 2, 512),
        "crop": (24, 2, 4),
        "flip": (24, 2),
    }
    for number, row in enumerate(rows):
        pixels = images.read(whole.data / f"image/{number}.png").pixels
        squares = [
            images.resize(images.crop(pixels, tuple(box)), 32)[:, :: -1 if flip else 1]
            for box, flip in zip(view.read("crop")[row], view.read("flip")[row], strict=True)
        ]
        assert np.abs(view.read()[row] - resnet(squares)).max() < 1e-4


def test_xarray_opens_the_image(whole):
    data = xarray.open_zarr(
        whole.cache / "teacher_image.zarr",
        consolidated=False,
        zarr_format=3,
        mask_and_scale=False,
    )
    assert data.features.dims == ("picture", "crop", "feature")
    view = open_view(whole.cache, "teacher_image")
    assert np.array_equal(data.features.isel(crop=1).values, view.read()[:, 1])
    assert np.array_equal(data["crop"].values, view.read("crop"))


def test_a_second_run_does_nothing(whole):
    before = files(whole.cache)
    outcome = whole.extract()
    assert all(rows.total() == 0 for rows in outcome.rows.values()) and outcome.networks == ()
    assert set(outcome.reasons.values()) == {"up to date"} and files(whole.cache) == before


def untouched(before: dict[str, bytes], after: dict[str, bytes], view: str) -> bool:
    return {path: data for path, data in before.items() if path.startswith(view)} == {
        path: data for path, data in after.items() if path.startswith(view)
    }


@pytest.mark.parametrize("change", ["attribute", "split"])
def test_a_changed_description_makes_the_text_anew_and_reads_no_picture(place, change, monkeypatch):
    place.extract()
    before, text = files(place.cache), open_view(place.cache, "teacher_text").read()
    if change == "attribute":
        place.said[0] = place.said[0] | {"scene": "wood"}
    else:
        place.splits[0], place.splits[23] = "val", "train"
    place.prepare()
    monkeypatch.setattr(images, "load", None)  # whoever opens a picture fails
    views = place.views()
    outcome = place.extract(views)
    assert outcome.networks == (BERT,) and views["whole"].calls == []
    assert outcome.rows["teacher_image"].total() == 0
    assert outcome.rows["teacher_text"].total() == PICTURES
    assert outcome.reasons["teacher_text"].startswith("other key: descriptions: ")
    after = files(place.cache)
    assert untouched(before, after, "teacher_image") and untouched(before, after, "whole")
    moved = np.abs(open_view(place.cache, "teacher_text").read() - text).max(1) > 1e-3
    changed = [0] if change == "attribute" else [0, 23]
    assert sorted(np.flatnonzero(moved)) == sorted(place.rows(*changed))


def test_what_is_described_can_be_chosen(place):
    outcome = place.extract(place.views(attributes=["object"]))
    assert outcome.rows["teacher_text"] == {"ok": 12, "no_text": 12}
    assert place.descriptions(attributes=["object"])[0] == "The main subject is Dog."
    outcome = place.extract(place.views(attributes=["object", "emotion"]))
    assert outcome.rows["teacher_text"] == {"ok": 18, "no_text": 6}
    assert outcome.reasons["teacher_text"].startswith("other key: settings.attributes: ")


def test_text_alone_needs_no_pictures(place):
    place.data.rename(place.data.parent / "away")
    steps = []
    outcome = place.extract(
        {"teacher_text": place.views()["teacher_text"]},
        progress=lambda done, total: steps.append((done, total)),
    )
    assert outcome.rows["teacher_text"].total() == PICTURES
    assert steps == [(8, 24), (16, 24), (24, 24)]


def test_progress_counts_descriptions_and_pictures(whole, tmp_path):
    steps = []
    shutil.copytree(whole.cache / "index", tmp_path / "index")
    whole.extract(cache=tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert steps[:4] == [(8, 48), (16, 48), (24, 48), (28, 48)] and steps[-1] == (48, 48)


def test_an_estimate_counts_descriptions(whole, tmp_path):
    shutil.copytree(whole.cache / "index", tmp_path / "index")
    views = {"teacher_text": whole.views()["teacher_text"]}
    give_definitions(views, whole.index)
    networks, cache = Networks(whole.weights), Cache(root=tmp_path, shard_rows=SHARD_ROWS)
    plan = make_plan(tmp_path, whole.index, views, networks, SHARD_ROWS)
    assert plan.tasks == [] and plan.pictureless == {"teacher_text": list(range(24))}
    assert plan.parts == [{"teacher_text": list(range(at, at + 8))} for at in (0, 8, 16)]
    told, compute = [], views["teacher_text"].compute

    def counted(inputs, networks):
        told.append(len(inputs))
        return compute(inputs, networks)

    views["teacher_text"].compute = counted
    found = estimate(plan, config.Data(), cache, config.Extract(batch=4), views, networks)
    assert told == [1, 4]  # one to load the network, and a batch of six
    assert found.bytes == 24 * (WIDTH * 4 + 2 + 1) and found.pictures == 0
    assert found.parts[f"network {BERT}"] <= found.seconds
    assert list(tmp_path.iterdir()) == [tmp_path / "index"]


def test_damage_is_repaired_alone(place):
    place.extract()
    before = open_view(place.cache, "teacher_text").read()
    shard = place.cache / "teacher_text.zarr/features/c/1/0"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    shutil.rmtree(place.data)
    place.data.mkdir()
    views = place.views()
    done = repair(
        config.Data(name="emoset", root=place.data),
        Cache(root=place.cache, shard_rows=SHARD_ROWS),
        config.Extract(batch=4),
        lambda index: views,
        Networks(place.weights),
    )
    assert done.rows == {"teacher_text": 8} and done.left == [] and views["whole"].calls == []
    assert np.allclose(open_view(place.cache, "teacher_text").read(), before, atol=1e-5)


class Lengths:
    """A text encoder that says how long sentences are."""

    width, longest = 1, 99

    def lengths(self, sentences):
        return [len(one) for one in sentences]

    def __call__(self, sentences, pooling):
        return torch.tensor([[float(length)] for length in self.lengths(sentences)])


class Mortal(TeacherText):
    """Its text is `Lengths`; it kills the process when it computes the part after `parts`."""

    def __init__(self, settings, parts: int = 99):
        super().__init__(settings, "float32")
        self.left, self.calls = parts, 0

    def backbone(self, networks):
        return Lengths()

    def compute(self, inputs, networks):
        if self.calls == self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        return super().compute(inputs, networks)


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_a_kill_between_parts_costs_one_shard(whole, tmp_path, parts):
    chosen = config.TeacherText(network=BERT)
    for name in ("killed", "calm"):
        shutil.copytree(whole.cache / "index", tmp_path / name / "index")
    child = os.fork()
    if not child:
        try:
            whole.extract({"teacher_text": Mortal(chosen, parts)}, cache=tmp_path / "killed")
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    kept = open_view(tmp_path / "killed", "teacher_text").done.sum() if parts else 0
    assert kept == parts * SHARD_ROWS
    again, calm = Mortal(chosen), Mortal(chosen)
    outcome = whole.extract({"teacher_text": again}, cache=tmp_path / "killed")
    assert outcome.rows["teacher_text"].total() == 24 - kept and again.calls == 3 - parts
    whole.extract({"teacher_text": calm}, cache=tmp_path / "calm")
    assert files(tmp_path / "killed") == files(tmp_path / "calm")


@pytest.mark.slow
def test_another_process_gives_the_same(whole, tmp_path, monkeypatch):
    def here(*_):
        raise AssertionError("computed in the process of the test")

    shutil.copytree(whole.cache / "index", tmp_path / "index")
    for name in ("compute", "pictureless"):
        monkeypatch.setattr(Work, name, here)
    outcome = whole.extract(cache=tmp_path, workers=1)
    assert outcome.rows == whole.outcome.rows
    for name in view_names(tmp_path):
        ours, theirs = open_view(tmp_path, name), open_view(whole.cache, name)
        assert ours.key == theirs.key and np.array_equal(ours.status, theirs.status)
        for array in ours.arrays:
            assert np.allclose(ours.read(array), theirs.read(array), atol=1e-4)


def test_the_longest_text_and_none_at_all():
    view = Mortal(config.TeacherText(network=BERT))
    long, nothing = view.run(["a" * 40_000, ""], None)
    assert long.values["tokens"] == 2**15 - 1 and long.values["features"] == [40_000]
    assert nothing.status == "no_text" and not nothing.values
    assert [row.status for row in view.run(["", ""], None)] == ["no_text"] * 2


def test_text_has_no_key_before_it_knows_the_index(networks):
    view = TeacherText(config.TeacherText(network=BERT))
    with pytest.raises(ValueError, match="'teacher_text' has no key before `give_definitions`"):
        view.key(networks)


def test_the_key_hangs_on_who_is_described_how(whole, networks):
    def key(index) -> str:
        view = TeacherText(config.TeacherText(network=BERT))
        view.know(index)
        return view.key(networks)

    pictures = whole.index.pictures
    said = pictures["attributes"].to_pylist()
    assert key(whole.index) == key(whole.index)
    keys = {key(whole.index)}
    one, other = whole.rows(12, 13)  # of val: the same texts, exchanged
    swapped = list(said)
    swapped[one], swapped[other] = said[other], said[one]
    for texts in (["", *said[1:]], [json.dumps({"scene": "wood"}), *said[1:]], swapped):
        at = pictures.schema.get_field_index("attributes")
        table = pictures.set_column(at, "attributes", [texts])
        keys.add(key(replace(whole.index, pictures=table)))
    keys.add(key(replace(whole.index, persons=whole.index.persons.slice(1))))
    assert len(keys) == 5


def test_the_decoder_is_no_part_of_the_texts_key(whole, networks):
    views = whole.views()
    give_definitions(views, whole.index)
    assert views["teacher_text"].parts(networks)["images"] == {}
    assert views["teacher_image"].parts(networks)["images"] == images.RULE


def test_the_settings_make_them_beside_the_other_views(whole):
    said = ["data.name=emoset", f"cache.root={whole.cache}", "views.teacher_image.network=resnet18"]
    settings = load(PARAMS, [*said, f"views.teacher_text.network={BERT}"])
    views = views_of(settings, whole.index)
    assert list(views)[-2:] == ["teacher_image", "teacher_text"]
    assert len(views["teacher_text"].descriptions) == PICTURES
    assert "teacher_text" not in views_of(load(PARAMS, said), whole.index)
