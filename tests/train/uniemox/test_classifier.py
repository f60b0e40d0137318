import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.mixup import Mixup, mixup_target
from timm.loss import SoftTargetCrossEntropy
from torchvision.transforms.functional import normalize
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from cache.errors import CacheError, DataError, FormatError, WeightsError
from tests.train.uniemox.test_descent import numbers, same
from train.uniemox.classifier import Classifier, mix, smoothed
from train.uniemox.descent import descend
from train.uniemox.pictures import Pictures
from train.uniemox.settings import Finetune

SIZE, WIDTH, LAYERS = 16, 16, 3
LABELS = ("calm", "glad", "sad")
PLAIN = {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0}
ABOUT = {"name": "made by a test"}


def config(**more):
    return ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIZE,
        patch_size=8,
        initializer_range=0.3,
        **more,
    )


def settings(**changes):
    base = {"epochs": 2, "batch": 4, "warmup": 0, "lr": 0.1, "save_every": 0}
    return Finetune.model_validate({**base, **changes})


def classifier(given=None, **changes):
    torch.manual_seed(3)
    encoder = ViTModel(config(), add_pooling_layer=False)
    model = Classifier(encoder, LABELS, given or settings(**changes))
    with torch.no_grad():  # as if it had learned
        model.linear.weight.mul_(30)
    return model.eval()


def pictures(count=6, seed=0):
    draw = np.random.default_rng(seed)
    scene, person = (draw.integers(0, 256, (count, 3, SIZE, SIZE), np.uint8) for _ in range(2))
    labels = torch.arange(count) % len(LABELS)
    return Pictures(
        scene=torch.from_numpy(scene),
        person=torch.from_numpy(person),
        noise=torch.zeros(count, 2, 4),
        whole=torch.zeros(count, dtype=torch.bool),
        row=torch.arange(count),
        target=torch.nn.functional.one_hot(labels, len(LABELS)).float(),
    )


def shares(count=6):
    draws = np.random.default_rng(1).dirichlet(np.ones(len(LABELS)), count)
    return torch.from_numpy(draws).float()


class Source:
    """The same pictures for train and val."""

    def __init__(self, all_of_them):
        self.pictures = all_of_them

    def count(self, split):
        return len(self.pictures)

    def read(self, split, batches, epoch=0):
        for places in batches:
            names = ("scene", "person", "noise", "whole", "row", "target")
            yield Pictures(**{name: getattr(self.pictures, name)[list(places)] for name in names})


def test_one_stream_is_the_classifier_of_transformers():
    model, given = classifier(streams=["scene"]), pictures()
    oracle = ViTForImageClassification(config(num_labels=len(LABELS))).eval()
    oracle.vit.load_state_dict(model.encoder.state_dict())
    oracle.classifier.load_state_dict(model.linear.state_dict())
    seen = normalize(given.scene / 255, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    with torch.no_grad():
        logits = oracle(seen).logits
        torch.testing.assert_close(model.logits(model._pixels(given)), logits)
    torch.testing.assert_close(model.predict(given), logits.softmax(1))


def test_the_class_tokens_of_the_streams_stand_side_by_side():
    model, given = classifier(streams=["person", "scene"]), pictures()
    alone = []
    for name in ("person", "scene"):
        pixels = normalize(getattr(given, name) / 255, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        alone.append(model.encoder(pixels).last_hidden_state[:, 0])
    logits = torch.cat(alone, 1) @ model.linear.weight.T + model.linear.bias
    torch.testing.assert_close(model.predict(given), logits.softmax(1))
    assert model.size == SIZE


def test_pixels_are_shifted_as_the_encoder_is_used_to():
    given = pictures()
    encoder = classifier().encoder
    model = Classifier(encoder, LABELS, settings(), ([0.5] * 3, [0.25] * 3))
    pixels = model._pixels(given)
    torch.testing.assert_close(pixels[:, :3], (given.scene / 255 - 0.5) / 0.25)
    torch.testing.assert_close(pixels[:, 3:], (given.person / 255 - 0.5) / 0.25)


def test_the_first_weights_are_small_and_of_the_seed():
    encoder = ViTModel(config(), add_pooling_layer=False)
    labels = [str(n) for n in range(200)]
    one, two = (Classifier(encoder, labels, settings()).linear for _ in range(2))
    assert torch.equal(one.weight, two.weight) and not one.bias.any()
    assert one.weight.std().item() == pytest.approx(0.01, rel=0.05)
    other = Classifier(encoder, labels, settings(seed=1)).linear
    assert not torch.equal(one.weight, other.weight)


def test_the_loss_is_the_cross_entropy_of_smoothed_targets():
    model, given = classifier(**PLAIN | {"smoothing": 0.3}), pictures()
    logits = model.logits(model._pixels(given))
    labels = given.target.argmax(1)
    target = mixup_target(labels, len(LABELS), smoothing=0.3)
    model.train()
    torch.testing.assert_close(model(given)["loss"], SoftTargetCrossEntropy()(logits, target))
    # Evaluation knows no smoothing.
    model.eval()
    plain = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(model(given)["loss"], plain)
    some = replace(given, target=shares())
    by_hand = -(shares() * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(model(some)["loss"], by_hand)


def test_what_is_measured_are_sums_of_pictures_as_they_are():
    model, given = classifier(mixup=1.0, cutmix=1.0, smoothing=0.2, drop_path=0.5), pictures(7)
    likely = model.predict(given)
    labels = given.target.argmax(1)
    model.train()
    found = model.measure(given)
    torch.testing.assert_close(found["loss"], -likely[range(7), labels].log().sum())
    right = int((likely.argmax(1) == labels).sum())
    assert float(found["accuracy"]) == right and 0 < right < 7
    assert not found["loss"].requires_grad
    halves = [model.measure(Pictures(**{**vars(given), **part})) for part in halved(given, 3)]
    for name, value in found.items():
        torch.testing.assert_close(sum(half[name] for half in halves), value)


def halved(given, at):
    names = ("scene", "person", "noise", "whole", "row", "target")
    for some in (slice(at), slice(at, None)):
        yield {name: getattr(given, name)[some] for name in names}


def test_a_picture_is_predicted_alike_whatever_its_neighbours():
    model, given = classifier(drop_path=0.5), pictures()
    model.train()
    likely = model.predict(given)
    assert likely.shape == (6, 3) and likely.dtype is torch.float32
    torch.testing.assert_close(likely.sum(1), torch.ones(6))
    alone = [model.predict(Pictures(**{**vars(given), **part})) for part in halved(given, 1)]
    torch.testing.assert_close(torch.cat(alone), likely)


def test_pictures_without_labels_are_refused():
    with pytest.raises(DataError, match=r"no labels.*data\.name"):
        classifier().measure(replace(pictures(), target=None))


@pytest.mark.parametrize(
    ("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)], ids=["mixup", "cutmix", "both"]
)
def test_single_labels_are_mixed_as_timm_does(mixup, cutmix):
    given, mixed = pictures(), 0
    pixels, labels = given.scene.float(), given.target.argmax(1)
    oracle = Mixup(mixup, cutmix, label_smoothing=0.1, num_classes=len(LABELS))
    for seed in range(6):
        np.random.seed(seed)
        seen, expected = oracle(pixels.clone(), labels)
        np.random.seed(seed)
        ours = pixels.clone()
        target = mix(ours, smoothed(given.target, 0.1), mixup, cutmix)
        assert torch.equal(ours, seen)
        torch.testing.assert_close(target, expected)
        mixed += not torch.equal(ours, pixels)
    assert mixed >= 4  # a box may have no room


@pytest.mark.parametrize(("mixup", "cutmix"), [(9.0, 0.0), (0.0, 9.0)], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("count", [6, 7])
def test_both_streams_and_the_targets_are_mixed_alike(mixup, cutmix, count):
    """Each picture is a plain colour, so that what is mixed into it can be read off."""
    scene = torch.arange(count).float()[:, None, None, None].expand(-1, 3, SIZE, SIZE)
    pixels = torch.cat([scene, 100 - 2 * scene], 1).contiguous()
    target = torch.eye(count)
    np.random.seed(4)
    mixed = mix(pixels, target, mixup, cutmix)
    own, even = torch.arange(count).float(), count // 2 * 2
    other = own.clone()
    other[:even] = own[:even].flip(0)
    apart = (other - own)[:, None, None, None]
    apart = torch.where(apart == 0, 1.0, apart)
    share = (pixels[:, :3] - scene) / apart  # of the other picture, at each pixel
    torch.testing.assert_close((100 - 2 * scene - pixels[:, 3:]) / (2 * apart), share)
    taken = share.mean((1, 2, 3))
    assert (taken[:even] > 0.05).all() and (taken[:even] < 0.95).all()
    assert not taken[even:].any()  # the last of an odd batch
    if cutmix:
        assert set(share.round(decimals=4).unique().tolist()) == {0, 1}
    expected = target * (1 - taken)[:, None] + torch.eye(count)[other.long()] * taken[:, None]
    torch.testing.assert_close(mixed, expected)


def test_shares_are_mixed_in_proportion():
    given = shares()
    np.random.seed(0)
    mixed = mix(torch.rand(6, 3, SIZE, SIZE), given, 1.0, 0.0)
    np.random.seed(0)
    rate = Mixup(1.0)._params_per_batch()[0]
    torch.testing.assert_close(mixed, rate * given + (1 - rate) * given.flip(0))
    torch.testing.assert_close(mixed.sum(1), torch.ones(6))


def test_nothing_is_mixed_where_nothing_is_asked_for():
    pixels, target = torch.rand(4, 3, SIZE, SIZE), shares(4)
    before = pixels.clone()
    assert mix(pixels, target, 0.0, 0.0) is target and torch.equal(pixels, before)


def test_training_mixes_and_leaves_the_pictures_as_they_were():
    model, given = classifier(smoothing=0.0), pictures()
    before = given.scene.clone()
    losses = set()
    for seed in range(3):
        np.random.seed(seed)
        losses.add(model.train()(given)["loss"].item())
    assert len(losses) == 3 and torch.equal(given.scene, before)


def test_the_learning_rate_falls_layer_by_layer():
    model = classifier(layer_decay=0.5, weight_decay=0.3)
    names = {id(value): name for name, value in model.named_parameters()}
    scale, decay = {}, {}
    for group in model.groups():
        for value in group["params"]:
            scale[names[id(value)]] = group["scale"]
            decay[names[id(value)]] = group["weight_decay"]
    assert scale.keys() == dict(model.named_parameters()).keys()
    # Three blocks: the embeddings are 4 steps below the linear layer.
    of = {"encoder.embeddings.": 0.0625, "encoder.layers.0.": 0.125, "encoder.layers.1.": 0.25}
    of |= {"encoder.layers.2.": 0.5, "encoder.layernorm.": 1.0, "linear.": 1.0}
    for name, value in scale.items():
        assert [value] == [own for start, own in of.items() if name.startswith(start)], name
    matrices = {name for name, value in decay.items() if value == 0.3}
    assert set(decay.values()) == {0.0, 0.3}
    assert matrices == {
        name
        for name in scale
        if name.endswith("weight") and "layernorm" not in name and "token" not in name
    }
    assert "encoder.embeddings.patch_embeddings.projection.weight" in matrices
    # All the same where nothing decays.
    assert {group["scale"] for group in classifier(layer_decay=1.0).groups()} == {1.0}


def test_what_is_fixed_is_in_no_group():
    model = classifier()
    model.encoder.embeddings.position_embeddings.requires_grad_(False)
    every = {id(value) for group in model.groups() for value in group["params"]}
    assert id(model.encoder.embeddings.position_embeddings) not in every
    assert len(every) == len(list(model.parameters())) - 1


def test_a_frozen_encoder_stays_equal_to_the_last_bit_and_draws_nothing():
    given = settings(frozen=True, drop_path=0.9, smoothing=0.0, mixup=0.0, cutmix=0.0)
    model, before = classifier(given), classifier(given)
    descend(model, Source(pictures(8)), given, "cpu", key="made")
    assert same(model.encoder, before.encoder)
    assert not torch.equal(model.linear.weight, before.linear.weight)
    assert [len(group["params"]) for group in model.groups()] == [1, 1]
    assert model.train().training and not model.encoder.training
    some = pictures()
    assert torch.equal(model(some)["loss"], model.eval()(some)["loss"])


def test_blocks_are_left_out_at_a_rising_rate():
    model, given = classifier(drop_path=0.5), torch.rand(400, 3, SIZE, SIZE)
    seen = {}
    for place, block in enumerate(model.encoder.layers):
        block.register_forward_hook(
            lambda _, given, output, place=place: seen.update({place: (given[0], output)})
        )
    model.train()
    with torch.no_grad():
        model.encoder(given)
    for place, rate in enumerate([0.0, 0.25, 0.5]):
        block, (before, after) = model.encoder.layers[place], seen[place]
        with torch.no_grad():
            whole = type(block).forward(block, before)
        left_out = (after == before).flatten(1).all(1)
        assert float(left_out.float().mean()) == pytest.approx(rate, abs=0.08)
        kept = before + (whole - before) / (1 - rate)
        torch.testing.assert_close(after[~left_out], kept[~left_out], rtol=1e-4, atol=1e-5)
    model.eval()
    with torch.no_grad():
        plain = classifier().encoder(given).last_hidden_state
        torch.testing.assert_close(model.encoder(given).last_hidden_state, plain)


def test_it_learns_eight_pictures_by_heart():
    given = settings(epochs=40, batch=8, lr=0.2, warmup=2, **PLAIN)
    model = Classifier(ViTModel(config(), add_pooling_layer=False), LABELS, given)
    source = Source(pictures(8))
    course = descend(
        model, source, given, "cpu", key="made", select=lambda row: row["val_accuracy"]
    )
    assert course.history[course.best_epoch - 1]["val_accuracy"] == 1
    assert float(model.measure(source.pictures)["accuracy"]) == 8
    assert list(course.history[0])[:4] == ["epoch", "loss", "val_loss", "val_accuracy"]


def test_a_run_that_mixes_and_leaves_out_goes_on_to_the_last_bit(tmp_path):
    given = settings(drop_path=0.3, accumulate=2, epochs=3)
    source, path = Source(pictures(16)), tmp_path / "resume.pt"

    def kill(done, *_):
        if done == 3:
            raise InterruptedError

    whole = classifier(given)
    course = descend(whole, source, given, "cpu", key="made")
    with pytest.raises(InterruptedError):
        descend(classifier(given), source, given, "cpu", key="made", resume=path, progress=kill)
    model = classifier(given)
    again = descend(model, source, given, "cpu", key="made", resume=path)
    assert again.resumed == 3 and same(model, whole) and numbers(again) == numbers(course)


def saved(tmp_path, **changes):
    torch.manual_seed(3)
    encoder = ViTModel(config(), add_pooling_layer=False)
    given = settings(streams=["person", "scene"], drop_path=0.2, **changes)
    model = Classifier(encoder, LABELS, given, ([0.5, 0.4, 0.3], [0.25, 0.2, 0.3])).eval()
    model.save(tmp_path / "classifier", ABOUT)
    return model


def test_it_comes_back_from_its_folder(tmp_path):
    model, given = saved(tmp_path), pictures()
    again, info = Classifier.load(tmp_path / "classifier")
    assert not again.training
    assert torch.equal(again.predict(given), model.predict(given))
    assert again.labels == LABELS and again.settings == model.settings
    assert info["name"] == "made by a test" and info["size"] == SIZE
    assert info["streams"] == ["person", "scene"]
    first = contents(tmp_path / "classifier")
    again.save(tmp_path / "classifier", ABOUT)
    assert contents(tmp_path / "classifier") == first
    assert [path.name for path in tmp_path.iterdir()] == ["classifier"]
    assert sorted(first) == [
        "classifier.json",
        "linear.safetensors",
        "uniemox/config.json",
        "uniemox/emocache.json",
        "uniemox/model.safetensors",
        "uniemox/preprocessor_config.json",
    ]


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_transformers_opens_its_encoder(tmp_path):
    model = saved(tmp_path)
    folder = tmp_path / "classifier/uniemox"
    oracle = ViTModel.from_pretrained(folder, add_pooling_layer=False)
    assert same(oracle, model.encoder)
    known = json.loads((folder / "preprocessor_config.json").read_text())
    assert known["size"] == {"height": SIZE, "width": SIZE}
    assert (known["image_mean"], known["image_std"]) == ([0.5, 0.4, 0.3], [0.25, 0.2, 0.3])


@pytest.mark.parametrize("name", ["classifier.json", "linear.safetensors"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path, name):
    saved(tmp_path)
    path = tmp_path / "classifier" / name
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    with pytest.raises(CacheError, match=r"run `emocache finetune` again"):
        Classifier.load(tmp_path / "classifier")
    path.unlink()
    with pytest.raises(CacheError, match=rf"no .*{name}"):
        Classifier.load(tmp_path / "classifier")


def test_another_format_and_a_damaged_encoder_are_refused(tmp_path):
    saved(tmp_path)
    folder = tmp_path / "classifier"
    about = folder / "classifier.json"
    info = json.loads(about.read_text())
    about.write_text(json.dumps({**info, "format": 99}))
    with pytest.raises(FormatError, match="format 99"):
        Classifier.load(folder)
    about.write_text(json.dumps(info))
    (folder / "uniemox/model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="uniemox"):
        Classifier.load(folder)
