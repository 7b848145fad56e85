"""Modules run on tensors whose last axis counts the rows: (channels, ..., rows).

Interventions run the same small network on very many rows. With the rows last, layers of 2 or 4
neurons, windows of 2 by 2 and single channels are all worked on in long contiguous stretches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import no_type_check

import torch
from torch import Tensor, nn
from torch.nn import functional

from carelab.networks.layers import ACTIVATIONS, SILENT

__all__ = [
    "acts_by_channel",
    "acts_by_number",
    "is_full_flatten",
    "patches",
    "rows_a_pass",
    "rows_last",
    "stretches",
]

_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d)
# Numbers of the widest layer that one pass works on.
_NUMBERS_A_PASS = {"cpu": 3 * 2**15}
_NUMBERS_A_PASS_ELSEWHERE = 2**25
# Fewer rows are not worth the calls of a pass, however wide the layer.
_FEWEST_ROWS = 32
_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


def acts_by_number(module: nn.Module) -> bool:
    """Whether each output number depends on the number at its own place only.

    Args:
        module: a module in evaluation mode.

    Example:
        >>> from torch import nn
        >>> from carelab.causal.samples_last import acts_by_number
        >>> acts_by_number(nn.GELU()), acts_by_number(nn.MaxPool2d(2))
        (True, False)
    """
    return isinstance(module, (*ACTIVATIONS, *SILENT)) or type(module) in _NORMALISATIONS


def acts_by_channel(module: nn.Module) -> bool:
    """Whether each channel of the output depends on the same channel of the input only.

    Args:
        module: a module in evaluation mode.

    Example:
        >>> from torch import nn
        >>> from carelab.causal.samples_last import acts_by_channel
        >>> acts_by_channel(nn.MaxPool2d(2)), acts_by_channel(nn.Conv2d(3, 3, 1))
        (True, False)
    """
    return acts_by_number(module) or type(module) in _POOLINGS


def is_full_flatten(module: nn.Module) -> bool:
    """Whether the module lays out each sample as one vector.

    Args:
        module: any module.

    Example:
        >>> from torch import nn
        >>> from carelab.causal.samples_last import is_full_flatten
        >>> is_full_flatten(nn.Flatten()), is_full_flatten(nn.Flatten(2))
        (True, False)
    """
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def rows_last(
    module: nn.Module, *, channels: Sequence[int] | None = None
) -> Callable[[Tensor], Tensor]:
    """The module as a function of tensors whose last axis counts the rows.

    Args:
        module: a module in evaluation mode.
        channels: which channels of its input it will be given, where these are not all and the
            module acts by channel.

    Returns:
        A function from the input (channels, ..., rows), which it may overwrite, to the output.

    Example:
        >>> import torch
        >>> from carelab.causal.samples_last import rows_last
        >>> rows_last(torch.nn.Linear(3, 2))(torch.rand(3, 100)).shape
        torch.Size([2, 100])
    """
    kind = type(module)
    if kind is nn.ReLU:
        return torch.relu_
    if isinstance(module, (*ACTIVATIONS, *SILENT)):
        return module
    if isinstance(module, nn.Linear):
        return _linear(module)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return _normalised(module, channels)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d) and _has_plain_windows(module):
        return _pooling(module)
    if is_full_flatten(module):
        return _flattened
    if isinstance(module, nn.Conv2d):
        return partial(_convolved, module)
    return partial(_rows_first, module)


@no_type_check
def patches(module: nn.Conv2d, current: Tensor) -> Tensor:
    """What each place of the convolution's output reads, as columns of a matrix.

    Args:
        module: a convolution that pads with zeros.
        current: some channels of its input (channels, height, width, rows).

    Returns:
        The numbers (channels x kernel height x kernel width, output height x output width x
        rows), so that the weight's matrix times them is the output without its bias.

    Example:
        >>> import torch
        >>> from carelab.causal.samples_last import patches
        >>> patches(torch.nn.Conv2d(3, 8, 5, padding=2), torch.rand(3, 6, 6, 10)).shape
        torch.Size([75, 360])
    """
    spans = [
        step * (side - 1) for step, side in zip(module.dilation, module.kernel_size, strict=True)
    ]
    if module.padding == "same":
        pads = [(span // 2, span - span // 2) for span in spans]
    else:
        sides = (0, 0) if module.padding == "valid" else module.padding
        pads = [(side, side) for side in sides]
    padded = functional.pad(current, (0, 0, *pads[1], *pads[0])).contiguous()
    channels, *space, rows = padded.shape
    outputs = [
        (size - span - 1) // stride + 1
        for size, span, stride in zip(space, spans, module.stride, strict=True)
    ]
    channel, line, column, _ = padded.stride()
    (down, right), (tall, wide) = module.dilation, module.stride
    windows = padded.as_strided(
        (channels, *module.kernel_size, *outputs, rows),
        (channel, down * line, right * column, tall * line, wide * column, 1),
    )
    return windows.reshape(channels * math.prod(module.kernel_size), -1)


@no_type_check
def stretches(total: int, most: int) -> Iterator[slice]:
    """0 to `total` in stretches of `most`, of which the last may be shorter.

    Args:
        total: how many.
        most: how many a stretch has; below 1 it counts as 1.

    Example:
        >>> from carelab.causal.samples_last import stretches
        >>> list(stretches(5, 3))
        [slice(0, 3, None), slice(3, 5, None)]
    """
    each = max(1, most)
    for start in range(0, total, each):
        yield slice(start, min(start + each, total))


def rows_a_pass(widest: int, device: torch.device) -> int:
    """How many rows one pass works on.

    On a processor what a pass makes fits into the cache with what it reads beside it; a GPU
    wants as much work at once as its memory holds.

    Args:
        widest: numbers a row at the widest place.
        device: where the work is done.

    Example:
        >>> import torch
        >>> from carelab.causal.samples_last import rows_a_pass
        >>> rows_a_pass(512, torch.device("cpu")) >= 128
        True
    """
    numbers = _NUMBERS_A_PASS.get(device.type, _NUMBERS_A_PASS_ELSEWHERE)
    threads = torch.get_num_threads()
    if device.type == "cpu" and threads > 1:
        # Each thread has a cache of its own, and to start them takes as long as a short pass.
        numbers *= 3 * threads
    # Whole multiples keep each stretch of numbers aligned in memory.
    most = numbers // max(1, widest) // _FEWEST_ROWS * _FEWEST_ROWS
    return max(_FEWEST_ROWS, most)


# The functions below run very often with small tensors: checking the shapes of each call, as
# everywhere else in the package, would take as long as the work. Tests compare all of it with the
# slow reference.
@no_type_check
def _linear(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    if type(module) is not nn.Linear:
        return partial(_rows_first, module)
    weight, bias = module.weight, None if module.bias is None else module.bias[:, None]

    def run(current: Tensor) -> Tensor:
        if current.ndim > 2:
            return _rows_first(module, current)
        return weight @ current if bias is None else torch.addmm(bias, weight, current)

    return run


@no_type_check
def _normalised(
    module: nn.BatchNorm1d | nn.BatchNorm2d, channels: Sequence[int] | None
) -> Callable[[Tensor], Tensor]:
    scale = (module.running_var + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight
    shift = -module.running_mean * scale
    if module.bias is not None:
        shift = shift + module.bias
    if channels is not None:
        scale, shift = scale[channels], shift[channels]

    def run(current: Tensor) -> Tensor:
        each = (-1, *[1] * (current.ndim - 1))
        return torch.addcmul(shift.reshape(each), current, scale.reshape(each))

    return run


@no_type_check
def _flattened(current: Tensor) -> Tensor:
    return current.flatten(0, -2)


@no_type_check
def _convolved(module: nn.Conv2d, current: Tensor) -> Tensor:
    # Two plain transpositions, and the channels last in between, where convolutions are fastest.
    first = current.flatten(0, -2).t().contiguous().unflatten(1, current.shape[:-1])
    output = module(first.contiguous(memory_format=torch.channels_last)).contiguous()
    return output.flatten(1).t().contiguous().unflatten(0, output.shape[1:])


@no_type_check
def _rows_first(module: nn.Module, current: Tensor) -> Tensor:
    return module(current.movedim(-1, 0).contiguous()).movedim(0, -1).contiguous()


@no_type_check
def _has_plain_windows(module: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Whether all windows lie inside the map and count alike."""
    plain = _both(module.padding) == (0, 0) and not module.ceil_mode
    if type(module) is nn.MaxPool2d:
        return plain and _both(module.dilation) == (1, 1) and not module.return_indices
    return plain and type(module) is nn.AvgPool2d and module.divisor_override is None


@no_type_check
def _pooling(module: nn.MaxPool2d | nn.AvgPool2d) -> Callable[[Tensor], Tensor]:
    """Along lines, then along columns: one pass over the map for each place in a side."""
    sides, strides = _both(module.kernel_size), _both(module.stride)
    largest = type(module) is nn.MaxPool2d
    combine = torch.maximum if largest else torch.add

    def run(current: Tensor) -> Tensor:
        for axis, side, stride in zip((1, 2), sides, strides, strict=True):
            span = (current.shape[axis] - side) // stride * stride + 1
            first, *others = (
                current[(slice(None),) * axis + (slice(place, place + span, stride),)]
                for place in range(side)
            )
            current = combine(first, others[0]) if others else first.clone()
            for part in others[1:]:
                combine(current, part, out=current)
        return current if largest else current.div_(sides[0] * sides[1])

    return run


@no_type_check
def _both(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else value
