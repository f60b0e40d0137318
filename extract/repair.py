"""Mend a cache: take out what is damaged, extract exactly those rows again, look once more."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.check import Damage, Findings, identify, verify
from cache.errors import CacheError, KeyMismatch
from cache.index import Index, index_damage, recover_index
from cache.keys import in_short
from cache.lock import only_writer
from cache.paths import index_folder, view_names
from cache.progress import Progress, silent
from cache.retract import retract
from cache.settings import Cache
from extract.loaded import Networks
from extract.people import Finder
from extract.prepare import prepare
from extract.run import Outcome, extract
from extract.settings import Data, Extract
from extract.views import View, give_definitions


@dataclass
class Repaired:
    """damages: what was found; rows: how many rows of each view were extracted again; outcome: of
    that extraction; left: what could not be mended, empty when the cache is whole."""

    damages: list[Damage]
    rows: dict[str, int] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=Outcome)
    left: list[Damage] = field(default_factory=list)


def repair(
    data: Data,
    cache: Cache,
    settings: Extract,
    views_of: Callable[[Index], Mapping[str, View]],
    networks: Networks,
    progress: Progress = silent,
    finder: Finder | None = None,
) -> Repaired:
    """Make a damaged cache whole again, from what is proven and from the pictures.

    Only damaged (view, row)s are extracted, whatever else is missing. A damaged index is made anew
    from the data set, and taken only if every shard proves that its rows are the same.
    Raises KeyMismatch where the settings would make other numbers than the damaged view holds,
    CacheError where index and shards do not belong together. Nothing is changed then.
    views_of: the views of an index; finder: who looks for people, where the data set has pictures
    without boxes.
    """
    damages = verify(cache.root).damages
    if not damages:
        return Repaired([])
    with only_writer(cache.root, "cache repair"):
        recover_index(cache.root)
        if index_damage(cache.root):
            _mend_index(data, cache, finder)
        index = Index.read(cache.root)
        views = views_of(index)
        give_definitions(views, index)
        found = verify(cache.root)
        _require_same_keys(found, cache.root, views, networks)
        rows = retract(cache.root, found, index)
    outcome = extract(data, cache, settings, views, networks, progress, only=rows)
    again = {name: sum(statuses.values()) for name, statuses in outcome.rows.items()}
    left = verify(cache.root).damages
    return Repaired(damages, {name: n for name, n in again.items() if n}, outcome, left)


def _mend_index(data: Data, cache: Cache, finder: Finder | None) -> None:
    """Put an index there that is made anew from the data set, if the shards prove that its rows
    are the same."""
    with tempfile.TemporaryDirectory(prefix=".index.", suffix=".partial", dir=cache.root) as folder:
        prepare(data, Path(folder), finder=finder)
        index = Index.read(Path(folder))
    for name in view_names(cache.root):
        for damage in verify(cache.root, [name], index=index).damages:
            if damage.foreign:
                raise CacheError(
                    f"{index_folder(cache.root)} is damaged, and {data.root} gives other rows than "
                    f"{damage.file} has: put the index back from where the cache is shared "
                    "(`dvc checkout --force`), or set data.root to the data set as it was"
                )
    index.write(cache.root)


def _require_same_keys(
    found: Findings, root: Path, views: Mapping[str, View], networks: Networks
) -> None:
    """What is put back must be what was there."""
    for name in {damage.view for damage in found.damages if damage.rows}:
        if name not in views:
            raise KeyMismatch(
                f"{root} has a damaged view {name!r} that the settings do not have: set "
                f"views.{name} as it was"
            )
        stored, _ = identify(root, name)
        if stored and stored.spec.key != views[name].key(networks):
            why = in_short(stored.spec.parts, views[name].parts(networks))
            raise KeyMismatch(
                f"view {name!r} was made with other settings than these ({why}): repair it with "
                "those, or run `emocache extract` to replace it"
            )
