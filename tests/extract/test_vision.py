"""Vision transformers against transformers and timm used directly, and against sums by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data

from cache.errors import SettingsError, WeightsError
from extract import settings as config
from extract.backbones import backbones, load_backbone
from extract.backbones.clip_text import ClipText
from extract.backbones.resnet import ResNet
from extract.backbones.timm_models import Timm
from extract.backbones.vision import SHAPES, TOWERS, Vision, check_side, config_for, shape_of
from extract.loaded import Networks
from extract.settings import Weights as WeightsSettings
from extract.views import Subject, make_views
from extract.weights import find
from tests.extract.towers import MODELS, PATCH, SIDE, model_of, saved_to, stirred
from tests.networks import given, untrained

# Between the same sums in another order.
TOLERANCE = 2e-5

B32, B16 = "openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16"
PIXELS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 0.005}


def several(side: int = SIDE) -> torch.Tensor:
    """A photograph, its mirror, noise, grey: uint8 (4, 3, side, side)."""
    square = np.array(Image.fromarray(data.astronaut()).resize((side, side)))
    one = torch.from_numpy(square).permute(2, 0, 1).contiguous()
    noise = torch.randint(0, 256, one.shape, dtype=torch.uint8, generator=torch.manual_seed(0))
    return torch.stack([one, one.flip(2), noise, torch.full_like(one, 90)])


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    assert a.shape == b.shape
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max())


def by_hand(pictures: torch.Tensor, pixels: dict = PIXELS) -> torch.Tensor:
    """Pictures as a folder's preprocessor_config.json wants them."""
    mean, std = (torch.tensor(pixels[f"image_{name}"])[:, None, None] for name in ("mean", "std"))
    return (pictures.float() * pixels["rescale_factor"] - mean) / std


def expected_of(architecture: str, model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """What transformers itself makes of normalised pixels."""
    with torch.inference_mode():
        if architecture in ("clip", "siglip"):
            found = model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True)
            return found.pooler_output
        if architecture == "siglip2":
            side = pixels.shape[-1] // PATCH
            patches = [transformers_patches(one) for one in pixels]
            found = model.get_image_features(
                pixel_values=torch.stack(patches),
                pixel_attention_mask=torch.ones((len(pixels), side * side), dtype=torch.long),
                spatial_shapes=torch.tensor([[side, side]] * len(pixels)),
            )
            return found.pooler_output
        if architecture == "vit_mae":
            found = model.vit(pixels, interpolate_pos_encoding=True, noise=in_order(pixels))
        elif architecture == "vit":
            found = model(pixels, interpolate_pos_encoding=True)
        else:
            found = model(pixels)
        return found.last_hidden_state[:, 0]


def in_order(pixels: torch.Tensor) -> torch.Tensor:
    """For a masked autoencoder that hides nothing: the patches stay in their order, too."""
    side = pixels.shape[-1] // PATCH
    return torch.arange(side * side, dtype=torch.float32).expand(len(pixels), -1)


def transformers_patches(picture: torch.Tensor) -> torch.Tensor:
    from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

    return convert_image_to_patches(picture, PATCH)


@pytest.fixture(params=MODELS)
def tower(request, tmp_path) -> SimpleNamespace:
    model = model_of(request.param)
    folder = saved_to(tmp_path, model, **PIXELS)
    return SimpleNamespace(
        architecture=request.param, model=model, network=Vision(given("mine", folder))
    )


# -------------------------------------------------------------------------------- the register


def test_a_name_has_a_class_for_pictures_and_one_for_texts():
    for name in (B16, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "google/siglip2-base-patch16-224"):
        assert backbones.get(name, "picture") is Vision
        assert backbones.get(name, "text") is ClipText
        assert backbones.get(name) is Vision
    assert B16 in backbones.names("picture") and B16 in backbones.names("text")
    assert backbones.names().count(B16) == 1
    with pytest.raises(SettingsError, match="is for picture and text, but this place needs depth"):
        backbones.get(B16, "depth")
    with pytest.raises(SettingsError, match="is for picture, but this place needs text"):
        backbones.get("facebook/dinov2-base", "text")


@pytest.mark.parametrize(
    "name",
    ["uniemox", "facebook/dinov2-with-registers-base", "facebook/dinov3-vits16-pretrain-lvd1689m"],
)
def test_names_of_vision_transformers_are_known(name):
    assert backbones.get(name, "picture") is Vision


def test_names_of_timm_come_before_those_they_resemble():
    assert backbones.get("timm/vit-like.b16", "picture") is Timm


def test_a_folder_of_any_name_is_known_by_its_config(tmp_path):
    saved_to(tmp_path / "mine", model_of("dinov2"), **PIXELS)
    settings = WeightsSettings(folder=tmp_path, source=["folder"])
    network = load_backbone("mine", settings, kind="picture")
    assert isinstance(network, Vision) and network.architecture == "dinov2"
    assert isinstance(load_backbone("mine", settings), Vision)
    with pytest.raises(SettingsError, match=r"'mine' is for picture, but this place needs text"):
        load_backbone("mine", settings, kind="text")
    for name in ("resnet5O", "yours"):  # no folder of that name
        with pytest.raises(SettingsError, match=f"no backbone named '{name}'; did you mean"):
            load_backbone(name, settings, kind="picture")
    with pytest.raises(SettingsError, match="no backbone named 'mine'"):
        load_backbone("mine", WeightsSettings(folder=tmp_path, source=["hub"]), kind="picture")


def test_a_folder_of_texts_alone_is_no_network_of_pictures(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SettingsError, match="no backbone named 'mine'"):
        load_backbone("mine", WeightsSettings(folder=tmp_path, source=["folder"]), kind="picture")


# ------------------------------------------------------------------------------------ features


def test_features_are_those_of_transformers(tower):
    pictures = several()
    found = tower.network(pictures)
    assert found.dtype == torch.float32 and not found.requires_grad
    assert tower.network.width == found.shape[1] == (24 if tower.architecture == "clip" else 32)
    assert close(found, expected_of(tower.architecture, tower.model, by_hand(pictures)))
    assert (found[0] - found[1]).abs().max() > 0.01 * found.abs().max()  # it sees the picture


def test_other_sizes_are_taken_by_interpolating_positions(tower):
    pictures = several(6 * PATCH)
    found = tower.network(pictures)
    assert close(found, expected_of(tower.architecture, tower.model, by_hand(pictures)))


def test_features_do_not_depend_on_the_neighbours(tower):
    pictures = several()
    together = tower.network(pictures)
    tower.network.batch = 3
    assert close(tower.network(pictures), together)
    for number in range(len(pictures)):
        assert close(tower.network(pictures[number : number + 1])[0], together[number])
    assert tower.network(pictures[:0]).shape == (0, tower.network.width)


def test_a_size_between_patches_is_refused_with_those_that_fit(tower):
    with pytest.raises(SettingsError, match=r"views.<view>.size = 44 .*: set it to 40 or 48$"):
        tower.network(several(44))
    with pytest.raises(SettingsError, match=r"patches of 8 pixels.* = 34 .*: set it to 32 or 40$"):
        tower.network(several(34))


def test_of_the_sizes_that_fit_those_too_small_for_a_view_are_not_told():
    check_side(42, 14, "a network", "views.head.size")
    with pytest.raises(SettingsError, match=r"^a network .*views.head.size = 33 .*: set it to 42$"):
        check_side(33, 14, "a network", "views.head.size")


def test_what_a_network_is_stands_in_its_rule(tower):
    said = tower.network.preprocessing
    assert (said["mean"], said["std"], said["scale"]) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4], 0.005)
    assert said["patch"] == PATCH and said["features"] == TOWERS[tower.architecture].features
    assert said == backbones.describe(tower.network.weights, "picture")


@pytest.mark.parametrize(
    "architecture, processor",
    [
        ("clip", "CLIPImageProcessor"),
        ("siglip", "SiglipImageProcessor"),
        ("vit", "ViTImageProcessor"),
        ("dinov2", "BitImageProcessor"),
    ],
)
def test_a_folder_that_says_nothing_of_pixels_has_the_usual(architecture, processor, tmp_path):
    model = model_of(architecture)
    network = Vision(given("mine", saved_to(tmp_path, model)))
    # DINOv2's processor is called after another network, and its numbers are ImageNet's.
    mean, std = IMAGENET
    numbers = {"image_mean": mean, "image_std": std} if architecture == "dinov2" else {}
    usual = getattr(transformers, processor)(do_resize=False, do_center_crop=False, **numbers)
    pixels = usual(images=list(several()), return_tensors="pt")["pixel_values"]
    assert close(network(several()), expected_of(architecture, model, pixels))


IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def test_a_masked_autoencoder_has_imagenets_colours(tmp_path):
    network = Vision(given("mine", saved_to(tmp_path, model_of("vit_mae"))))
    assert (network.preprocessing["mean"], network.preprocessing["std"]) == IMAGENET


def test_pixels_are_read_out_of_a_processors_config_too(tmp_path):
    folder = saved_to(tmp_path, model_of("clip"))
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": PIXELS}))
    assert Vision(given("mine", folder)).preprocessing["mean"] == PIXELS["image_mean"]


@pytest.mark.parametrize("architecture", ["clip", "siglip"])
def test_a_folder_of_the_pictures_side_alone_gives_the_same(architecture, tmp_path):
    """As `save_pretrained` of a tower writes it, which names another type of model."""
    whole = Vision(given("mine", saved_to(tmp_path / "whole", model_of(architecture), **PIXELS)))
    alone = Vision(given("mine", saved_to(tmp_path / "alone", whole.model, **PIXELS)))
    assert json.loads((tmp_path / "alone" / "config.json").read_text())["model_type"] in (
        "clip_vision_model",
        "siglip_vision_model",
    )
    assert close(alone(several()), whole(several()))


def test_an_older_config_that_says_its_parts_twice_is_read(tmp_path):
    folder = saved_to(tmp_path, model_of("clip"), **PIXELS)
    facts = json.loads((folder / "config.json").read_text())
    facts["vision_config_dict"] = facts.pop("vision_config")
    (folder / "config.json").write_text(json.dumps(facts))
    assert shape_of(given("mine", folder))[1]["patch_size"] == PATCH
    assert Vision(given("mine", folder)).preprocessing["patch"] == PATCH


def test_low_precision_is_near(tower):
    full = tower.network(several())
    tower.network.precision = "bfloat16"
    low = tower.network(several())
    assert low.dtype == torch.float32 and not torch.equal(low, full)
    assert torch.nn.functional.cosine_similarity(low, full).min() > 0.99


# ------------------------------------------------------------------------------------ refusals


def test_a_folder_with_a_tensor_missing_is_refused(tmp_path):
    folder = saved_to(tmp_path, model_of("clip"))
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if k != "visual_projection.weight"}, path)
    with pytest.raises(WeightsError, match=r"lacks 1 tensors of mine \['visual_projection.weight'"):
        Vision(given("mine", folder))


def test_a_folder_of_another_architecture_is_refused(tmp_path):
    transformers.ViTMSNConfig(**MODELS["vit"][2]).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"is of the type 'vit_msn', and none of clip, siglip"):
        Vision(given("facebook/vit-msn-small", tmp_path))


def test_a_config_that_is_no_json_or_says_nonsense_is_refused(tmp_path):
    folder = saved_to(tmp_path / "mine", model_of("vit"))
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(facts | {"hidden_size": "wide"}))
    with pytest.raises(WeightsError, match=r"config.json of .*mine cannot be used.*hidden_size"):
        Vision(given("mine", folder))
    for text in ("{", "[]"):
        (folder / "config.json").write_text(text)
        with pytest.raises(WeightsError, match=r"config.json .*JSON.*weights.folder"):
            load_backbone("mine", WeightsSettings(folder=tmp_path, source=["folder"]))


def test_a_siglip_without_its_pooling_head_is_refused(tmp_path):
    shape = MODELS["siglip"][2]["vision_config"] | {"vision_use_head": False}
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**shape))
    with pytest.raises(WeightsError, match="no head that pools"):
        Vision(given("mine", saved_to(tmp_path, model)))


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "uniemox.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="has no config.json"):
        Vision(given("uniemox", tmp_path / "uniemox.safetensors"))
    with pytest.raises(WeightsError, match="as transformers saves it"):
        Vision(given(B16, tmp_path / "uniemox.safetensors"))


# ----------------------------------------------------------------------------------- untrained


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_known_shapes_are_those_that_were_published(name):
    """Numbers of parameters by timm, whose models of these names are the same networks (on the
    meta device: no memory, no time)."""
    architecture, shape = shape_of(untrained(name))
    tower = TOWERS[architecture]
    built = getattr(transformers, tower.model)
    made = config_for(built, untrained(name), shape, SHAPES)
    with torch.device("meta"):
        ours = built(made, **tower.more)
        theirs = timm.create_model(TIMM[name][0], num_classes=TIMM[name][1])
    # There a mask token, which only training reads; here a bias that CLIP's projection has not.
    more = {"dinov2": made.hidden_size, "clip": -theirs.num_classes}.get(architecture, 0)
    assert count(ours) == count(theirs) + more
    assert made.image_size == theirs.patch_embed.img_size[0]
    assert made.patch_size == theirs.patch_embed.patch_size[0]
    assert made.num_attention_heads == theirs.blocks[0].attn.num_heads


TIMM = {
    B32: ("vit_base_patch32_clip_224", 512),
    B16: ("vit_base_patch16_clip_224", 512),
    "openai/clip-vit-large-patch14": ("vit_large_patch14_clip_224", 768),
    "google/siglip-base-patch16-224": ("vit_base_patch16_siglip_224", 0),
    "facebook/dinov2-small": ("vit_small_patch14_dinov2", 0),
    "facebook/dinov2-base": ("vit_base_patch14_dinov2", 0),
    "facebook/dinov2-large": ("vit_large_patch14_dinov2", 0),
    "facebook/vit-mae-base": ("vit_base_patch16_224", 0),
    "facebook/vit-mae-large": ("vit_large_patch16_224", 0),
    "google/vit-base-patch16-224-in21k": ("vit_base_patch16_224", 0),
}


def count(model: torch.nn.Module) -> int:
    """Of parameters."""
    return sum(weight.numel() for weight in model.parameters())


def test_untrained_runs_by_name_and_is_the_same_each_time():
    settings = WeightsSettings(source=["untrained"], untrained=["facebook/dinov2-small"])
    first = load_backbone("facebook/dinov2-small", settings, kind="picture")
    found = first(several(56))
    assert found.shape == (4, 384) and torch.isfinite(found).all()
    assert not torch.allclose(found[0], found[2])
    again = load_backbone("facebook/dinov2-small", settings, kind="picture")
    assert torch.equal(again(several(56)), found)
    assert "untrained" in first.preprocessing
    assert first.preprocessing == backbones.describe(first.weights, "picture")


def test_untrained_of_a_folders_shape(tmp_path):
    name = str(tmp_path / "shape")
    transformers.ViTConfig(**MODELS["vit"][2]).save_pretrained(name)
    settings = WeightsSettings(source=["untrained"], untrained=[name])
    network = load_backbone(name, settings, kind="picture")
    assert network(several()).shape == (4, 32)
    before = network.preprocessing
    transformers.ViTConfig(**MODELS["vit"][2] | {"num_hidden_layers": 2}).save_pretrained(name)
    assert load_backbone(name, settings, kind="picture").preprocessing != before


def test_a_known_name_keeps_its_shape_where_a_folder_is_called_so_too(tmp_path, monkeypatch):
    name = "facebook/dinov2-small"
    transformers.ViTConfig(**MODELS["vit"][2]).save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    settings = WeightsSettings(source=["untrained"], untrained=[name])
    network = load_backbone(name, settings, kind="picture")
    assert network.architecture == "dinov2" and network.width == 384


def test_untrained_of_no_known_shape_is_refused():
    with pytest.raises(SettingsError, match=r"cannot run untrained: choose views.<view>.network"):
        Vision(untrained("facebook/dinov2-of-no-known-shape"))


# ------------------------------------------------------------------------------------- uniemox


@pytest.fixture
def uniemox(tmp_path) -> tuple[torch.nn.Module, WeightsSettings]:
    """What `emocache pretrain` leaves in weights.folder."""
    shape = MODELS["vit"][2] | {"image_size": 64}
    model = stirred(transformers.ViTModel(transformers.ViTConfig(**shape), add_pooling_layer=False))
    folder = saved_to(tmp_path / "uniemox", model, **PIXELS, size={"height": 64, "width": 64})
    (folder / "emocache.json").write_text(json.dumps({"name": "UniEmoX of a test"}))
    store = tmp_path / "store"
    return model, WeightsSettings(folder=tmp_path, store=store, source=["folder"])


ASTRONAUT = Subject(data.astronaut(), (60.0, 0.0, 400.0, 500.0))


def views_of(network: str, size: int):
    body, scene = (cls(network=network, size=size) for cls in (config.Body, config.Scene))
    return make_views(config.Views(body=body, scene=scene), "float32")


def test_views_run_on_uniemox_as_on_any_backbone(uniemox):
    model, settings = uniemox
    networks, views = Networks(settings), views_of("uniemox", 64)
    crops = {"body": ASTRONAUT.pixels[0:500, 60:400], "scene": ASTRONAUT.pixels}
    for name, crop in crops.items():
        row = views[name].run([ASTRONAUT], networks)[0]
        square = np.array(Image.fromarray(crop).resize((64, 64), Image.Resampling.BILINEAR))
        pixels = by_hand(torch.from_numpy(square).permute(2, 0, 1)[None])
        expected = expected_of("vit", model, pixels)
        assert row.status == "ok"
        assert close(torch.from_numpy(row.values["features"]), expected[0])
        said = views[name].spec(networks)
        assert said.arrays["features"].shape == (32,)
        assert [one["name"] for one in said.weights] == ["UniEmoX of a test"]


def test_a_view_runs_on_a_folder_of_any_name(uniemox):
    settings = uniemox[1]
    (settings.folder / "uniemox").rename(settings.folder / "mine")
    view, networks = views_of("mine", 64)["scene"], Networks(settings)
    assert len(view.key(networks)) == 64
    assert view.run([ASTRONAUT], networks)[0].values["features"].shape == (32,)
    with pytest.raises(SettingsError, match="no backbone named 'yours'; did you mean"):
        views_of("yours", 64)["scene"].key(networks)


def test_another_uniemox_is_another_key(uniemox):
    model, settings = uniemox
    before = views_of("uniemox", 64)["scene"].key(Networks(settings))
    assert views_of("uniemox", 64)["scene"].key(Networks(settings)) == before
    saved_to(settings.folder / "uniemox", stirred(model, seed=5))
    assert views_of("uniemox", 64)["scene"].key(Networks(settings)) != before


def test_a_size_that_does_not_fit_is_said_by_the_views_name_before_it_runs(uniemox):
    settings = uniemox[1]
    with pytest.raises(SettingsError, match=r"uniemox .*views.scene.size = 100 .*: .* 96 or 104$"):
        views_of("uniemox", 100)["scene"].key(Networks(settings))


def test_a_folders_own_name_must_be_json(uniemox):
    settings = uniemox[1]
    assert find("uniemox", settings).name == "UniEmoX of a test"
    about = settings.folder / "uniemox" / "emocache.json"
    about.write_text("{}")
    assert find("uniemox", settings).name == "uniemox"
    about.write_text("UniEmoX")
    with pytest.raises(WeightsError, match=r"emocache.json cannot be read as JSON"):
        find("uniemox", settings)


# ---------------------------------------------------------------------------------------- look

# Where the encoder's layers are in the models of `towers`, and how many tokens are no patches.
LAYERS = {
    "clip": ("vision_model.encoder.layers", 1),
    "siglip": ("vision_model.encoder.layers", 0),
    "siglip2": ("vision_model.encoder.layers", 0),
    "vit": ("layers", 1),
    "vit_mae": ("vit.layers", 1),
    "dinov2": ("encoder.layer", 1),
    "dinov2_with_registers": ("encoder.layer", 5),
    "dinov3_vit": ("model.layer", 5),
}


def direction(network: Vision, count: int = 4) -> torch.Tensor:
    return torch.randn((count, network.width), generator=torch.manual_seed(6))


def test_rollout_is_the_product_of_attentions(tower):
    """By hand, in numpy, from the attentions that transformers gives of the same pixels."""
    found = tower.network.look(several(), direction(tower.network))
    before = LAYERS[tower.architecture][1]
    if not before:
        assert set(found) == {"gradcam"}
        return
    assert set(found) == {"rollout", "gradcam"}
    pixels = by_hand(several())
    part = {"clip": "vision_model", "vit_mae": "vit"}.get(tower.architecture, "")
    more = {"noise": in_order(pixels)} if tower.architecture == "vit_mae" else {}
    seeing = tower.model.get_submodule(part)
    seeing.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions = seeing(pixels, output_attentions=True, **more).attentions
    assert len(attentions) == 3
    for number in range(len(pixels)):
        flow = np.eye(attentions[0].shape[-1])
        for layer in attentions:
            mixed = layer[number].double().numpy().mean(axis=0) + np.eye(len(flow))
            flow = (mixed / mixed.sum(axis=1, keepdims=True)) @ flow
        expected = flow[0, before:].reshape(4, 4)
        assert np.allclose(found["rollout"][number], expected / expected.max(), atol=1e-5)


def test_gradcam_is_the_mean_gradient_by_channel_times_the_tokens(tower):
    """By finite differences in float64: moving one channel of all patches before the last layer
    moves the score by the sum of its gradients."""
    path, before = LAYERS[tower.architecture]
    towards = direction(tower.network)
    found = tower.network.look(several(), towards)["gradcam"]
    model, pixels = tower.model.double(), by_hand(several()).double()
    shift, seen = torch.zeros(32, dtype=torch.float64), []

    def move(_layer, inputs):
        seen.append(inputs[0])
        moved = inputs[0].clone()
        moved[:, before:] += shift
        return moved, *inputs[1:]

    model.get_submodule(path)[-1].register_forward_pre_hook(move)

    def scores() -> np.ndarray:
        return (expected_of(tower.architecture, model, pixels) * towards.double()).sum(1).numpy()

    slopes = np.zeros((4, 32))
    for channel in range(32):
        shift[channel] = 1e-4
        up = scores()
        shift[channel] = -1e-4
        slopes[:, channel] = (up - scores()) / 2e-4
        shift[channel] = 0
    scores()
    tokens = seen[-1][:, before:].numpy()
    maps = np.maximum((tokens * slopes[:, None] / tokens.shape[1]).sum(axis=-1), 0)
    assert (maps > 0).any(axis=1).sum() >= 2
    for number, expected in enumerate(maps):
        most = expected.max() or 1.0
        assert np.allclose(found[number], (expected / most).reshape(4, 4), atol=1e-4)


def test_looking_gives_maps_of_any_size_and_leaves_the_network_as_it_was(tower):
    network, pictures = tower.network, several(6 * PATCH).repeat(2, 1, 1, 1)  # more than at once
    before = network(pictures)
    implementation = network.model.config._attn_implementation
    with torch.inference_mode():  # as whoever asks may be in
        found = network.look(pictures, direction(network, 8).clone())
    for maps in found.values():
        assert maps.shape == (8, 6, 6) and maps.dtype == np.float32
        assert np.isfinite(maps).all() and (maps >= 0).all()
        assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
    alone = network.look(pictures[5:6], direction(network, 8)[5:6])
    assert all(np.allclose(alone[name][0], found[name][5], atol=1e-4) for name in found)
    assert torch.equal(network(pictures), before)
    assert network.model.config._attn_implementation == implementation != "eager"
    assert not any(weight.requires_grad for weight in network.model.parameters())
    none = network.look(pictures[:0], direction(network, 0))
    assert all(maps.shape == (0, 6, 6) for maps in none.values())


def test_toward_nothing_gradcam_is_zeros_and_another_shape_is_refused(tower):
    found = tower.network.look(several(), torch.zeros((4, tower.network.width)))
    assert not found["gradcam"].any()
    with pytest.raises(ValueError, match=r"toward must be \(4, "):
        tower.network.look(several(), torch.zeros((3, tower.network.width)))


def test_only_vision_transformers_are_looked_into():
    assert Vision.looks and not ResNet.looks and not Timm.looks and not ClipText.looks


# ---------------------------------------------------------------------------------------- timm


def timm_folder(folder: Path, name: str = "test_vit", **more) -> torch.nn.Module:
    """A model with its classifier as timm's hub has it: config.json and model.safetensors."""
    model = stirred(timm.create_model(name, num_classes=5))
    timm.models.save_for_hf(
        model, folder, model_config={"num_features": model.num_features}, safe_serialization=True
    )
    facts = json.loads((folder / "config.json").read_text())
    facts["pretrained_cfg"] |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    (folder / "config.json").write_text(json.dumps(facts | more))
    return model


def timm_features(model: torch.nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    pixels = by_hand(pictures, PIXELS | {"rescale_factor": 1 / 255})
    with torch.inference_mode():
        return model.forward_head(model.forward_features(pixels), pre_logits=True)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_mambaout"])
def test_timm_gives_what_its_classifier_would_get(name, tmp_path):
    model = timm_folder(tmp_path, name)
    network = Timm(given(f"timm/{name}.somewhere", tmp_path))
    pictures = several(160)
    found = network(pictures)
    assert network.width == found.shape[1]
    assert close(found, timm_features(model, pictures))
    assert (network.preprocessing["mean"], network.preprocessing["std"]) == (
        [0.4, 0.5, 0.6],
        [0.2, 0.3, 0.4],
    )
    network.batch = 3
    assert close(network(pictures), found)
    assert close(network(pictures[2:3])[0], found[2])
    assert network(pictures[:0]).shape == (0, network.width)


def test_timm_takes_other_sizes_where_the_model_does(tmp_path):
    from timm.models.vision_transformer import checkpoint_filter_fn

    timm_folder(tmp_path)
    network = Timm(given("timm/test_vit", tmp_path))
    fixed = timm.create_model("test_vit", num_classes=5, img_size=96)
    state = load_file(tmp_path / "model.safetensors")
    fixed.load_state_dict(checkpoint_filter_fn(state, fixed))  # positions resampled, for good
    assert close(network(several(96)), timm_features(fixed.eval(), several(96)))
    usual = Timm(untrained("timm/vit_tiny_patch16_224"))  # which keeps to one size if not told
    free = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True)
    free.load_state_dict(usual.model.state_dict())
    pixels = by_hand(several(96), dict(zip(PIXELS, (*IMAGENET, 1 / 255), strict=True)))
    with torch.inference_mode():
        assert close(usual(several(96)), free.eval()(pixels))
    with pytest.raises(SettingsError, match=r"views.<view>.size = 100 .*: set it to 96 or 112"):
        network(several(100))
    with pytest.raises(SettingsError, match=r"refuses pictures of \(128, 128\).*views.<view>.size"):
        Timm(untrained("timm/test_maxvit"))(several(128))


def test_an_older_timm_config_is_read(tmp_path):
    model = timm_folder(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    flat = {"architecture": facts["architecture"], **facts["pretrained_cfg"]}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    network = Timm(given("timm/test_vit", tmp_path))
    assert close(network(several(160)), timm_features(model, several(160)))


def test_timm_is_found_by_its_config_and_refuses_tensors_that_do_not_fit(tmp_path):
    timm_folder(tmp_path / "mine")
    settings = WeightsSettings(folder=tmp_path, source=["folder"])
    assert isinstance(load_backbone("mine", settings, kind="picture"), Timm)
    path = tmp_path / "mine" / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if k != "norm.weight"}, path)
    with pytest.raises(WeightsError, match=r"1 tensors missing \['norm.weight'\], 0 unknown"):
        load_backbone("mine", settings, kind="picture")
    save_file(state | {"neck.weight": state["norm.weight"].clone()}, path)
    with pytest.raises(WeightsError, match=r"0 tensors missing \[\], 1 unknown \['neck.weight'\]"):
        load_backbone("mine", settings, kind="picture")


def test_timm_untrained_by_name():
    network = Timm(untrained("timm/test_vit.r160_in1k"))
    assert network.preprocessing["mean"] == IMAGENET[0]
    again = Timm(untrained("timm/test_vit.a_tag_of_no_weights"))
    assert torch.equal(network(several(160)), again(several(160)))
    with pytest.raises(SettingsError, match=r"timm has no model 'test_vti'; did you mean 'test_vi"):
        Timm(untrained("timm/test_vti"))
