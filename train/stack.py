"""K heads of one shape as one: their parameters side by side, one pass and one step for all.

A row of one matrix holds all parameters of a head, so that copying, dropping and optimizing a
head is work on a row; the forward pass of all of them is `torch.vmap` over views of that matrix.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from train.data import Batch
from train.layers.dropout import Dropout, draw

Tensors = Mapping[str, Tensor]


class Unstackable(Exception):
    """Heads that cannot go in step, with the reason."""


class Stack:
    """The heads `models`, which share class, shapes and all settings but those that they keep in
    buffers (`Head.may_differ`). K: how many they are.

    weights (K, P): all parameters, a row a head; gradient (K, P), of the last `descend`. Raises
    Unstackable for a head without parameters, or one that draws random numbers by other means
    than `train.layers.dropout`.
    """

    def __init__(self, models: Sequence[Any], generators: Sequence[torch.Generator]):
        first = models[0]
        if any(isinstance(m, nn.modules.dropout._DropoutNd) for m in first.modules()):
            raise Unstackable("its torch.nn.Dropout could be train.layers.dropout")
        if not any(p.requires_grad for p in first.parameters()):
            raise Unstackable("it is solved, not descended")
        self._loss = _Loss(copy.deepcopy(first).to("meta"))
        self._drops = [m for m in self._loss.modules() if isinstance(m, Dropout)]
        self.shares = [[m.share for m in one.modules() if isinstance(m, Dropout)] for one in models]
        self._widths: list[torch.Size] | None = None  # of what is dropped, but for the persons
        self._first = first
        self.generators = list(generators)
        self._shapes = {name: p.shape for name, p in first.named_parameters()}
        self.weights = torch.stack(
            [torch.cat([p.detach().flatten() for p in one.parameters()]) for one in models]
        )
        self.buffers, self.common = _buffers(models)
        self._view()

    def __len__(self) -> int:
        return len(self.weights)

    def _view(self) -> None:
        """Parameters and their gradients as views of the two matrices."""
        self.gradient = torch.empty_like(self.weights)
        self._params: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}
        at = 0
        for name, shape in self._shapes.items():
            span = slice(at, at + shape.numel())
            view = self.weights[:, span].view(len(self), *shape)
            self._params[name] = view.requires_grad_()
            self._gradients[name] = self.gradient[:, span].view(len(self), *shape)
            at = span.stop

    def descend(self, batch: Batch, shared: bool) -> Float[Tensor, " K"]:
        """Fill `gradient`; the mean loss of each head over its persons. Arguments of `losses`."""
        losses = self.losses(batch, shared)
        found = torch.autograd.grad(losses.sum(), list(self._params.values()), allow_unused=True)
        for name, gradient in zip(self._params, found, strict=True):
            if gradient is None:
                raise Unstackable(f"its {name} has no part in the loss")
            self._gradients[name].copy_(gradient)
        return losses.detach()

    def losses(self, batch: Batch, shared: bool) -> Float[Tensor, " K"]:
        """The mean loss of each head over its persons, in training.

        shared: all see the same B persons; else the rows of `batch` are the B of the first head,
        then those of the second, and so on.
        """
        self._loss.train()
        data = _fields(batch)
        count = len(batch.box)
        if not shared:
            count //= len(self)
            data = _each(data, lambda v: v.unflatten(0, (len(self), count)))
        masks = self._masks(batch, count)

        def one(
            params: Tensors, buffers: Tensors, data: dict[str, Any], masks: list[Tensor]
        ) -> Tensor:
            with self._masked(masks):
                return self._call(params, buffers, data)[0]

        dims = (0, 0, None if shared else 0, 0)
        return torch.vmap(one, in_dims=dims)(self._params, self.buffers, data, masks)

    @torch.no_grad()
    def validate(self, batch: Batch) -> tuple[Float[Tensor, " K"], Float[Tensor, "K B C"]]:
        """Loss and scores of each head on the same persons, in evaluation."""
        self._loss.eval()

        def one(params: Tensors, buffers: Tensors, data: dict[str, Any]) -> tuple[Tensor, Tensor]:
            return self._call(params, buffers, data)

        return torch.vmap(one, in_dims=(0, 0, None))(self._params, self.buffers, _fields(batch))

    def state(self, k: int) -> dict[str, Tensor]:
        """The state dict of one head, copied."""
        names = self._first.state_dict()
        found: dict[str, Tensor] = {}
        at = 0
        for name, shape in self._shapes.items():
            found[name] = self.weights[k, at : at + shape.numel()].view(shape).clone()
            at += shape.numel()
        for name, values in self.buffers.items():
            found[name] = values[k].clone()
        return {n: found[n] if n in found else self.common[n].clone() for n in names}

    def keep(self, some: Sequence[int]) -> None:
        """Go on with these heads only."""
        at = torch.as_tensor(some, device=self.weights.device)
        self.weights = self.weights[at]
        self.buffers = {name: values[at] for name, values in self.buffers.items()}
        self.shares = [self.shares[k] for k in some]
        self.generators = [self.generators[k] for k in some]
        self._view()

    def _call(self, params: Tensors, buffers: Tensors, data: dict[str, Any]) -> Any:
        state = {f"head.{n}": v for some in (params, buffers, self.common) for n, v in some.items()}
        return functional_call(self._loss, state, (Batch(**data),), strict=True)

    def _masks(self, batch: Batch, count: int) -> list[Tensor]:
        """For each dropout layer (K, B, W): what each head alone would have drawn now."""
        if not any(any(shares) for shares in self.shares):
            return []
        if self._widths is None:
            self._widths = _dropped(self._first, batch)
        device = batch.box.device
        drawn = [
            [
                draw(share, torch.Size((count, *width)), device, generator)
                if share
                else torch.ones(count, *width, device=device)
                for share, width in zip(shares, self._widths, strict=True)
            ]
            for shares, generator in zip(self.shares, self.generators, strict=True)
        ]
        return [torch.stack(of_layer) for of_layer in zip(*drawn, strict=True)]

    @contextmanager
    def _masked(self, masks: Sequence[Tensor]) -> Iterator[None]:
        for drop, mask in zip(self._drops, masks, strict=False):  # none where nothing is dropped
            drop.mask = mask
        try:
            yield
        finally:
            for drop in self._drops:
                drop.mask = None


class _Loss(nn.Module):
    """A head's loss and scores as one forward pass."""

    def __init__(self, head: Any):
        super().__init__()
        self.head = head

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        output = self.head(batch)
        return self.head.loss(output, batch), output.scores


def _buffers(models: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Buffers side by side where heads differ in them or change them, and those all share."""
    changing = {
        f"{at}.{name}"
        for at, module in models[0].named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, _ in module.named_buffers()
    }
    apart, common = {}, {}
    for name, first in models[0].named_buffers():
        values = [one.get_buffer(name) for one in models]
        if name not in changing and all(torch.equal(first, value) for value in values[1:]):
            common[name] = first
        else:
            apart[name] = torch.stack(values)
    return apart, common


@torch.no_grad()
def _dropped(model: Any, batch: Batch) -> list[torch.Size]:
    """The shape of what each dropout layer is given, but for the persons, in order of use."""
    found: dict[int, torch.Size] = {}
    layers = [m for m in model.modules() if isinstance(m, Dropout)]
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, number=number: found.__setitem__(number, given[0].shape[1:])
        )
        for number, layer in enumerate(layers)
    ]
    training = model.training
    model.eval()(Batch(**_each(_fields(batch), lambda v: v[:2])))
    model.train(training)
    for hook in hooks:
        hook.remove()
    if list(found) != sorted(found):
        raise Unstackable("it uses its dropout layers in another order than it holds them")
    return [found[number] for number in range(len(layers))]


def _fields(batch: Batch) -> dict[str, Any]:
    """The batch as a dictionary, without what is None."""
    found = {one.name: getattr(batch, one.name) for one in fields(batch)}
    return {name: value for name, value in found.items() if value is not None}


def _each(data: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {
        name: _each(value, change) if isinstance(value, Mapping) else change(value)
        for name, value in data.items()
    }
