"""A network as what the proofs work on: affine maps in float64 with ReLUs between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from carelab.networks import ordered_modules
from carelab.networks.layers import SILENT

__all__ = ["AffineChain", "affine_chain"]

_LARGEST = 50_000_000  # numbers in one matrix: 400 MB


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class AffineChain:
    """y = W_L h_(L-1) + b_L with h_k = relu(W_k h_(k-1) + b_k), or without the relu, and h_0 = x.

    Every float32 number is a float64 number too, so the chain is the network itself, not a
    rounded copy of it.

    Args:
        weights: W_1 to W_L, float64, one (neurons of layer, neurons before) each.
        biases: b_1 to b_L, float64, one (neurons of layer) each.
        rectified: whether a ReLU follows each of the first L - 1; none follows the last.
    """

    weights: tuple[Float[Tensor, "_outputs _inputs"], ...]
    biases: tuple[Float[Tensor, " _outputs"], ...]
    rectified: tuple[bool, ...]

    @property
    def features(self) -> int:
        """Number of inputs."""
        return self.weights[0].shape[1]

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return self.weights[-1].shape[0]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Number of neurons of each hidden layer."""
        return tuple(len(bias) for bias in self.biases[:-1])

    def __call__(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        """Outputs of the network, evaluated in float64."""
        values = inputs.to(self.weights[0])
        for weight, bias, relu in zip(
            self.weights, self.biases, (*self.rectified, False), strict=True
        ):
            values = torch.addmm(bias, values, weight.T)
            values = values.clamp(min=0) if relu else values
        return values


def affine_chain(
    model: nn.Module, *, shape: Sequence[int] | None = None, differentiable: bool = False
) -> AffineChain:
    """The affine maps and ReLUs of a sequential network.

    A convolution becomes the matrix that it is; each entry is one of its weights, so nothing is
    rounded.

    Args:
        model: a sequential network of ``Linear``, ``Conv2d``, ``ReLU`` and ``Flatten``, with
            dropout and identities, which are skipped.
        shape: shape of one input (channels, height, width) where a ``Conv2d`` comes first; the
            chain itself takes flat inputs, the same numbers in the same order.
        differentiable: keep the link to the network's parameters, for gradients of bounds.

    Returns:
        The chain, on the network's device.

    Raises:
        ValueError: a module of another kind, parts that do not fit together, weights that are not
            finite, or a convolution too large to be written as a matrix.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.proof import affine_chain
        >>> model = networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> affine_chain(model).rectified
        (True,)
    """
    steps = _steps(model, None if shape is None else tuple(shape))
    if not steps or steps[-1][2]:
        raise ValueError("model: ends with a ReLU or has no layer; allowed: a Linear layer last")
    if not all(bool(tensor.isfinite().all()) for step in steps for tensor in step[:2]):
        raise ValueError("model: holds a weight that is not finite; allowed: finite weights")
    if not differentiable:
        steps = [(weight.detach(), bias.detach(), relu) for weight, bias, relu in steps]
    return AffineChain(
        weights=tuple(step[0] for step in steps),
        biases=tuple(step[1] for step in steps),
        rectified=tuple(step[2] for step in steps[:-1]),
    )


_Step = tuple[Tensor, Tensor, bool]


def _steps(model: nn.Module, shape: tuple[int, ...] | None) -> list[_Step]:
    steps: list[_Step] = []
    for name, module in ordered_modules(model):
        if isinstance(module, nn.ReLU):
            if not steps:
                raise ValueError(f"model: {name} comes first; allowed: a weight layer first")
            steps[-1] = (*steps[-1][:2], True)
        elif isinstance(module, nn.Linear):
            _check_size(name, steps, module.in_features)
            steps.append((module.weight.double(), _bias(module, module.out_features), False))
        elif isinstance(module, nn.Conv2d):
            if shape is None or len(shape) != 3:
                raise ValueError(
                    f"shape: got {shape} for a network with the convolution {name}; allowed: "
                    "(channels, height, width) of one input"
                )
            weight, bias, shape = _convolution(name, module, shape)
            _check_size(name, steps, weight.shape[1])
            steps.append((weight, bias, False))
        elif not isinstance(module, (nn.Flatten, *SILENT)):
            raise ValueError(
                f"model: {name} is a {type(module).__name__}; allowed: Linear, Conv2d, ReLU, "
                "Flatten, Dropout and Identity"
            )
    return steps


def _check_size(name: str, steps: Sequence[_Step], expected: int) -> None:
    if steps and len(steps[-1][1]) != expected:
        raise ValueError(
            f"model: {name} takes {expected} numbers after a layer of {len(steps[-1][1])}; "
            "allowed: layers that fit together"
        )


def _bias(module: nn.Linear | nn.Conv2d, count: int) -> Tensor:
    if module.bias is None:
        return module.weight.new_zeros(count).double()
    return module.bias.double().repeat_interleave(count // len(module.bias))


def _convolution(
    name: str, module: nn.Conv2d, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Matrix and bias of a convolution of inputs of the given shape, and its output's shape."""
    if module.padding_mode != "zeros":
        raise ValueError(
            f"model: {name} pads with {module.padding_mode}; allowed: padding with zeros"
        )
    size = prod(shape)
    if size * size > _LARGEST:
        raise ValueError(
            f"model: {name} would be a matrix of {size} columns, too large; allowed: {_LARGEST} "
            "numbers"
        )
    unit = torch.eye(size, dtype=torch.float64, device=module.weight.device).view(size, *shape)
    columns = functional.conv2d(
        unit,
        module.weight.double(),
        None,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
    )
    out = tuple(columns.shape[1:])
    return columns.flatten(1).T.contiguous(), _bias(module, prod(out)), out
