"""Backbones against torchvision and transformers used directly, and against sums by hand."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from cache.errors import SettingsError, WeightsError
from extract.backbones import backbones, load_backbone
from extract.backbones.midas import CONFIGS, Depth
from extract.backbones.resnet import IMAGENET, ResNet
from extract.backbones.text import HashedWords, Text
from extract.settings import Weights as WeightsSettings
from tests.networks import given, real, saved, shake, untrained

# Neighbours change the order of a sum inside a convolution, nothing more: relative to the
# largest feature. (float16, in which features are kept, has steps of 5e-4.)
TOLERANCE = 1e-5


def astronaut(side: int) -> torch.Tensor:
    """A real photograph, uint8 (3, side, side)."""
    from skimage import data, transform

    picture = transform.resize(data.astronaut(), (side, side), anti_aliasing=True)
    return torch.from_numpy((picture * 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


def several(side: int) -> torch.Tensor:
    one = astronaut(side)
    noise = torch.randint(0, 256, one.shape, dtype=torch.uint8, generator=torch.manual_seed(0))
    return torch.stack([one, one.flip(2), noise, 255 - one, torch.zeros_like(one)])


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max())


# -------------------------------------------------------------------------------- the register


def test_importing_and_describing_loads_no_network_library():
    code = (
        "import sys\n"
        "import extract.backbones as b, extract.detectors as d\n"
        "b.backbones.names(); d.detectors.names()\n"
        "heavy = {'torch', 'torchvision', 'transformers', 'ultralytics'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(SettingsError, match=r"'resnet5O'; did you mean 'resnet50'"):
        backbones.get("resnet5O")
    with pytest.raises(SettingsError, match=r"did you mean 'intel/dpt-hybrid-midas'"):
        backbones.get("Intel/dtp-hybrid-midas")


def test_a_network_of_the_wrong_kind_is_refused():
    with pytest.raises(SettingsError, match="is for picture, but this place needs depth"):
        backbones.get("resnet50", "depth")


def test_any_name_of_a_depth_or_text_network_is_taken_when_the_kind_is_said():
    assert backbones.get("my-own-encoder", "text") is Text
    assert backbones.get("my-own-depth", "depth") is Depth
    with pytest.raises(SettingsError):
        backbones.get("my-own-network", "picture")


def test_loading_by_name_takes_untrained_only_when_named():
    settings = WeightsSettings(source=["untrained"], untrained=["resnet18"])
    network = load_backbone("resnet18", settings)
    assert not network.weights.trained
    assert "untrained" in network.preprocessing
    assert network.preprocessing == backbones.describe(network.weights)


# -------------------------------------------------------------------------------------- ResNet


def test_resnet_equals_torchvision_with_torchvisions_own_preprocessing(tmp_path):
    model = shake(torchvision.models.resnet50(weights=None))
    network = ResNet(saved("resnet50", model, tmp_path))
    pictures = several(128)
    preset = torchvision.models.ResNet50_Weights.DEFAULT.transforms(crop_size=128, resize_size=128)
    model.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = model(preset(pictures))
    assert network.width == 2048
    assert network(pictures).shape == (5, 2048)
    assert close(network(pictures), expected)


def test_resnet_takes_the_normalisation_that_its_weights_state(tmp_path):
    model = shake(torchvision.models.resnet18(weights=None))
    keras = {"scale": 1.0, "mean": [123.68, 116.779, 103.939], "std": [1.0, 1.0, 1.0]}
    network = ResNet(saved("resnet18", model, tmp_path, preprocessing=keras))
    pictures = several(64)
    model.fc = torch.nn.Identity()
    mean = torch.tensor([123.68, 116.779, 103.939])[:, None, None]
    with torch.inference_mode():
        expected = model(pictures.float() - mean)
    assert close(network(pictures), expected)
    assert network.preprocessing["mean"] == keras["mean"]


@pytest.mark.parametrize(
    "file, expected, sure", [("bus.jpg", "minibus", 0.74), ("zidane.jpg", "suit", 0.80)]
)
def test_resnet_with_real_weights_knows_what_it_sees(file, expected, sure):
    """Features times the classifier of the same file: ImageNet's class of a real photograph, as
    measured with these weights elsewhere. With the stride in torchvision's place the classes
    still come out right, at 0.64 and 0.19: so the probabilities are held, too."""
    from safetensors import safe_open

    network = load_backbone("resnet50", real("resnet50"))
    folder = Path(importlib.util.find_spec("ultralytics").origin).parent / "assets"
    with Image.open(folder / file) as picture:
        scale = 256 / min(picture.size)
        size = [round(side * scale) for side in picture.size]
        picture = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        pixels = np.array(picture.crop((left, top, left + 224, top + 224)))
    features = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    with safe_open(network.weights.path, "pt") as tensors:
        scores = features @ tensors.get_tensor("fc.weight").T + tensors.get_tensor("fc.bias")
    best = scores.softmax(dim=1)[0].max(dim=0)
    classes = torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"]
    assert classes[best.indices] == expected
    assert best.values == pytest.approx(sure, abs=0.02)


def test_stride_moves_where_the_weights_say_so(tmp_path):
    model = shake(torchvision.models.resnet50(weights=None))
    facts = IMAGENET | {"stride": "first convolution"}
    network = ResNet(saved("resnet50", model, tmp_path, preprocessing=facts))
    strides = [
        (block.conv1.stride, block.conv2.stride)
        for layer in (network.model.layer1, network.model.layer2, network.model.layer4)
        for block in layer[:2]
    ]
    one, two = (1, 1), (2, 2)
    assert strides == [(one, one), (one, one), (two, one), (one, one), (two, one), (one, one)]


def test_resnet_refuses_a_file_that_does_not_fit(tmp_path):
    model = torchvision.models.resnet18(weights=None)
    del model.layer4
    with pytest.raises(WeightsError, match=r"tensors missing.*layer4"):
        ResNet(saved("resnet18", model, tmp_path))
    (tmp_path / "weights.safetensors").write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match="does not hold weights of resnet18"):
        ResNet(given("resnet18", tmp_path / "weights.safetensors"))


def test_resnet_refuses_pictures_already_scaled():
    with pytest.raises(ValueError, match="uint8"):
        ResNet(untrained("resnet18"))(torch.rand(1, 3, 64, 64))


def test_untrained_is_the_same_each_time_and_leaves_the_generator_alone():
    pictures = several(64)
    torch.manual_seed(7)
    first = ResNet(untrained("resnet18"))(pictures)
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(ResNet(untrained("resnet18"))(pictures), first)


# --------------------------------------------------------------------------------------- depth


def tiny_dpt(**more):
    from transformers import DPTConfig

    return DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
        **more,
    )


@pytest.fixture
def dpt_folder(tmp_path):
    from transformers import DPTForDepthEstimation

    torch.manual_seed(3)
    DPTForDepthEstimation(tiny_dpt()).save_pretrained(tmp_path)
    return tmp_path


def test_depth_equals_transformers_and_pools_the_last_hidden_state(dpt_folder):
    from transformers import DPTForDepthEstimation, DPTImageProcessor

    network = Depth(given("my/dpt", dpt_folder))
    pictures = several(64)
    processor = DPTImageProcessor(do_resize=False)  # mean and deviation of one half
    pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
    model = DPTForDepthEstimation.from_pretrained(dpt_folder).eval()
    with torch.inference_mode():
        expected = model(pixel_values=pixels, output_hidden_states=True)
    features, maps = network(pictures)
    assert maps.shape == expected.predicted_depth.shape == (5, 64, 64)
    assert torch.allclose(maps, expected.predicted_depth, rtol=1e-4, atol=1e-6)
    assert close(features, expected.hidden_states[-1][:, 1:].mean(dim=1))
    assert network.width == features.shape[1] == 32
    assert network.size == 64


def test_depth_reads_the_normalisation_of_its_folder(dpt_folder):
    facts = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 0.01}
    (dpt_folder / "preprocessor_config.json").write_text(json.dumps(facts))
    said = Depth(given("my/dpt", dpt_folder)).preprocessing
    assert (said["mean"], said["std"], said["scale"]) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4], 0.01)


def test_depth_refuses_a_folder_with_a_tensor_missing(dpt_folder):
    from safetensors.torch import load_file, save_file

    path = dpt_folder / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if "head.head.0.weight" not in k}, path)
    with pytest.raises(WeightsError, match=r"lacks 1 tensors of my/dpt \['head.head.0.weight'\]"):
        Depth(given("my/dpt", dpt_folder))


def test_depth_refuses_pickled_weights(tmp_path):
    from transformers import DPTForDepthEstimation

    model = DPTForDepthEstimation(tiny_dpt())
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"weights.folder and views.depth.network"):
        Depth(given("my/dpt", tmp_path))


def test_depth_of_a_name_without_a_known_shape_cannot_be_untrained():
    with pytest.raises(SettingsError, match=r"cannot run untrained: choose views.depth.network"):
        Depth(untrained("my/dpt-of-no-known-shape"))


@pytest.mark.parametrize("name", ["intel/dpt-swinv2-tiny-256", "intel/dpt-hybrid-midas"])
def test_untrained_depth_sees_the_picture(name):
    network = Depth(untrained(name))
    features, maps = network(several(network.size)[:2])
    assert features.shape == (2, network.width)
    assert maps.shape == (2, network.size, network.size)
    assert torch.isfinite(features).all() and torch.isfinite(maps).all()
    assert features.abs().max() < 65504  # float16 can hold it
    assert not torch.allclose(features[0], features[1])
    assert maps[0].std() > 0


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_known_depth_shapes_are_whole(name):
    """Each known shape builds (on the meta device: no memory, no time)."""
    from transformers import AutoModelForDepthEstimation

    from extract.backbones.midas import config_of, side_of, width_of

    config = config_of(name)
    with torch.device("meta"):
        model = AutoModelForDepthEstimation.from_config(config)
    assert hasattr(model, "neck")
    assert side_of(config) == (256 if name.endswith("256") else 384)
    assert width_of(config) in (768, 1024, 1536)


def test_a_hybrid_of_another_size_is_refused_by_its_setting():
    network = Depth(untrained("Intel/dpt-hybrid-midas"))
    with pytest.raises(SettingsError, match=r"views.depth.size = 384"):
        network(several(256)[:1])


# ---------------------------------------------------------------------------------------- text

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "feeling", "of", "delight", "in", "the"]
SENTENCES = ["delight", "a feeling of delight in the the the", "of a"]


@pytest.fixture
def bert_folder(tmp_path):
    from transformers import BertConfig, BertModel, BertTokenizer

    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(vocab=str(vocabulary))
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_text_pools_each_sentence_as_if_it_were_alone(bert_folder, pooling):
    """By hand: token numbers from the word list, one sentence at a time, no padding."""
    from transformers import BertModel

    network = Text(given("my-bert", bert_folder))
    got = network(SENTENCES, pooling=pooling)
    model = BertModel.from_pretrained(bert_folder).eval()
    for row, sentence in zip(got, SENTENCES, strict=True):
        ids = [WORDS.index(word) for word in ["[CLS]", *sentence.split(), "[SEP]"]]
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        expected = hidden[0] if pooling == "cls" else sum(hidden) / len(ids)
        assert torch.allclose(row, expected, atol=1e-5)
    assert network.width == 32


def test_text_padded_on_the_left_is_pooled_over_its_own_tokens(bert_folder):
    """By hand: how many tokens of padding stand before each sentence, what the encoder makes of
    the padded batch, and of that the first token or the mean without the padding."""
    from transformers import BertModel

    network = Text(given("my-bert", bert_folder))
    network.tokenizer.padding_side = "left"
    rows = [["[CLS]", *sentence.split(), "[SEP]"] for sentence in SENTENCES]
    pads = [max(map(len, rows)) - len(row) for row in rows]
    assert pads == [7, 0, 6]
    padded = [["[PAD]"] * n + row for n, row in zip(pads, rows, strict=True)]
    ids = torch.tensor([[WORDS.index(word) for word in row] for row in padded])
    model = BertModel.from_pretrained(bert_folder).eval()
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state
    first = torch.stack([row[n] for row, n in zip(hidden, pads, strict=True)])
    mean = torch.stack([row[n:].mean(dim=0) for row, n in zip(hidden, pads, strict=True)])
    assert torch.allclose(network(SENTENCES, pooling="cls"), first, atol=1e-5)
    assert torch.allclose(network(SENTENCES, pooling="mean"), mean, atol=1e-5)


def test_text_longer_than_the_encoder_takes_is_cut(bert_folder):
    network = Text(given("my-bert", bert_folder))
    assert network(["delight " * 100]).shape == (1, 32)
    assert network([]).shape == (0, 32)


def test_text_refuses_an_unknown_pooling_and_a_folder_without_tokenizer(bert_folder):
    with pytest.raises(SettingsError, match=r"views.labels.pooling"):
        Text(given("my-bert", bert_folder))(["delight"], pooling="max")
    for path in bert_folder.glob("*token*"):
        path.unlink()
    (bert_folder / "vocab.txt").unlink(missing_ok=True)
    with pytest.raises(WeightsError, match="no tokenizer"):
        Text(given("my-bert", bert_folder))


def test_untrained_text_tells_words_apart_and_ignores_padding():
    network = Text(untrained(MINILM))
    together = network(["joy", "a long sentence, with sorrow at the end", "joy"])
    assert close(together[:1], network(["joy"]))
    assert close(together[0], together[2])
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    assert network.preprocessing["tokens"] == "hashed words"


def test_hashed_words_keep_the_end_mark_when_cut():
    tokens = HashedWords(100)(["one two three four five", "six"], max_length=4)
    assert tokens["input_ids"].shape == (2, 4)
    assert tokens["input_ids"][0, -1] == HashedWords.LAST
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_real_text_weights_put_like_feelings_together():
    network = load_backbone(MINILM, real(MINILM))
    joy, pleasure, anger = network(
        ["feeling delighted", "feeling of delight in the senses", "intense displeasure or rage"]
    )
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(joy, pleasure, dim=0) > cosine(joy, anger, dim=0) + 0.2


# ------------------------------------------------------------------------------ the same alone


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("side", [64, 128])
def test_resnet_features_do_not_depend_on_the_neighbours(name, side):
    network = ResNet(untrained(name))
    pictures = several(side)
    together = network(pictures)
    for number in range(len(pictures)):
        assert close(network(pictures[number : number + 1])[0], together[number])


def test_depth_does_not_depend_on_the_neighbours(dpt_folder):
    network = Depth(given("my/dpt", dpt_folder))
    pictures = several(64).repeat(2, 1, 1, 1)  # more than one chunk
    features, maps = network(pictures)
    for number in (0, 4, 9):
        alone, alone_map = network(pictures[number : number + 1])
        assert close(alone[0], features[number])
        assert torch.allclose(alone_map[0], maps[number], rtol=1e-4, atol=1e-6)
