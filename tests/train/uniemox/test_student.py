"""The student against transformers on the same weights, against sums by hand, and as it learns."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear
from transformers import ViTMAEForPreTraining

from cache.errors import SettingsError, WeightsError
from tests.train.uniemox.small import PATCH, SIZE, D, N, nano, pictures, settings, student
from train.uniemox.fusion import FUSIONS
from train.uniemox.pictures import Pictures
from train.uniemox.student import SIZES, Student, config_of, positions

__all__ = ["nano"]
pytestmark = pytest.mark.usefixtures("nano")

ALONE = ["person", "similarity", "image"]  # what the autoencoder of one stream does without
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def twin(model: Student) -> ViTMAEForPreTraining:
    """transformers' own model with the student's weights."""
    other = ViTMAEForPreTraining(config_of(model.settings))
    other.load_state_dict(model.mae.state_dict())
    return other


def pixels(squares: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(some)[:, None, None] for some in (MEAN, STD))
    return (squares / 255 - mean) / std


def changed(some: Pictures, **more) -> Pictures:
    return Pictures(**{**vars(some), **more})


def bits(model: Student) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# -------------------------------------------------------------------------- as transformers has it


@pytest.mark.parametrize("normalise", [True, False])
def test_one_stream_is_transformers_masked_autoencoder(normalise):
    model, some = student(None, without=ALONE, normalise=normalise), pictures()
    expected = twin(model)(pixels(some.scene), noise=some.noise[:, 0])
    seen = model.see(some)
    assert seen.hidden.equal(expected.mask)
    assert seen.order.equal(expected.ids_restore)
    assert torch.allclose(model.predict(seen), expected.logits, atol=1e-5)
    said = model(some)
    assert said.keys() == {"loss", "pixels"}
    assert torch.allclose(said["pixels"], expected.loss, rtol=1e-5)


def test_two_streams_are_the_autoencoder_twice_each_with_its_own_mask():
    model, some = student(), pictures()
    other, seen = twin(model), model.see(some)
    both = [
        other(pixels(squares), noise=some.noise[:, at])
        for at, squares in enumerate((some.scene, some.person))
    ]
    assert seen.hidden.equal(torch.cat([one.mask for one in both]))
    assert not both[0].mask.equal(both[1].mask)
    assert torch.allclose(model.predict(seen), torch.cat([one.logits for one in both]), atol=1e-5)
    assert torch.allclose(model(some)["pixels"], (both[0].loss + both[1].loss) / 2, rtol=1e-5)


def test_the_sizes_are_those_of_the_settings_and_of_published_encoders(monkeypatch):
    monkeypatch.undo()  # the true tiny one
    assert SIZES == {
        "tiny": (192, 12, 3),
        "small": (384, 12, 6),
        "base": (768, 12, 12),
        "large": (1024, 24, 16),
    }
    config = config_of(settings(encoder="base", size=224, patch=16, decoder={}))
    theirs = ViTMAEForPreTraining.config_class().to_dict()  # that of facebook/vit-mae-base
    ours = config.to_dict()
    assert {name for name in ours if ours[name] != theirs[name]} == {"norm_pix_loss"}


# -------------------------------------------------------------------------- by hand


def by_hand(model: Student, square: torch.Tensor, noise: torch.Tensor) -> tuple:
    """Visible patches, tokens and loss of one picture, from the tensors of the state dict alone."""
    state = model.mae.state_dict()
    x = square.permute(1, 2, 0).double().numpy() / 255
    x = (x - np.asarray(MEAN)) / np.asarray(STD)
    a_side = SIZE // PATCH
    patches = np.stack(  # row by row; a patch by row, column, channel
        [
            x[r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH].reshape(-1)
            for r in range(a_side)
            for c in range(a_side)
        ]
    )
    visible = np.argsort(noise.numpy(), kind="stable")[: int(N * (1 - model.settings.masked))]
    kernel = state["vit.embeddings.patch_embeddings.projection.weight"]
    kernel = kernel.permute(0, 2, 3, 1).flatten(1).double()  # as a patch's numbers
    bias = state["vit.embeddings.patch_embeddings.projection.bias"].double()
    places = torch.from_numpy(sine_cosine(32))
    embedded = torch.from_numpy(patches) @ kernel.T + bias + places
    first = state["vit.embeddings.cls_token"][0].double()  # at place zero
    tokens = torch.cat([first, embedded[torch.from_numpy(visible)]])
    tokens = blocks(tokens, state, "vit.layers", 2)
    tokens = normed(tokens, state, "vit.layernorm")

    inside = linear(tokens, *pair(state, "decoder.decoder_embed"))
    every = state["decoder.mask_token"][0].double().repeat(N, 1)
    every[torch.from_numpy(visible)] = inside[1:]
    every = torch.cat([inside[:1], every + torch.from_numpy(sine_cosine(16))])
    every = normed(blocks(every, state, "decoder.decoder_layers", 1), state, "decoder.decoder_norm")
    said = linear(every, *pair(state, "decoder.decoder_pred"))[1:].numpy()
    if model.settings.normalise:
        spread = np.sqrt(patches.var(1, ddof=1, keepdims=True) + 1e-6)
        patches = (patches - patches.mean(1, keepdims=True)) / spread
    hidden = np.setdiff1d(np.arange(N), visible)
    return visible, tokens, ((said - patches) ** 2)[hidden].mean()


def sine_cosine(width: int) -> np.ndarray:
    """Column first, then row; of each, sines and then cosines."""
    found = np.zeros((N, width))
    quarter = width // 4
    for n in range(N):
        row, column = divmod(n, SIZE // PATCH)
        for i in range(quarter):
            f = 10000 ** (-i / quarter)
            found[n, [i, quarter + i]] = math.sin(column * f), math.cos(column * f)
            found[n, [2 * quarter + i, 3 * quarter + i]] = math.sin(row * f), math.cos(row * f)
    return found


def pair(state: dict, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return state[f"{name}.weight"].double(), state[f"{name}.bias"].double()


def normed(tokens: torch.Tensor, state: dict, name: str) -> torch.Tensor:
    return layer_norm(tokens, tokens.shape[-1:], *pair(state, name), 1e-12)


def blocks(tokens: torch.Tensor, state: dict, name: str, count: int) -> torch.Tensor:
    """Transformer layers of two heads, norm first."""
    for n in range(count):
        at = f"{name}.{n}"
        x = normed(tokens, state, f"{at}.layernorm_before")
        query, key, value = (
            linear(x, *pair(state, f"{at}.attention.{which}_proj")).chunk(2, -1) for which in "qkv"
        )
        heads = [
            (q @ k.T / q.shape[1] ** 0.5).softmax(-1) @ v
            for q, k, v in zip(query, key, value, strict=True)
        ]
        tokens = tokens + linear(torch.cat(heads, -1), *pair(state, f"{at}.attention.o_proj"))
        x = normed(tokens, state, f"{at}.layernorm_after")
        x = gelu(linear(x, *pair(state, f"{at}.mlp.fc1")))
        tokens = tokens + linear(x, *pair(state, f"{at}.mlp.fc2"))
    return tokens


@pytest.mark.parametrize("normalise", [True, False])
def test_masks_patches_places_class_token_and_loss_are_those_of_a_sum_by_hand(normalise):
    model, some = student(normalise=normalise), pictures(3)
    seen = model.see(some)
    losses = []
    for at, squares in enumerate((some.scene, some.person)):
        for n in range(3):
            visible, tokens, loss = by_hand(model, squares[n], some.noise[n, at])
            row = 3 * at + n
            assert set(np.flatnonzero(seen.hidden[row] == 0)) == set(visible)
            assert torch.allclose(seen.tokens[row].double(), tokens, atol=1e-4)
            losses.append(loss)
    assert model(some)["pixels"].item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_patches_of_lowest_noise_stay_visible_one_in_four():
    some = pictures()
    hidden = student().see(some).hidden.view(2, 8, N).transpose(0, 1)
    assert (hidden.sum(-1) == N * 3 // 4).all()
    for noise, mask in zip(some.noise.flatten(0, 1), hidden.flatten(0, 1), strict=True):
        assert noise[mask == 0].max() < noise[mask == 1].min()


def test_places_are_fixed_told_apart_and_not_descended():
    """Some versions of transformers begin with zeros there, so that no place differs."""
    model = student()
    for place, width in (
        (model.mae.vit.embeddings.position_embeddings, 32),
        (model.mae.decoder.decoder_pos_embed, 16),
    ):
        np.testing.assert_allclose(place[0, 1:].numpy(), sine_cosine(width), atol=1e-6)
        assert (place[0, 0] == 0).all()
        assert not place.requires_grad
        assert torch.cdist(place[0], place[0]).fill_diagonal_(1).min() > 0.1
    assert model.mae.vit.embeddings.cls_token.std().item() == pytest.approx(0.02, rel=0.5)
    assert model.mae.decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.5)


def test_positions_are_transformers_own_with_the_column_before_the_row():
    from transformers.models.vit_mae import modeling_vit_mae as theirs

    build = getattr(theirs, "build_2d_sinusoidal_position_embedding", None)
    if build is None:
        pytest.skip("this version of transformers builds them otherwise")
    expected = build(5, 5, 24, cls_token=True).roll(12, dims=1)
    assert torch.allclose(positions(5, 24)[0], expected, atol=1e-6)


# -------------------------------------------------------------------------- what is seen


def test_the_person_stream_sees_the_person_and_the_scene_stream_the_scene():
    """The trap: both streams on the whole picture."""
    model, some = student(), pictures()
    alpha, beta = model.projected(model.see(some))
    other = changed(some, person=some.person.flip(0))
    same, moved = model.projected(model.see(other))
    assert torch.allclose(alpha, same, atol=1e-6)
    assert (beta - moved).abs().amax(1).min() > 1e-3
    other = changed(some, scene=some.scene.flip(0))
    moved, same = model.projected(model.see(other))
    assert torch.allclose(beta, same, atol=1e-6)
    assert (alpha - moved).abs().amax(1).min() > 1e-3


def test_each_stream_has_the_noise_of_its_own():
    model, some = student(), pictures()
    scene, person = model.see(some).hidden.chunk(2)
    noise = some.noise.clone()
    noise[:, 1] = 1 - noise[:, 1]
    same, other = model.see(changed(some, noise=noise)).hidden.chunk(2)
    assert same.equal(scene)
    assert (other != person).any(1).all()


def test_what_is_hidden_changes_the_pixel_loss_and_not_the_vectors():
    model, some = student(normalise=False), pictures()
    seen = model.see(some)
    cells = seen.hidden.view(2, 8, SIZE // PATCH, SIZE // PATCH)
    hidden = cells.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)[:, :, None] > 0
    other = changed(
        some,
        scene=torch.where(hidden[0], 255 - some.scene, some.scene),
        person=torch.where(hidden[1], 255 - some.person, some.person),
    )
    assert model.see(other).tokens.equal(seen.tokens)
    before, after = model(some), model(other)
    assert abs(after["pixels"] - before["pixels"]) > 1e-2
    for name in ("similarity", "image"):
        assert after[name].equal(before[name])


# -------------------------------------------------------------------------- losses and gradients


def test_the_loss_is_the_weighted_sum_and_each_is_a_mean_over_pictures():
    weights = {"pixels": 0.5, "similarity": 2, "image": 3}
    model, some = student(weights=weights), pictures()
    said = model(some)
    assert list(said) == ["loss", "pixels", "similarity", "image"]
    total = sum(weights[name] * said[name] for name in weights)
    assert torch.allclose(said["loss"], total)
    halves = [model(part(some, slice(0, 4))), model(part(some, slice(4, 8)))]
    for name in ("pixels", "image"):
        assert torch.allclose(said[name], (halves[0][name] + halves[1][name]) / 2, rtol=1e-5)


def part(some: Pictures, which: slice) -> Pictures:
    tensors = {name: value[which] for name, value in vars(some).items() if torch.is_tensor(value)}
    return changed(some, **tensors)


def parameters_of(model: Student) -> dict[str, list]:
    parts = {"decoder": getattr(model.mae, "decoder", None), "encoder": model.mae.vit}
    parts |= {"project": model.project, "fusion": model.fuse}
    return {
        name: [one for one in module.parameters() if one.requires_grad] if module else []
        for name, module in parts.items()
    }


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(
    ("loss", "reached"),
    [
        ("pixels", {"encoder", "decoder"}),
        ("similarity", {"encoder", "project", "fusion"}),
        ("image", {"encoder", "project", "fusion"}),
    ],
)
def test_each_loss_reaches_what_it_should_and_nothing_else(loss, reached, fusion):
    model = student(fusion=fusion)
    model(pictures())[loss].backward()
    for name, parameters in parameters_of(model).items():
        moved = [one.grad is not None and bool(one.grad.abs().max() > 0) for one in parameters]
        assert all(moved) if name in reached else not any(moved), name


WITHOUT = [
    [],
    ["pixels"],
    ["similarity"],
    ["image"],
    ["person"],
    ["similarity", "image"],
    ["pixels", "person"],
    ALONE,
]


@pytest.mark.parametrize("without", WITHOUT, ids="-".join)
def test_only_what_is_needed_is_built_and_all_of_it_learns(without):
    """A parameter that no loss reaches stops training on several devices."""
    model = student(without=without)
    taught = not {"similarity", "image"} <= set(without)
    assert hasattr(model.mae, "decoder") == ("pixels" not in without)
    assert (model.project is not None) == taught
    assert (model.fuse is not None) == (taught and "person" not in without)
    said = model(pictures())
    losses = {"pixels", "similarity", "image"} - set(without)
    assert said.keys() == {"loss"} | losses
    said["loss"].backward()
    groups = model.groups()
    given = [one for group in groups for one in group["params"]]
    assert len({id(one) for one in given}) == len(given)
    assert {id(one) for one in given} == {
        id(one) for one in model.parameters() if one.requires_grad
    }
    assert all(one.grad is not None for one in given)


def test_a_loss_of_weight_zero_is_as_one_left_out():
    model = student(weights={"pixels": 0})
    assert model.active == ("similarity", "image")
    assert not hasattr(model.mae, "decoder")


def test_a_batch_without_two_texts_gives_zeros_as_gradients():
    """Not none: all devices wait for the gradient of every parameter."""
    model, some = student(without=["pixels", "image"]), pictures()
    said = model(changed(some, described=torch.zeros(8, dtype=torch.bool)))
    said["loss"].backward()
    assert said["loss"].item() == 0
    given = [one for group in model.groups() for one in group["params"]]
    assert all(one.grad is not None and one.grad.abs().max() == 0 for one in given)


def test_with_the_scene_alone_y_is_alpha():
    model, some = student(without=["person"]), pictures()
    seen = model.see(some)
    assert len(seen.hidden) == 8
    expected = torch.nn.functional.linear(
        seen.tokens[:, 0], model.project.weight, model.project.bias
    )
    assert torch.allclose(model.fused(seen), expected, atol=1e-6)
    assert model.fused(seen).equal(model.fused(model.see(changed(some, person=some.scene))))


def test_weight_decay_is_for_matrices_alone():
    model = student(fusion="scaled", weight_decay=0.3)
    names = {id(one): name for name, one in model.named_parameters()}
    decay, rest = model.groups()
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.3, 0)
    decayed = {names[id(one)] for one in decay["params"]}
    spared = {names[id(one)] for one in rest["params"]}
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    for name in (
        "mae.vit.embeddings.cls_token",
        "mae.decoder.mask_token",
        "fuse.scene",
        "fuse.shift",
        "project.bias",
        "mae.vit.layernorm.weight",
        "mae.vit.embeddings.patch_embeddings.projection.bias",
    ):
        assert name in spared
    assert "mae.vit.embeddings.patch_embeddings.projection.weight" in decayed
    assert "mae.vit.embeddings.position_embeddings" not in decayed | spared
    attended = student(fusion="attended")
    decayed = {id(one) for one in attended.groups()[0]["params"]}
    assert all(id(layer.weight) in decayed for layer in [*attended.fuse.scene, attended.project])


# -------------------------------------------------------------------------- as it learns


def descend(model: Student, steps: int = 20) -> list[dict[str, float]]:
    some = pictures()
    optimizer = torch.optim.AdamW(model.groups(), lr=3e-3, betas=(0.9, 0.95))
    history = []
    for _ in range(steps):
        said = model(some)
        history.append({name: value.item() for name, value in said.items()})
        optimizer.zero_grad()
        said["loss"].backward()
        optimizer.step()
    return history


@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_loss_falls_with_each_fusion(fusion):
    history = descend(student(fusion=fusion, normalise=False))
    for name in ("loss", "pixels", "similarity", "image"):
        assert history[-1][name] < 0.9 * history[0][name], name


@pytest.mark.parametrize("without", WITHOUT[1:], ids="-".join)
def test_it_learns_without_each_part(without):
    history = descend(student(without=without, normalise=False))
    for name in history[0]:
        assert history[-1][name] < 0.9 * history[0][name], name


def test_one_seed_gives_one_student():
    one, same, other = student(seed=1), student(seed=1), student(seed=2)
    for name, value in one.state_dict().items():
        assert value.equal(same.state_dict()[name]), name
    assert not one.project.weight.equal(other.project.weight)
    assert descend(one, 3) == descend(same, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_coarser_arithmetic_says_nearly_the_same_in_float32(dtype):
    model, some = student(), pictures()
    exact = model(some)
    with torch.autocast("cpu", dtype):
        coarse = model(some)
        measured = model.measure(some)
        assert model.fused(model.see(some)).dtype == torch.float32
    coarse["loss"].backward()
    for name, value in coarse.items():
        assert value.dtype == measured[name].dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.03)
    assert all(one.grad.isfinite().all() for one in model.parameters() if one.requires_grad)


# -------------------------------------------------------------------------- measured


def test_measures_are_sums_over_pictures():
    model, some = student(), pictures()
    said, whole = model(some), model.measure(some)
    assert list(whole)[:4] == list(said)
    for name, value in said.items():
        assert torch.allclose(whole[name], 8 * value, rtol=1e-5), name
        assert not whole[name].requires_grad
    halves = [model.measure(part(some, slice(0, 3))), model.measure(part(some, slice(3, 8)))]
    for name in ("pixels", "image", "mean_pixels", "visible_pixels"):
        assert torch.allclose(whole[name], halves[0][name] + halves[1][name], rtol=1e-5), name
    nothing = model.measure(part(some, slice(0, 0)))
    assert nothing.keys() == whole.keys()
    assert all(value == 0 for value in nothing.values())


def test_the_mean_picture_is_learned_over_batches_of_any_length():
    model, some = student(normalise=False), pictures()
    model.learn_mean(
        iter([part(some, slice(0, 3)), part(some, slice(3, 3)), part(some, slice(3, 8))])
    )
    expected = torch.stack([pixels(some.scene).mean(0), pixels(some.person).mean(0)])
    assert torch.allclose(model.mean_picture, expected, atol=1e-6)
    assert "mean_picture" in model.state_dict()
    model.learn_mean([])
    assert (model.mean_picture == 0).all()


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("without", [[], ["person"]], ids=["both", "scene"])
def test_the_guesses_are_those_of_a_sum_by_hand(normalise, without):
    model, some = student(normalise=normalise, without=without), pictures()
    train = part(some, slice(0, 5))
    model.learn_mean([train])
    streams = ["scene", "person"][: 2 - len(without)]
    hidden = model.see(some).hidden.view(len(streams), 8, N)
    errors = {"mean_pixels": [], "visible_pixels": []}
    for at, stream in enumerate(streams):
        target = patches(getattr(some, stream), normalise)
        mean = patches(getattr(train, stream), normalise).mean(0)
        for n in range(8):
            masked = hidden[at, n].numpy() > 0
            colour = target[n][~masked].reshape(-1, 3).mean(0)
            guess = np.tile(colour, PATCH * PATCH)
            errors["mean_pixels"].append(((mean - target[n]) ** 2)[masked].mean())
            errors["visible_pixels"].append(((guess - target[n]) ** 2)[masked].mean())
    measured = model.measure(some)
    for name, each in errors.items():
        assert measured[name].item() == pytest.approx(sum(each) / len(streams), rel=1e-4), name


def patches(squares: torch.Tensor, normalise: bool) -> np.ndarray:
    x = pixels(squares).double().numpy()
    a_side = SIZE // PATCH
    x = x.reshape(len(x), 3, a_side, PATCH, a_side, PATCH).transpose(0, 2, 4, 3, 5, 1)
    x = x.reshape(len(x), N, -1)
    if not normalise:
        return x
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-6)


def test_an_untrained_student_does_not_beat_the_guesses():
    """Which would say nothing if it did."""
    for normalise in (True, False):
        model, some = student(normalise=normalise), pictures()
        model.learn_mean([some])
        measured = model.measure(some)
        assert measured["pixels"] > measured["mean_pixels"]


# -------------------------------------------------------------------------- shown


@pytest.mark.parametrize("normalise", [True, False])
def test_a_reconstruction_is_the_picture_where_it_was_seen_and_a_guess_elsewhere(normalise):
    model, some = student(normalise=normalise), pictures()
    shown = model.reconstruct(some)
    hidden = model.see(some).hidden.view(2, 8, SIZE // PATCH, SIZE // PATCH)
    assert list(shown) == ["scene", "person"]
    for at, (stream, found) in enumerate(shown.items()):
        squares = getattr(some, stream)
        masked = hidden[at].repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2) > 0
        masked = masked[:, None].expand_as(squares)
        assert found["original"].equal(squares)
        for name in ("masked", "reconstructed"):
            assert found[name].dtype == torch.uint8
            assert found[name][~masked].equal(squares[~masked])
        grey = found["masked"].transpose(0, 1)[masked.transpose(0, 1)].view(3, -1)
        assert grey.unique(dim=1).squeeze().tolist() == [124, 116, 104]
        assert not found["reconstructed"][masked].equal(squares[masked])


@pytest.mark.parametrize("normalise", [True, False])
def test_a_perfect_decoder_shows_the_picture_itself(normalise, monkeypatch):
    model, some = student(normalise=normalise), pictures()
    monkeypatch.setattr(model, "predict", model.target)
    for stream, found in model.reconstruct(some).items():
        off = found["reconstructed"].int() - getattr(some, stream).int()
        assert off.abs().max() <= 1


def test_without_a_decoder_nothing_is_reconstructed():
    shown = student(without=["pixels", "person"]).reconstruct(pictures())
    assert [*shown] == ["scene"]
    assert [*shown["scene"]] == ["original", "masked"]


# -------------------------------------------------------------------------- refused


def test_a_loss_without_its_teacher_is_refused_by_the_setting_that_gives_it():
    with pytest.raises(SettingsError, match=r"image and similarity without a teacher: set views"):
        student(None)
    student(None, without=["similarity", "image"])
    with pytest.raises(SettingsError, match=r"views.teacher_text.network"):
        student()(changed(pictures(), text=None, described=None))
    with pytest.raises(SettingsError, match=r"views.teacher_image.network"):
        student(without=["similarity"])(changed(pictures(), image=None))
    student(without=["similarity"])(changed(pictures(), text=None, described=None))


# -------------------------------------------------------------------------- a start


@pytest.fixture
def saved(tmp_path):
    """A masked autoencoder as transformers saves it, and its weights."""
    model = student(None, seed=7, without=ALONE)
    for one in model.mae.parameters():
        if one.requires_grad:
            torch.nn.init.normal_(one, std=0.1)
    model.mae.save_pretrained(tmp_path / "mae")
    return tmp_path / "mae", model.mae.state_dict()


def test_it_goes_on_from_a_masked_autoencoder_with_its_decoder(saved):
    folder, state = saved
    model = student(None, without=ALONE)
    assert model.load_start(folder) is True
    for name, value in model.mae.state_dict().items():
        assert value.equal(state[name]), name
    some = pictures()
    expected = ViTMAEForPreTraining.from_pretrained(folder)(
        pixels(some.scene), noise=some.noise[:, 0]
    )
    assert torch.allclose(model.predict(model.see(some)), expected.logits, atol=1e-5)


def test_it_goes_on_from_one_whose_tensors_have_their_first_names(saved):
    """As facebook/vit-mae-base was saved in 2022."""
    from safetensors.torch import save_file

    folder, state = saved
    names = {
        "vit.layers.": "vit.encoder.layer.",
        "attention.o_proj": "attention.output.dense",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    older = {}
    for name, value in state.items():
        for new, old in names.items():
            name = name.replace(new, old)
        older[name] = value.contiguous()
    assert "decoder.decoder_layers.0.attention.attention.query.weight" in older
    save_file(older, folder / "model.safetensors", {"format": "pt"})
    model = student(None, without=ALONE)
    assert model.load_start(folder) is True
    for name, value in model.mae.state_dict().items():
        assert value.equal(state[name]), name


def test_a_decoder_of_another_shape_is_left_and_the_encoder_taken(saved):
    folder, state = saved
    for decoder in (
        {"width": 24, "layers": 1, "heads": 2},
        {"width": 16, "layers": 2, "heads": 2},
        {
            "width": 16,
            "layers": 1,
            "heads": 4,
        },  # tensors of the same shapes, that mean other things
    ):
        model = student(decoder=decoder)
        before = bits(model)
        assert model.load_start(folder) is False
        for name, value in model.state_dict().items():
            taken = name.removeprefix("mae.")
            expected = state[taken] if taken.startswith("vit.") else before[name]
            assert value.equal(expected), name


def test_another_size_has_its_own_positions(saved):
    folder, state = saved
    model = student(size=48)
    assert model.load_start(folder) is True
    for place, width in (
        (model.mae.vit.embeddings.position_embeddings, 32),
        (model.mae.decoder.decoder_pos_embed, 16),
    ):
        assert place.equal(positions(6, width))
    assert model.mae.vit.layers[1].mlp.fc1.weight.equal(state["vit.layers.1.mlp.fc1.weight"])
    assert model(pictures(size=48))["loss"].isfinite()


def test_an_encoder_alone_is_a_start_too(saved, tmp_path):
    from train.uniemox.encoder import save_encoder

    folder, state = saved
    first = student(None, without=ALONE)
    first.load_start(folder)
    save_encoder(first, tmp_path / "vit", {"name": "an encoder"})
    first.mae.vit.save_pretrained(tmp_path / "alone")
    for name in ("vit", "alone"):
        model = student()
        before = bits(model)
        assert model.load_start(tmp_path / name) is False
        for key, value in model.mae.state_dict().items():
            expected = state[key] if key.startswith("vit.") else before[f"mae.{key}"]
            assert value.equal(expected), key


def test_a_start_that_is_another_encoder_is_refused_and_the_right_one_named(saved, monkeypatch):
    folder, _ = saved
    monkeypatch.setitem(SIZES, "small", (32, 2, 2))
    monkeypatch.setitem(SIZES, "tiny", (64, 3, 2))
    with pytest.raises(SettingsError) as error:
        student(None, without=ALONE, patch=16).load_start(folder)
    said = str(error.value)
    assert "hidden_size 32, num_hidden_layers 2" in said
    assert "pretrain.encoder tiny with pretrain.patch 16 has hidden_size 64" in said
    assert said.endswith("set pretrain.encoder to small and pretrain.patch to 8")


def test_learned_positions_of_another_size_are_refused(tmp_path):
    from transformers import ViTConfig, ViTModel

    shape = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    model = ViTModel(ViTConfig(**shape, image_size=SIZE, patch_size=PATCH), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "vit")
    same = student()
    assert same.load_start(tmp_path / "vit") is False
    place = same.mae.vit.embeddings.position_embeddings
    assert place.equal(model.embeddings.position_embeddings)
    assert not place.requires_grad
    with pytest.raises(
        SettingsError, match=r"learned positions .* set pretrain.size to 32 \(now 48"
    ):
        student(size=48).load_start(tmp_path / "vit")


def test_a_start_that_is_used_to_other_pixels_is_refused(saved):
    import json

    folder, _ = saved
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(SettingsError, match=r"is used to pixels less \[0.5, 0.5, 0.5\]"):
        student().load_start(folder)


def test_a_start_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"has no config.json"):
        student().load_start(tmp_path)


def test_the_teachers_width_is_that_of_y():
    assert student().fused(student().see(pictures())).shape == (8, D)


def test_errors_picture_by_picture_have_the_means_that_measure_sums_up():
    network, some = student(), pictures()
    network.learn_mean([some])
    sums, errors = network.measure(some), network.errors(some)
    assert set(errors) == {"pixels", "mean_pixels", "visible_pixels"}
    for name, each in errors.items():
        assert each.shape == (len(some),)
        assert torch.allclose(each.sum(), sums[name], rtol=1e-5)
    assert errors["pixels"].std() > 0
