"""Files into networks: their shape, and their weights, where every tensor must have its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import SettingsError, WeightsError, first_line
from extract.weights import Weights
from extract.weights.record import json_in

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig


def load_state(model: torch.nn.Module, weights: Weights, unused: tuple[str, ...] = ()) -> None:
    """Fill a network from a .safetensors file, or the one in a folder; every tensor must have its
    place, save those of layers that the network was built without (`unused`, by the start of their
    names).

    Raises WeightsError naming the file and the tensors that do not fit.
    """
    from safetensors.torch import load_file

    if weights.path is None:
        raise WeightsError(f"the weights of {weights.network} from {weights.source} have no file")
    path = weights.path / "model.safetensors" if weights.path.is_dir() else weights.path
    try:
        state = {k: v for k, v in load_file(path).items() if not k.startswith(unused)}
        missing, extra = model.load_state_dict(state, strict=False)
    except Exception as error:  # torch and safetensors raise several kinds for a wrong file
        raise WeightsError(
            f"{weights.path} does not hold weights of {weights.network}: {first_line(error)}; "
            "see weights.folder and weights.source"
        ) from error
    # a counter that only training reads, absent from files saved with frozen batch norms
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or extra:
        raise WeightsError(
            f"{weights.path} does not fit {weights.network}: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(extra)} unknown {extra[:3]}; see weights.folder and "
            "weights.source"
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and reports of its own while transformers loads; what is missing we say ourselves."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_transformer(
    auto: Any, weights: Weights, unused: tuple[str, ...], setting: str, **more: Any
) -> Any:
    """A transformers model out of a local folder of safetensors, float32, never from a hub; `more`
    goes to its `from_pretrained`.

    transformers fills tensors that the folder lacks with random numbers: that is refused, except
    for those of layers whose output nobody reads (`unused`, by the start of their names).
    Raises WeightsError naming the folder and what is wrong with it.
    """
    import torch

    try:
        with quiet_transformers():
            model, report = auto.from_pretrained(
                weights.path,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **more,
            )
    except Exception as error:  # transformers and safetensors raise many kinds
        raise WeightsError(
            f"{weights.path} does not hold {weights.network} as transformers saves it: "
            f"{first_line(error)}; see weights.folder and {setting}"
        ) from error
    missing = sorted(n for n in report["missing_keys"] if not n.startswith(unused))
    if missing:
        raise WeightsError(
            f"{weights.path} lacks {len(missing)} tensors of {weights.network} {missing[:3]}; "
            f"see weights.folder and {setting}"
        )
    return model


def config_in(folder: str, setting: str, known: Iterable[str]) -> PreTrainedConfig:
    """The shape of an untrained network, from a folder's `config.json`.

    Raises SettingsError where there is none, with the names that are `known` without.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"the shape of {folder!r} is not known here, so it cannot run untrained: choose "
            f"{setting} from {', '.join(known)}, or a folder with its config.json"
        ) from error


def processor_of(folder: Path | None) -> dict[str, Any] | None:
    """What a transformers folder wants done to pixels, `{scale, mean, std}` as `normalise` reads
    it: from `preprocessor_config.json`, or from the part for images of `processor_config.json`.
    None where it does not say. Raises WeightsError for a file that is no JSON."""
    if folder is None:
        return None
    whole = json_in(folder / "processor_config.json") or {}
    facts = json_in(folder / "preprocessor_config.json") or whole.get("image_processor")
    if not isinstance(facts, Mapping) or "image_mean" not in facts or "image_std" not in facts:
        return None
    scale = float(facts.get("rescale_factor", 1 / 255))
    return {"scale": scale, "mean": list(facts["image_mean"]), "std": list(facts["image_std"])}
