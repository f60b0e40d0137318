"""The text sides of CLIP and SigLIP against transformers used directly, one sentence at a time."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from cache.errors import SettingsError, WeightsError
from extract.backbones import backbones, load_backbone
from extract.backbones.clip_text import SHAPES, TOWERS, ClipText, shape_of
from extract.backbones.text import HashedWords, Text
from extract.backbones.vision import SHAPES as PICTURES
from extract.backbones.vision import TOWERS as PICTURE_TOWERS
from extract.backbones.vision import Vision, config_for
from extract.settings import Weights as WeightsSettings
from tests.extract.towers import END, MODELS, model_of, saved_to, stirred
from tests.networks import given, untrained

B32, SIGLIP = "openai/clip-vit-base-patch32", "google/siglip-base-patch16-224"
SENTENCES = ["joy", "a man sees joy", "she is sad", "a very long tale of joy and sorrow"]
LONGEST = 12  # tokens, of the tiny text sides


def letters_tokenizer() -> transformers.CLIPTokenizer:
    """CLIP's own kind: letters, the last of a word with a mark, and a few of them merged."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{one}</w>" for one in letters), "jo", "joy</w>"]
    assert len(tokens) == END - 1
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [("j", "o"), ("jo", "y</w>")]
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST)


def words_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Of words in lower case, with an end, as a SigLIP's; it tells no mask, as theirs do not."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", "joy", "a", "man", "sees", "she", "is", "sad"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=LONGEST,
        model_input_names=["input_ids"],
    )


def clip_folder(folder: Path, **text) -> torch.nn.Module:
    shape = MODELS["clip"][2]
    facts = shape | {"text_config": shape["text_config"] | text}
    model = stirred(transformers.CLIPModel(transformers.CLIPConfig(**facts)))
    saved_to(folder, model)
    letters_tokenizer().save_pretrained(folder)
    return model


def siglip_folder(folder: Path) -> torch.nn.Module:
    model = model_of("siglip")
    saved_to(folder, model)
    words_tokenizer().save_pretrained(folder)
    return model


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    assert a.shape == b.shape
    return bool((a - b).abs().max() <= 2e-5 * b.abs().max())


def letters_of(sentence: str) -> list[int]:
    """Token numbers by hand, cut to `LONGEST` with the end kept."""
    numbers = []
    for word in sentence.split():
        if word == "joy":
            numbers.append(END - 2)
        else:
            numbers += [ord(one) - ord("a") for one in word[:-1]] + [26 + ord(word[-1]) - ord("a")]
    return [END - 1, *numbers[: LONGEST - 2], END]


# ---------------------------------------------------------------------------------------- CLIP


# 2 is what the published configs say; transformers then takes the token of the largest number.
@pytest.mark.parametrize("end", [END, 2])
def test_clip_gives_each_sentence_the_projected_last_token(end, tmp_path):
    model = clip_folder(tmp_path, eos_token_id=end)
    network = ClipText(given("mine", tmp_path))
    found = network(SENTENCES)
    assert found.dtype == torch.float32 and found.shape == (4, 24) and network.width == 24
    for row, sentence in zip(found, SENTENCES, strict=True):
        ids = torch.tensor([letters_of(sentence)])
        with torch.inference_mode():
            expected = model.get_text_features(input_ids=ids).pooler_output[0]
        assert alike(row, expected)


def test_clips_sentences_lie_beside_its_pictures(tmp_path):
    """The same cosines as of the whole model."""
    model = clip_folder(tmp_path)
    settings = WeightsSettings(folder=tmp_path.parent, source=["folder"])
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    seeing = load_backbone(tmp_path.name, settings, kind="picture")
    reading = load_backbone(tmp_path.name, settings, kind="text")
    assert isinstance(seeing, Vision) and isinstance(reading, ClipText)
    processor = transformers.CLIPImageProcessor(do_resize=False, do_center_crop=False)
    pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
    tokens = letters_tokenizer()(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**tokens, pixel_values=pixels).logits_per_image
        scale = model.logit_scale.exp()
    seen, read = (
        one / one.norm(dim=1, keepdim=True) for one in (seeing(pictures), reading(SENTENCES))
    )
    assert alike(scale * seen @ read.T, expected)


def test_the_same_alone_in_order_and_in_many_parts(tmp_path):
    clip_folder(tmp_path)
    network = ClipText(given("mine", tmp_path))
    many = SENTENCES * 5
    network.batch = 64
    together = network(many)
    parts: list[int] = []
    inner = network._features
    network._features = lambda some: parts.append(len(some)) or inner(some)
    network.batch = 3
    assert alike(network(many), together)
    assert parts == [3] * 6 + [2]
    assert alike(network(["joy"])[0], together[0])
    assert network([]).shape == (0, 24)


def test_pooling_is_ignored(tmp_path):
    clip_folder(tmp_path)
    network = ClipText(given("mine", tmp_path))
    assert torch.equal(network(SENTENCES, pooling="cls"), network(SENTENCES, pooling="mean"))


def test_lengths_count_tokens_before_they_are_cut(tmp_path, caplog):
    clip_folder(tmp_path)
    network = ClipText(given("mine", tmp_path))
    # begin, joy, end; begin, a, m a n, s e e s, joy, end; the last has 24 letters beside joy
    assert network.lengths(SENTENCES) == [3, 11, 10, 27]
    assert network.lengths([]) == []
    assert network.longest == LONGEST
    assert alike(network(["a very long tale"]), network(["a very long tale that goes on"]))
    assert not caplog.records


def test_what_decides_the_numbers_is_said(tmp_path):
    clip_folder(tmp_path)
    network = ClipText(given("mine", tmp_path))
    assert network.preprocessing == backbones.describe(network.weights, "text")
    assert network.preprocessing["longest"] == LONGEST


# -------------------------------------------------------------------------------------- SigLIP


def test_siglip_reads_every_sentence_at_its_full_length_in_lower_case(tmp_path):
    model = siglip_folder(tmp_path)
    network = ClipText(given("mine", tmp_path))
    numbers = {"Joy": [3], "A man SEES joy": [4, 5, 6, 3], "she is sad": [7, 8, 9]}
    found = network(list(numbers))
    assert found.shape == (3, 32) and network.width == 32
    for row, ids in zip(found, numbers.values(), strict=True):
        padded = torch.tensor([[*ids, 1] + [0] * (LONGEST - 1 - len(ids))])
        with torch.inference_mode():
            assert alike(row, model.get_text_features(input_ids=padded).pooler_output[0])
    assert network.lengths(list(numbers)) == [2, 5, 4]
    assert alike(network(["joy"])[0], found[0])
    assert network.preprocessing["letters"] == "lower case"
    long = ["a man " * 20, "a man " * 20 + "sees"]
    assert network(long).shape == (2, 32) and alike(network(long)[:1], network(long)[1:])


def test_siglip2_is_padded_on_the_right_as_in_its_training(tmp_path):
    """Its class in transformers pads on the left where a folder does not say."""
    model = model_of("siglip2")
    saved_to(tmp_path, model)
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"adehijmnosy"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = transformers.Siglip2Tokenizer(vocab=vocabulary, model_max_length=LONGEST)
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer.padding_side == "left"
    ids = [tokens.index(letter) for letter in "she▁is"]
    assert tokenizer("she is")["input_ids"][-6:] == ids
    network = ClipText(given("mine", tmp_path))
    padded = torch.tensor([ids + [0] * (LONGEST - len(ids))])
    with torch.inference_mode():
        expected = model.get_text_features(input_ids=padded).pooler_output
    assert alike(network(["SHE is"]), expected)


# ----------------------------------------------------------------------------------- untrained


@pytest.mark.parametrize(
    "name, parameters",  # of both sides with what joins them, as published
    [
        (B32, 151_277_313),
        ("openai/clip-vit-base-patch16", 149_620_737),
        ("openai/clip-vit-large-patch14", 427_616_513),
        (SIGLIP, 203_155_970),
    ],
)
def test_known_shapes_are_those_that_were_published(name, parameters):
    architecture, shape = shape_of(untrained(name))
    seen = PICTURES[name]
    with torch.device("meta"):
        sides = [
            side(config_for(side, untrained(name), facts, SHAPES))
            for side, facts in (
                (getattr(transformers, TOWERS[architecture][0]), shape),
                (getattr(transformers, PICTURE_TOWERS[seen[0]].model), seen[1]),
            )
        ]
    joined = 1 if architecture == "clip" else 2  # a scale; SigLIP has a bias beside it
    found = sum(weight.numel() for side in sides for weight in side.parameters())
    assert found + joined == parameters
    assert sides[0].config.max_position_embeddings == TOWERS[architecture][1]
    assert set(SHAPES) <= set(PICTURES)


def small(monkeypatch, architecture: str) -> str:
    """A known name whose untrained network is tiny."""
    name = B32 if architecture == "clip" else SIGLIP
    shape = MODELS[architecture][2]["text_config"] | {"max_position_embeddings": 16}
    shape |= {"projection_dim": 24} if architecture == "clip" else {"projection_size": 24}
    monkeypatch.setitem(SHAPES, name, (architecture, shape))
    return name


@pytest.mark.parametrize("architecture", ["clip", "siglip"])
def test_untrained_tells_words_apart_and_ignores_padding(architecture, monkeypatch):
    network = ClipText(untrained(small(monkeypatch, architecture)))
    stirred(network.model)
    together = network(["joy", "a long sentence, with sorrow", "joy"])
    assert alike(together[:1], network(["joy"])) and alike(together[0], together[2])
    assert not torch.allclose(together[0], together[1], atol=0.05)
    assert network.preprocessing["tokens"] == "hashed words"
    assert network.lengths(["joy", "word " * 40, "word " * 600]) == [3, 42, 602]


def test_untrained_clip_takes_the_last_token_of_each_sentence(monkeypatch):
    """Whose number is not the largest, and which the config does not name."""
    network = ClipText(untrained(small(monkeypatch, "clip")))
    stirred(network.model)
    sentences = ["joy", "a long sentence, with sorrow"]
    tokens = HashedWords(END + 1)(sentences)
    assert tokens["input_ids"].shape == (2, 8)
    with torch.inference_mode():
        hidden = network.model(input_ids=tokens["input_ids"]).last_hidden_state
        expected = network.model.text_projection(hidden[[0, 1], [2, 7]])
    assert alike(network(sentences), expected)


def test_a_known_name_keeps_its_shape_where_a_folder_is_called_so_too(tmp_path, monkeypatch):
    name = small(monkeypatch, "clip")
    model_of("clip").config.save_pretrained(tmp_path / name)
    monkeypatch.setitem(SHAPES, name, ("clip", SHAPES[name][1] | {"projection_dim": 20}))
    monkeypatch.chdir(tmp_path)
    assert ClipText(untrained(name)).width == 20


# ------------------------------------------------------------------------------------ refusals


def test_a_text_side_saved_alone_is_known_and_a_picture_side_is_not(tmp_path):
    model = clip_folder(tmp_path / "whole")
    whole = ClipText(given("mine", tmp_path / "whole"))
    saved_to(tmp_path / "alone", whole.model)
    letters_tokenizer().save_pretrained(tmp_path / "alone")
    settings = WeightsSettings(folder=tmp_path, source=["folder"])
    alone = load_backbone("alone", settings, kind="text")
    assert isinstance(alone, ClipText) and alike(alone(SENTENCES), whole(SENTENCES))
    transformers.CLIPVisionConfig().save_pretrained(tmp_path / "pictures")
    with pytest.raises(SettingsError, match="is for picture, but this place needs text"):
        load_backbone("pictures", settings, kind="text")
    assert model.projection_dim == 24


def test_other_encoders_of_texts_keep_their_class(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "bert"}')
    assert backbones.get("mine", "text", {"model_type": "bert"}) is Text
    assert backbones.get("my-bert", "text", {"model_type": "clip"}) is ClipText
    assert backbones.get("my-own-encoder", "text") is Text


def test_a_folder_without_a_tokenizer_or_of_another_type_is_refused(tmp_path):
    saved_to(tmp_path / "mine", model_of("clip"))
    with pytest.raises(WeightsError, match="no tokenizer"):
        ClipText(given("mine", tmp_path / "mine"))
    facts = json.loads((tmp_path / "mine" / "config.json").read_text())
    (tmp_path / "mine" / "config.json").write_text(json.dumps(facts | {"model_type": "blip"}))
    with pytest.raises(WeightsError, match="is of the type 'blip', and none of clip, siglip"):
        ClipText(given("someone/clip-of-another-kind", tmp_path / "mine"))
    with pytest.raises(SettingsError, match="cannot run untrained"):
        ClipText(untrained("someone/clip-of-no-known-shape"))


# ------------------------------------------------------------------ other encoders, in many parts


def test_text_goes_through_any_encoder_in_parts_and_in_order(monkeypatch):
    network = Text(untrained("sentence-transformers/all-MiniLM-L6-v2"))
    many = [f"feeling number {number}" + " on and on" * (number % 3) for number in range(11)]
    together = network(many)
    parts: list[int] = []
    inner = network._features
    monkeypatch.setattr(
        network, "_features", lambda some, pooling: parts.append(len(some)) or inner(some, pooling)
    )
    network.batch = 4
    assert alike(network(many), together) and parts == [4, 4, 3]
    assert alike(network(many, pooling="cls")[7:8], network(many[7:8], pooling="cls"))
    assert network.lengths(many) == [5, 8, 11] * 3 + [5, 8]
