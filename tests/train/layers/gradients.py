"""`gradcheck` of a whole layer: by its inputs and by its parameters."""

from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call


def right(layer: nn.Module, *inputs: Tensor) -> bool:
    """Whether the gradients by all parameters, and by the inputs that want one, are the numeric
    ones, in float64; raises where they are not."""
    layer.double()
    names = [name for name, _ in layer.named_parameters()]
    weights = [value.detach().clone().requires_grad_() for value in layer.parameters()]

    def call(*given: Tensor):
        own = dict(zip(names, given[len(inputs) :], strict=True))
        return functional_call(layer, own, given[: len(inputs)])

    return gradcheck(call, (*inputs, *weights))
