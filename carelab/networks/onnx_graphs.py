"""Turning the operators of an ONNX graph, one after the other, into layers of the house."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

__all__ = ["OPERATORS", "Chain", "Scaling", "Step", "as_layers", "check_operator"]

# Numbers that one input, or one value inside the network, may have.
_LARGEST_VALUE = 2**24


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Step:
    """One operator of the graph.

    Args:
        operator: its kind, such as "Gemm".
        name: what messages call it.
        attributes: its attributes: numbers, texts and tuples of numbers.
        operands: its inputs in order: constants, None where the network's value comes in, and
            None too for one that is left out at the end.
        place: which of the operands is the network's value.
    """

    operator: str
    name: str
    attributes: Mapping[str, object]
    operands: tuple[Tensor | None, ...]
    place: int

    def integer(self, attribute: str, default: int) -> int:
        """An attribute that is a whole number."""
        value = self.attributes.get(attribute, default)
        return value if isinstance(value, int) else default

    def integers(self, attribute: str, default: Sequence[int]) -> tuple[int, ...]:
        """An attribute that is a list of whole numbers."""
        value = self.attributes.get(attribute)
        return tuple(value) if isinstance(value, tuple) and value else tuple(default)

    def factor(self, attribute: str) -> float:
        """An attribute that is a number, 1 where it is left out."""
        value = self.attributes.get(attribute, 1.0)
        return float(value) if isinstance(value, int | float) else 1.0

    def constant(self, place: int) -> Tensor:
        """An operand that must be a constant."""
        found = self.operands[place] if place < len(self.operands) else None
        if found is None:
            raise self.refused(f"needs a constant as its input number {place + 1}")
        return found

    def refused(self, reason: str) -> ValueError:
        """What to raise where this operator cannot be read."""
        return ValueError(f"holds {self.operator} {self.name!r}, which {reason}")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Scaling:
    """An elementwise scale * x + shift that waits for the next layer to take it in.

    Args:
        step: the operator that it comes from, for messages.
        scale: broadcasts to one value of the network.
        shift: broadcasts to one value of the network.
    """

    step: Step
    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Chain:
    """What the operators read so far amount to.

    Args:
        modules: the layers, float64.
        shape: shape of the value that they return in the graph, without the batch axis.
        flat: in the network that value is (batch, features), whatever axes of length 1 the graph
            gives it.
        waiting: a scaling that is applied after the layers and not yet part of one.
    """

    modules: tuple[nn.Module, ...]
    shape: tuple[int, ...]
    flat: bool
    waiting: Scaling | None = None


def as_layers(shape: Sequence[int], steps: Sequence[Step]) -> tuple[nn.Module, ...]:
    """The layers that run the operators one after the other, float64.

    Additions, subtractions, multiplications and divisions by constants become part of the layer
    with weights before or after them. The sum is exact where nothing has to be scaled, and
    rounded once to float64 otherwise.

    Args:
        shape: shape of one input of the network, without the batch axis. With at most one axis
            longer than 1 the layers take it as (batch, features).
        steps: the operators; each one's value goes into the next.

    Raises:
        ValueError: an operator that is not in `OPERATORS` or that these layers cannot express; the
            message starts with what the file "holds".

    Example:
        >>> from carelab.networks.onnx_graphs import Step, as_layers
        >>> relu = Step(operator="Relu", name="r", attributes={}, operands=(None,), place=0)
        >>> as_layers((1, 1, 5), [relu])
        (ReLU(),)
    """
    _check_size(shape)
    chain = Chain(modules=(), shape=tuple(shape), flat=sum(size > 1 for size in shape) <= 1)
    for step in steps:
        check_operator(step)
        chain = OPERATORS[step.operator](chain, step)
    _check_nothing_waits(chain)
    return chain.modules


def check_operator(step: Step) -> None:
    """Refuse an operator that has no place in a chain of layers.

    Args:
        step: the operator.

    Raises:
        ValueError: it is not in `OPERATORS`.

    Example:
        >>> from carelab.networks.onnx_graphs import Step, check_operator
        >>> relu = Step(operator="Relu", name="r", attributes={}, operands=(None,), place=0)
        >>> check_operator(relu)
    """
    if step.operator not in OPERATORS:
        raise step.refused(f"is not supported; allowed: Constant, {', '.join(OPERATORS)}")


def _identity(chain: Chain, step: Step) -> Chain:
    return chain


def _relu(chain: Chain, step: Step) -> Chain:
    _check_nothing_waits(chain)
    return replace(chain, modules=(*chain.modules, nn.ReLU()))


def _flatten(chain: Chain, step: Step) -> Chain:
    axis = step.integer("axis", 1)
    axis = axis + len(chain.shape) + 1 if axis < 0 else axis
    if axis < 1 or math.prod(chain.shape[: axis - 1]) != 1:
        raise step.refused(f"has axis {axis}; allowed: 1, which keeps the batch")
    return _flattened(chain)


def _reshape(chain: Chain, step: Step) -> Chain:
    target = [int(number) for number in step.constant(1).flatten()]
    features = math.prod(chain.shape)
    # The batch comes first: taken over (0), worked out (-1), or 1 in a graph made for one input.
    if len(target) != 2 or target[0] not in (-1, 0, 1) or target[1] not in (-1, features):
        raise step.refused(f"makes the shape {target}; allowed: (batch, features)")
    return _flattened(chain)


def _flattened(chain: Chain) -> Chain:
    waiting = chain.waiting
    if waiting is not None:
        flat = [part.expand(chain.shape).flatten() for part in (waiting.scale, waiting.shift)]
        waiting = replace(waiting, scale=flat[0], shift=flat[1])
    modules = chain.modules if chain.flat else (*chain.modules, nn.Flatten())
    return Chain(modules=modules, shape=(math.prod(chain.shape),), flat=True, waiting=waiting)


def _gemm(chain: Chain, step: Step) -> Chain:
    if step.place != 0 or step.integer("transA", 0) or len(chain.shape) != 1:
        raise step.refused("is not a product of (batch, features) with constant weights")
    weight = step.constant(1).double()
    if weight.ndim != 2:
        raise step.refused(f"has weights of shape {tuple(weight.shape)}; allowed: a matrix")
    weight = step.factor("alpha") * (weight if step.integer("transB", 0) else weight.T)
    bias = torch.zeros(len(weight), dtype=torch.float64)
    if len(step.operands) > 2:
        added = step.constant(2).double()
        bias = bias + step.factor("beta") * _for_one_input(chain, step, added, (len(weight),))
    return _linear(chain, step, weight, bias)


def _matmul(chain: Chain, step: Step) -> Chain:
    if step.place != 0 or not chain.flat or math.prod(chain.shape[:-1]) != 1:
        raise step.refused("is not a product of (batch, features) with constant weights")
    weight = step.constant(1).double()
    if weight.ndim != 2:
        raise step.refused(f"has weights of shape {tuple(weight.shape)}; allowed: a matrix")
    return _linear(chain, step, weight.T, torch.zeros(weight.shape[1], dtype=torch.float64))


def _linear(chain: Chain, step: Step, weight: Tensor, bias: Tensor) -> Chain:
    """The chain with a layer more, which takes in the scaling that waits."""
    features = math.prod(chain.shape)
    if not chain.flat or weight.shape[1] != features:
        raise step.refused(f"takes {weight.shape[1]} features and is given {chain.shape}")
    if chain.waiting is not None:
        shift = chain.waiting.shift.expand(chain.shape).flatten()
        scale = chain.waiting.scale.expand(chain.shape).flatten()
        weight, bias = weight * scale, bias + weight @ shift
    layer = nn.Linear(features, len(weight), device="meta")
    _set_weights(layer, weight, bias)
    shape = (*chain.shape[:-1], len(weight))
    return Chain(modules=(*chain.modules, layer), shape=shape, flat=True)


def _conv(chain: Chain, step: Step) -> Chain:
    weight = step.constant(1).double()
    outputs = weight.shape[0] if weight.ndim else 0
    bias = torch.zeros(outputs, dtype=torch.float64)
    if len(step.operands) > 2:
        bias = bias + _for_one_input(chain, step, step.constant(2).double(), (outputs,))
    groups = step.integer("group", 1)
    # An image of one row is taken as features until something wants it as an image.
    as_image = len(chain.shape) == 3 and (not chain.flat or not chain.modules)
    if step.place != 0 or weight.ndim != 4 or not as_image or groups < 1 or outputs % groups:
        raise step.refused("is not a two-dimensional convolution of images with constant weights")
    if weight.shape[1] * groups != chain.shape[0]:
        raise step.refused(f"takes {weight.shape[1] * groups} channels, given {chain.shape}")
    windows = _windows(step, weight)
    if chain.waiting is not None:
        weight, bias = _scaled_inputs(chain, chain.waiting, weight, bias, groups, windows[1])
    stride, padding, dilation = windows
    sizes = tuple(
        (size + 2 * pad - dilated * (window - 1) - 1) // by + 1
        for size, pad, dilated, window, by in zip(
            chain.shape[1:], padding, dilation, weight.shape[2:], stride, strict=True
        )
    )
    if min(sizes) < 1:
        raise step.refused(f"has a window larger than its image of shape {chain.shape}")
    _check_size((outputs, *sizes))
    window = (weight.shape[2], weight.shape[3])
    layer = nn.Conv2d(
        chain.shape[0], outputs, window, stride, padding, dilation, groups, device="meta"
    )
    _set_weights(layer, weight, bias)
    return Chain(modules=(*chain.modules, layer), shape=(outputs, *sizes), flat=False)


def _windows(step: Step, weight: Tensor) -> tuple[tuple[int, int], ...]:
    """Stride, padding and dilation of a convolution, each for rows and columns."""
    stride, dilation = step.integers("strides", (1, 1)), step.integers("dilations", (1, 1))
    pads = step.integers("pads", (0, 0, 0, 0))
    if step.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise step.refused("leaves its padding open; allowed: numbers in pads")
    if [len(stride), len(dilation), len(pads)] != [2, 2, 4] or pads[:2] != pads[2:]:
        raise step.refused(f"has pads {list(pads)}; allowed: as much at each end of an axis")
    if min(*stride, *dilation, *weight.shape) < 1 or min(pads) < 0:
        raise step.refused("has a size below 1")
    return (stride[0], stride[1]), (pads[0], pads[1]), (dilation[0], dilation[1])


def _scaled_inputs(
    chain: Chain,
    waiting: Scaling,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    padding: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Weights and bias of a convolution that takes in the scaling of its inputs."""
    scale, shift = (_by_channel(part, chain.shape) for part in (waiting.scale, waiting.shift))
    # The border is padded after the shift, so that a shift would not reach it.
    if scale is None or shift is None or (max(padding) > 0 and bool((shift != 0).any())):
        raise waiting.step.refused("cannot become part of the convolution after it")
    outputs = len(weight)
    grouped = weight.unflatten(0, (groups, outputs // groups))
    shifts = shift.reshape(groups, 1, -1, 1, 1)
    bias = bias + (grouped * shifts).sum(dim=(2, 3, 4)).flatten()
    return (grouped * scale.reshape(groups, 1, -1, 1, 1)).flatten(0, 1), bias


def _add(chain: Chain, step: Step) -> Chain:
    return _scaled(chain, step, torch.ones((), dtype=torch.float64), _operand(chain, step))


def _subtract(chain: Chain, step: Step) -> Chain:
    ones = torch.ones((), dtype=torch.float64)
    if step.place == 0:
        return _scaled(chain, step, ones, 0 - _operand(chain, step))
    return _scaled(chain, step, -ones, _operand(chain, step))


def _multiply(chain: Chain, step: Step) -> Chain:
    return _scaled(chain, step, _operand(chain, step), torch.zeros((), dtype=torch.float64))


def _divide(chain: Chain, step: Step) -> Chain:
    if step.place != 0:
        raise step.refused("divides by the network's value")
    divisor = _operand(chain, step)
    if bool((divisor == 0).any()):
        raise step.refused("divides by zero")
    return _scaled(chain, step, 1 / divisor, torch.zeros((), dtype=torch.float64))


def _operand(chain: Chain, step: Step) -> Tensor:
    """The constant of an elementwise operator with two inputs, for one value of the network."""
    if len(step.operands) != 2:
        raise step.refused(f"has {len(step.operands)} inputs; allowed: 2")
    return _for_one_input(chain, step, step.constant(1 - step.place).double(), chain.shape)


def _scaled(chain: Chain, step: Step, scale: Tensor, shift: Tensor) -> Chain:
    """The chain followed by scale * x + shift, in its last layer where that has weights."""
    if chain.waiting is not None:
        scale, shift = scale * chain.waiting.scale, scale * chain.waiting.shift + shift
    elif chain.modules and isinstance(chain.modules[-1], nn.Linear | nn.Conv2d):
        layer = chain.modules[-1]
        factors, added = _by_channel(scale, chain.shape), _by_channel(shift, chain.shape)
        if isinstance(layer, nn.Linear):
            factors, added = (part.expand(chain.shape).flatten() for part in (scale, shift))
        if factors is None or added is None or layer.bias is None:
            raise step.refused("cannot become part of the convolution before it")
        rows = factors.reshape(-1, *[1] * (layer.weight.ndim - 1))
        _set_weights(layer, layer.weight.detach() * rows, layer.bias.detach() * factors + added)
        return chain
    return replace(chain, waiting=Scaling(step=step, scale=scale, shift=shift))


def _for_one_input(chain: Chain, step: Step, constant: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The constant without its batch axis, if it has one, able to broadcast to the shape."""
    found = constant
    if found.ndim == len(shape) + 1 and len(found) == 1:
        found = found.squeeze(0)
    padded = (1,) * (len(shape) - found.ndim) + tuple(found.shape)
    fits = [own in (1, size) for own, size in zip(padded, shape, strict=False)]
    if found.ndim > len(shape) or not all(fits):
        raise step.refused(f"has a constant of shape {tuple(constant.shape)} for {shape}")
    return found


def _by_channel(part: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """One number for each channel, or None where it differs inside a channel."""
    if part.numel() == 1:
        return part.reshape(1).expand(shape[0])
    if part.ndim == 3 and part.shape[1:] == (1, 1):
        return part.flatten().expand(shape[0])
    return None


def _set_weights(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    # Layers are made without memory and without random numbers, and get their weights here.
    layer.weight = nn.Parameter(weight.contiguous())
    layer.bias = nn.Parameter(bias.contiguous())


def _check_nothing_waits(chain: Chain) -> None:
    if chain.waiting is not None:
        raise chain.waiting.step.refused("cannot become part of a layer with weights")


def _check_size(shape: Sequence[int]) -> None:
    if min(shape, default=1) < 1 or math.prod(shape) > _LARGEST_VALUE:
        raise ValueError(
            f"holds a value of shape {tuple(shape)}; allowed: known sizes of at least 1 and at "
            f"most {_LARGEST_VALUE} numbers"
        )


# Each gives the chain that the operator continues.
OPERATORS: Mapping[str, Callable[[Chain, Step], Chain]] = {
    "Add": _add,
    "Conv": _conv,
    "Div": _divide,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _identity,
    "MatMul": _matmul,
    "Mul": _multiply,
    "Relu": _relu,
    "Reshape": _reshape,
    "Sub": _subtract,
}
