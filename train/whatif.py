"""What a head would say of a person without a view, an object, or an edge between two labels."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cache.errors import DataError, SettingsError, did_you_mean
from train.data import Batch, Features, array_of, view_of
from train.layers.inputs import Standardise
from train.layers.label_classifiers import LabelClassifiers
from train.layers.label_graph import GraphConvolution

AT_ONCE = 256  # persons in one pass of `singles`
WIDE = 512  # inputs from which on a layer is worth looking at before it is worked out again

Edge = tuple[int, int]


@dataclass(frozen=True)
class Without:
    """What is taken away: views by name, objects by their number (from 0, in the order of the
    cache), edges as pairs of label numbers. Nothing: the head as it is."""

    views: tuple[str, ...] = ()
    objects: tuple[int, ...] = ()
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True)
class Singles:
    """Scores of N persons with everything (N, C); without each view alone (N, V, C), in the order
    of `views`; without each object alone (N, k, C), NaN where there is no such object, k = 0 for a
    head that reads none."""

    views: tuple[str, ...]
    scores: Float[np.ndarray, "N C"]
    without_view: Float[np.ndarray, "N V C"]
    without_object: Float[np.ndarray, "N k C"]


def what_if(
    model: Any, features: Features, row: int, cases: Sequence[Without]
) -> Float[np.ndarray, "K C"]:
    """The head's scores of one person row in each case; cases with the same edges go together.

    An object is as if it had not been found: its mask is false, and the weights of the others sum
    to 1 again. Without `objects` none was found, without `head` no face (mask false, features
    zeros). Any other view is that of the mean training person: its features are the mean by which
    the head standardises, zeros where it does not (`train.standardise: false`), and the depth map
    is flat. It stays in the mask, so that HeLo attends to a mean modality as to any other. A view
    that the person lacks already changes nothing.

    An edge is cut in both directions in every label graph, before the head normalises it. What a
    label had for its neighbours goes to those that are left where the graph is re-weighted
    (`train.layers.label_classifiers.reweighted`): as if the two had never occurred together.

    Raises SettingsError for a view that the head does not read, an object that was not found, or an
    edge that no graph has; DataError for a row that is no person's.
    """
    if not 0 <= row < len(features.box):
        raise DataError(f"no person row {row}: there are {len(features.box)}, numbered from 0")
    cases = [_told(model, features, row, case) for case in cases]
    groups: dict[tuple[Edge, ...], list[int]] = {}
    for at, case in enumerate(cases):
        groups.setdefault(case.edges, []).append(at)
    found = np.zeros((len(cases), len(features.labels)), np.float32)
    model.eval()
    for edges, places in groups.items():
        rows = torch.full((len(places),), row, device=features.device)
        batch = features.batch(rows)
        views = {name: dict(arrays) for name, arrays in batch.views.items()}
        for at, place in enumerate(places):
            one = torch.arange(len(places), device=features.device) == at
            for name in cases[place].views:
                views |= _without_view(model, views, name, one)
            if cases[place].objects:
                views["objects"] = _without_objects(views["objects"], cases[place].objects, one)
        head = _without_edges(model, edges) if edges else model
        with torch.no_grad():
            found[places] = head(replace(batch, views=views)).scores.cpu().numpy()
    return found


def singles(
    model: Any,
    features: Features,
    rows: Int[Tensor, " N"],
    views: Sequence[str] | None = None,
    objects: bool = True,
) -> Singles:
    """The scores of these person rows without each of `views` (None: all that the head reads), and
    without each single object; see `what_if`.

    Wide linear layers are worked out once a person, and then for what has changed: a case costs as
    much as the view it takes away. A head of nearest neighbours looks at all of them in each case.
    """
    there = views_of(model, features)
    names = there if views is None else tuple(views)
    for name in names:
        _check_view(model, features, name)
    count = 0
    if objects and "objects" in there:
        count = features.views["objects"]["mask"].shape[1]
    model.eval()
    found: list[list[np.ndarray]] = []
    for batch in features.batches(rows, AT_ONCE):
        every = torch.ones(len(batch.box), dtype=torch.bool, device=features.device)
        head = _by_change(model)
        with torch.no_grad():
            scores = [head(batch).scores]
            for changed in _each(model, batch, names, count, every):
                scores.append(head(changed).scores)
        if count:
            mask = batch.views["objects"]["mask"]
            for number in range(count):
                at = 1 + len(names) + number
                scores[at] = scores[at].masked_fill(~mask[:, number, None], torch.nan)
        found.append([one.cpu().numpy() for one in scores])
    if not found:
        found = [[np.zeros((0, len(features.labels)), np.float32)] * (1 + len(names) + count)]
    every_case = np.concatenate([np.stack(some, axis=1) for some in found])
    cut = 1 + len(names)
    return Singles(names, every_case[:, 0], every_case[:, 1:cut], every_case[:, cut:])


def views_of(model: Any, features: Features) -> tuple[str, ...]:
    """The views that can be taken from the head, in its own order: those of features of persons and
    pictures that it reads. `objects.region` is `objects`."""
    return tuple(dict.fromkeys(view_of(name) for name in _read(model, features.views)))


def edges_of(model: Any) -> tuple[Edge, ...]:
    """The pairs of labels i < j that a label graph of the head joins, the strongest first (by the
    larger of A_ij and A_ji, in the graph where it is largest); none for a head without
    convolutions over labels."""
    if not any(isinstance(module, GraphConvolution | LabelClassifiers) for module in _parts(model)):
        return ()
    graphs = [graph.detach().abs().cpu() for graph in model.graphs().values()]
    if not graphs:
        return ()
    strength = torch.stack([torch.maximum(graph, graph.T) for graph in graphs]).amax(0).triu(1)
    i, j = strength.nonzero(as_tuple=True)
    order = strength[i, j].argsort(descending=True, stable=True)
    return tuple(zip(i[order].tolist(), j[order].tolist(), strict=True))


def _told(model: Any, features: Features, row: int, case: Without) -> Without:
    """The case with each thing once, in order. Raises SettingsError where one is not there."""
    for name in case.views:
        _check_view(model, features, name)
    if case.objects:
        _check_objects(model, features, row, case.objects)
    edges = tuple(sorted({(min(edge), max(edge)) for edge in case.edges}))
    if edges:
        _check_edges(model, features, edges)
    return Without(tuple(sorted(set(case.views))), tuple(sorted(set(case.objects))), edges)


def _check_view(model: Any, features: Features, name: str) -> None:
    there = views_of(model, features)
    if name not in there:
        raise SettingsError(f"the head reads no view {name!r}{did_you_mean(name, there)}")


def _check_objects(model: Any, features: Features, row: int, numbers: Sequence[int]) -> None:
    _check_view(model, features, "objects")
    one = torch.tensor([row], device=features.device)
    count = int(features.batch(one).views["objects"]["mask"].sum())
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        there = f"its objects are numbered 0 to {count - 1}" if count else "it has none"
        raise SettingsError(f"person row {row} has no object {wrong[0]}: {there}")


def _check_edges(model: Any, features: Features, edges: Sequence[Edge]) -> None:
    there = set(edges_of(model))
    if not there:
        raise SettingsError("the head has no label graph: there is no edge to cut")
    labels = features.labels
    for i, j in edges:
        if not (0 <= i < len(labels) and 0 <= j < len(labels)):
            raise SettingsError(
                f"no edge {i} to {j}: the labels are numbered 0 to {len(labels) - 1}"
            )
        if i == j:
            raise SettingsError(f"the edge of {labels[i]} to itself cannot be cut: name two labels")
        if (i, j) not in there:
            near = [labels[b if a == i else a] for a, b in sorted(there) if i in (a, b)]
            said = f"{labels[i]} has edges to {', '.join(near)}" if near else "it has no edge"
            raise SettingsError(f"no label graph joins {labels[i]} and {labels[j]}: {said}")


def _read(model: Any, views: Mapping[str, Any]) -> list[str]:
    """The names by which the head reads views (`objects.region`); of a head that does not say, all
    at hand."""
    widths = model.spec.get("widths")
    names = list(views) if widths is None else list(widths)
    return [name for name in names if view_of(name) in views]


def _each(
    model: Any, batch: Batch, names: Sequence[str], count: int, every: Tensor
) -> Iterator[Batch]:
    """The batch without each view, then without each object."""
    for name in names:
        yield replace(
            batch, views={**batch.views, **_without_view(model, batch.views, name, every)}
        )
    for number in range(count):
        objects = _without_objects(batch.views["objects"], (number,), every)
        yield replace(batch, views={**batch.views, "objects": objects})


def _without_view(
    model: Any, views: Mapping[str, Mapping[str, Tensor]], view: str, one: Tensor
) -> dict[str, dict[str, Tensor]]:
    """The view of the persons of `one` (B,) taken away."""
    arrays = dict(views[view])
    if view == "objects":
        k = arrays["mask"].shape[1]
        return {view: _without_objects(arrays, range(k), one)}
    if view == "head":
        arrays["mask"] = arrays["mask"] & ~one
        arrays["features"] = arrays["features"] * ~one[:, None]
        return {view: arrays}
    for name in _read(model, views):
        if view_of(name) == view:
            values = arrays[array_of(name)]
            which = one.view(-1, *[1] * (values.ndim - 1))
            arrays[array_of(name)] = torch.where(which, _mean(model, name, values), values)
    if "map" in arrays:
        arrays["map"] = arrays["map"] * ~one[:, None, None]
    return {view: arrays}


def _without_objects(
    arrays: Mapping[str, Tensor], numbers: Sequence[int], one: Tensor
) -> dict[str, Tensor]:
    """The objects of these numbers of the persons of `one` (B,) taken away, as the cache pads."""
    k = arrays["mask"].shape[1]
    gone = torch.zeros(k, dtype=torch.bool, device=one.device)
    gone[list(numbers)] = True
    stays = ~(gone & one[:, None])
    found = dict(arrays)
    found["mask"] = arrays["mask"] & stays
    for array in ("features", "region"):
        if array in arrays:
            found[array] = arrays[array] * stays[..., None]
    if "count" in arrays:
        found["count"] = found["mask"].sum(1)
    return found


def _mean(model: Any, name: str, values: Float[Tensor, "B *W"]) -> Float[Tensor, "*W"]:
    """The mean of a view that the head has learned; zeros where it has none."""
    see = getattr(model, "see", None)
    if not isinstance(see, Standardise) or name not in see.names:
        return values.new_zeros(values.shape[1:])
    return see.mean(name)


def _parts(model: Any) -> Iterator[nn.Module]:
    yield from model.modules() if isinstance(model, nn.Module) else ()


def _shallow(model: Any) -> Any:
    """The same head with the same tensors in modules of its own: what is hung on them is nobody
    else's, also where several ask at once."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _without_edges(model: Any, edges: Sequence[Edge]) -> Any:
    """The head whose label graphs lack these edges."""
    head = _shallow(model)
    i, j = torch.tensor(edges).T
    ends = torch.cat([i, j]), torch.cat([j, i])

    def cut(module: nn.Module, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nodes, adjacency = given
        left = adjacency.clone()
        left[ends] = 0
        if isinstance(module, LabelClassifiers):
            left = _shared_again(left, adjacency)
        return nodes, left

    for module in _parts(head):
        if isinstance(module, GraphConvolution | LabelClassifiers):
            module.register_forward_pre_hook(cut)
    return head


def _shared_again(left: Float[Tensor, "C C"], before: Float[Tensor, "C C"]) -> Tensor:
    """Rows off the diagonal sum to what they did before, as far as a neighbour is left: what
    `reweighted` makes of the labels that still belong together."""
    own = torch.diag(left.diagonal())
    beside, was = left - own, (before - torch.diag(before.diagonal())).sum(1, keepdim=True)
    now = beside.sum(1, keepdim=True)
    return own + torch.where(now > 0, beside * was / now.clamp(min=1e-12), beside)


def _by_change(model: Any) -> Any:
    """The head for one batch of persons: its first pass is as ever, and in later ones a wide linear
    layer adds to what it gave then what comes from the inputs that differ."""
    head = _shallow(model)
    layers = [
        module
        for module in _parts(head)
        if isinstance(module, nn.Linear) and module.in_features >= WIDE
    ]
    changes = [_Change(layer) for layer in layers]
    for layer, change in zip(layers, changes, strict=True):
        layer.forward = change  # type: ignore[method-assign, assignment]

    def begin(module: nn.Module, given: Any) -> None:
        for change in changes:
            change.begin()

    head.register_forward_pre_hook(begin)
    return head


class _Change:
    """A linear layer, of which a later pass needs only what changed since the first: of the rows
    that differ at all (some persons, some of their objects) the columns from the first to the last
    that do (a view among others)."""

    def __init__(self, layer: nn.Linear):
        self.weight, self.bias = layer.weight, layer.bias
        self.first: list[tuple[Tensor, Tensor]] = []  # inputs and outputs of each call
        self.passes, self.call = 0, 0

    def begin(self) -> None:
        self.passes, self.call = self.passes + 1, 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.passes == 1:
            self.first.append((x, nn.functional.linear(x, self.weight, self.bias)))
            return self.first[-1][1]
        before, found = self.first[self.call]
        self.call += 1
        if x.shape != before.shape:
            return nn.functional.linear(x, self.weight, self.bias)
        differs = (x != before).flatten(0, -2).view(torch.uint8)  # whose amax is quick
        columns = differs.amax(0).nonzero()[:, 0]
        if not len(columns):
            return found
        some = slice(int(columns[0]), int(columns[-1]) + 1)
        rows = differs.amax(1).nonzero()[:, 0]
        few = 2 * len(rows) < len(differs)
        if not few and 2 * (some.stop - some.start) > x.shape[-1]:
            return nn.functional.linear(x, self.weight, self.bias)
        moved = (x[..., some] - before[..., some]).flatten(0, -2)
        again = found.flatten(0, -2).clone()
        if few:
            again.index_add_(0, rows, moved[rows] @ self.weight[:, some].T)
        else:
            again.addmm_(moved, self.weight[:, some].T)
        return again.view_as(found)
