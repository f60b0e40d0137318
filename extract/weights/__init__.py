"""Where the weights of a frozen network come from, and which they are.

`find` tries the sources in the order of `weights.source`, a file here each:

    folder      what the user put into `weights.folder`
    store       what was fetched before, of this machine or a team
    hub         torchvision's host, and the hub of transformers
    packages    what packages on npm and PyPI carry: `catalogue.yaml`
    untrained   random numbers, for the networks named in `weights.untrained`

Whatever is fetched goes to the store as plain tensors (safetensors), so a network costs its
download once; nothing is unpickled whose hash is not in the catalogue.
"""

from collections.abc import Callable, Mapping

from cache.errors import WeightsError
from extract import settings as config
from extract.weights import folder, hub, packages, store, untrained
from extract.weights.folder import config_of
from extract.weights.record import Absent, Weights

__all__ = ["Weights", "config_of", "find"]

SOURCES: Mapping[config.Source, Callable[[str, config.Weights], Weights]] = {
    "folder": folder.find,
    "store": store.find,
    "hub": hub.find,
    "packages": packages.find,
    "untrained": untrained.find,
}


def find(network: str, settings: config.Weights) -> Weights:
    """The weights of a network from the first source that has them.

    Raises WeightsError naming every source that was tried and why it failed. Weights that are in
    the store are found without touching the network or loading torch.
    """
    tried = []
    sources = list(settings.source)
    if network in settings.untrained and "untrained" not in sources:
        sources.append("untrained")
    for source in sources:
        try:
            return SOURCES[source](network, settings)
        except Absent as why:
            tried.append(f"{source}: {why}")
    mend = (
        "Set weights.folder to where `emocache pretrain` has put it, as results/pretrain"
        if network.startswith("uniemox")
        else "Put a file into weights.folder, widen weights.source, or name "
        f"{network} in weights.untrained to run it on random weights"
    )
    raise WeightsError(f"no weights of {network}: {'; '.join(tried)}. {mend}")
