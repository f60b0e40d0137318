"""What the settings stand for on this machine: the device, the index, the views, their networks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cache.errors import DataError, SettingsError
from cache.index import Index
from pipelines.settings import Settings

if TYPE_CHECKING:  # these load torch, and not every command needs it
    from extract.loaded import Networks
    from extract.views import View


def device_of(settings: Settings) -> str:
    """The device that `auto` stands for here: a GPU where torch sees one, else the CPU.

    Raises SettingsError for a device that is not here.
    """
    if settings.device == "cpu":
        return "cpu"
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if settings.device == "auto":
        return next((kind for kind, found in here.items() if found), "cpu")
    kind, _, number = settings.device.partition(":")
    if not here[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise SettingsError(f"device {settings.device} is not here: set device to auto or cpu")
    return settings.device


def index_of(settings: Settings) -> Index:
    """The cache's index, of the data set that the settings name: DataError for another. Where the
    pictures lie may differ from one machine to the next, so `data.root` is not compared."""
    index, data = Index.read(settings.cache.root), settings.data
    if index.dataset != data.name:
        raise DataError(
            f"the index in {settings.cache.root} holds {index.dataset}, the settings say "
            f"{data.name} ({data.root}): run `emocache prepare`, or set data.name or cache.root"
        )
    return index


def views_of(settings: Settings, index: Index) -> "dict[str, View]":
    """The views that the settings name, UniEmoX's teachers among them, with what they read of this
    index; of recordings those that the index names."""
    from extract.teachers import make_teachers
    from extract.views import give_definitions, make_views

    if index.modalities:
        from extract.signals.views import make_signals

        return dict(make_signals(index))
    dtype = settings.cache.dtype
    views = make_views(settings.views, dtype) | make_teachers(settings.views, dtype)
    give_definitions(views, index)
    return views


def networks_of(
    settings: Settings, on_load: Callable[[Any], None] = lambda weights: None
) -> "Networks":
    """The networks that the views run, none of them loaded yet; on_load: called with the `Weights`
    of each as it is."""
    from extract.loaded import Networks

    return Networks(
        settings.weights,
        lambda: device_of(settings),
        on_load,
        settings.extract.batch,
        settings.views.precision,
    )
