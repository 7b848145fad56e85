"""Networks in NNet files, Stanford's text format, with the scaling of their inputs and outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks.architectures import in_a_row
from carelab.networks.whole_files import existing_file

__all__ = ["NnetFile", "Normalisation", "read_nnet"]

_LARGEST_FILE = 2**27  # bytes
_LARGEST_LAYER = 2**16  # neurons
_MOST_LAYERS = 2**10

# Line number and numbers of a line.
Row = tuple[int, list[float]]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Normalisation:
    """Between inputs in physical units and what the network takes, (input - mean) / range.

    Args:
        means: what is subtracted from each input, in its unit (features), float64.
        ranges: what it is divided by, in its unit (features), float64.

    Raises:
        ValueError: numbers that do not fit together, are not finite, or a range that is not
            positive.

    Example:
        >>> import torch
        >>> from carelab.networks import Normalisation
        >>> metres = Normalisation(means=torch.tensor([50.0]), ranges=torch.tensor([20.0]))
        >>> metres.normalise(torch.tensor([[60.0]])).item()
        0.5
    """

    means: Float[Tensor, " features"]
    ranges: Float[Tensor, " features"]

    def __post_init__(self) -> None:
        """Refuses means and ranges that are no scaling."""
        numbers = torch.cat([self.means, self.ranges])
        fits = self.means.shape == self.ranges.shape and bool(numbers.isfinite().all())
        if not fits or bool((self.ranges <= 0).any()):
            raise ValueError(
                f"means, ranges: got {self.means.tolist()}, {self.ranges.tolist()}; allowed: as "
                "many finite numbers in each, ranges above 0"
            )

    def normalise(
        self, inputs: Float[Tensor, "*batch features"]
    ) -> Float[Tensor, "*batch features"]:
        """What the network takes, from inputs in physical units; worked out in float64."""
        means, ranges = (part.to(inputs.device).double() for part in (self.means, self.ranges))
        return ((inputs.double() - means) / ranges).to(inputs.dtype)

    def denormalise(
        self, inputs: Float[Tensor, "*batch features"]
    ) -> Float[Tensor, "*batch features"]:
        """Inputs in physical units, from what the network takes; worked out in float64."""
        means, ranges = (part.to(inputs.device).double() for part in (self.means, self.ranges))
        return (inputs.double() * ranges + means).to(inputs.dtype)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class NnetFile:
    """What an NNet file holds.

    Args:
        network: linear1, relu1, linear2, ...; it takes normalised inputs and returns outputs that
            are not scaled back.
        normalisation: how inputs in physical units become what it takes.
        low: smallest value of each input in physical units (features), float64.
        high: largest value of each input in physical units (features), float64.
        output_mean: what is added to each output times `output_range` to have it in its unit.
        output_range: what each output is multiplied by.
    """

    network: nn.Sequential
    normalisation: Normalisation
    low: Float[Tensor, " features"]
    high: Float[Tensor, " features"]
    output_mean: float
    output_range: float


def read_nnet(path: str | os.PathLike[str]) -> NnetFile:
    r"""The network, input box and scaling in an NNet file.

    The format: lines that start with // are comments; then the counts, the layer sizes, a flag
    that is not used, the smallest and largest inputs, the means and ranges of inputs and outputs,
    and for each layer its weights, a row a neuron, and its biases, one a line.

    Args:
        path: the file.

    Returns:
        Its content, the weights rounded to float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged or of another format; the message says which line.

    Source: Julian, Neural Network File Format, Stanford 2016; Katz et al., Reluplex, CAV 2017.

    Example:
        >>> import pathlib, tempfile
        >>> from carelab.networks import read_nnet
        >>> text = "1,2,1,2,\n2,1,\n0,\n0,0,\n1,1,\n0,0,0,\n1,1,1,\n1,-1,\n0.5,\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "a.nnet").write_text(text)
        ...     read_nnet(f"{folder}/a.nnet").network.linear1.weight.tolist()
        [[1.0, -1.0]]
    """
    file = existing_file(path, largest=_LARGEST_FILE)
    try:
        return _content(_rows(file.read_text(encoding="ascii")))
    except UnicodeDecodeError:
        raise ValueError(f"path: {path} is no NNet file: not a text") from None
    except ValueError as error:
        raise ValueError(f"path: {path} is no NNet file: {error}") from None


def _content(rows: Iterator[Row]) -> NnetFile:
    layers, inputs, outputs, _ = _whole(rows, 4)
    if layers > _MOST_LAYERS:
        raise ValueError(f"it has {layers} layers; allowed: {_MOST_LAYERS}")
    sizes = _whole(rows, layers + 1)
    if (sizes[0], sizes[-1]) != (inputs, outputs):
        raise ValueError(f"its layer sizes {sizes} do not fit {inputs} inputs, {outputs} outputs")
    next(rows, None)  # the flag
    low, high = (_numbers(rows, inputs) for _ in range(2))
    means, ranges = (_numbers(rows, inputs, inputs + 1) for _ in range(2))
    if bool((low > high).any()):
        raise ValueError(f"its smallest inputs {low.tolist()} exceed its largest {high.tolist()}")
    network = in_a_row(_layers(rows, sizes))
    left = next(rows, None)
    if left is not None:
        raise ValueError(f"line {left[0]} comes after the last bias")
    return NnetFile(
        network=network,
        normalisation=Normalisation(means=means[:inputs], ranges=ranges[:inputs]),
        low=low,
        high=high,
        output_mean=float(means[inputs]) if len(means) > inputs else 0.0,
        output_range=float(ranges[inputs]) if len(ranges) > inputs else 1.0,
    )


def _layers(rows: Iterator[Row], sizes: Sequence[int]) -> Iterator[nn.Module]:
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        weight = torch.stack([_numbers(rows, inputs) for _ in range(outputs)])
        bias = torch.cat([_numbers(rows, 1) for _ in range(outputs)])
        # Made without random numbers, and given the weights of the file.
        layer = nn.Linear(inputs, outputs, device="meta")
        layer.weight = nn.Parameter(weight.float())
        layer.bias = nn.Parameter(bias.float())
        yield layer
        if number < len(sizes) - 1:
            yield nn.ReLU()


def _rows(text: str) -> Iterator[Row]:
    """Line number and numbers of each line that is neither empty nor a comment."""
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.strip().removesuffix(",")
        if not words or words.startswith("//"):
            continue
        try:
            yield number, [float(word) for word in words.split(",")]
        except ValueError:
            raise ValueError(f"line {number} holds something that is no number") from None


def _numbers(rows: Iterator[Row], *counts: int) -> Tensor:
    """The next line, of one of the given lengths."""
    line, found = next(rows, (None, []))
    if line is None:
        raise ValueError("it ends too early")
    numbers = torch.tensor(found, dtype=torch.float64)
    if len(found) not in counts or not bool(numbers.isfinite().all()):
        allowed = " or ".join(str(count) for count in counts)
        raise ValueError(f"line {line} holds {len(found)} numbers; allowed: {allowed}, all finite")
    return numbers


def _whole(rows: Iterator[Row], count: int) -> list[int]:
    """The next line, of whole numbers that may be sizes."""
    numbers = _numbers(rows, count)
    if bool((numbers != numbers.round()).any()) or not 1 <= numbers.min() <= numbers.max() <= (
        _LARGEST_LAYER
    ):
        raise ValueError(
            f"its sizes are {numbers.tolist()}; allowed: whole numbers from 1 to {_LARGEST_LAYER}"
        )
    return [int(number) for number in numbers]
