"""The bare matrix multiplications behind interventions on every neuron, as a limit to compare with.

For every hidden layer, neuron, step, probe and row, the weight matrices after the layer are
multiplied one after the other; no bias, activation, score or mean. The limit is honest only if it
is hard to beat, so each layer's chain runs in the layout and block size that are fastest for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from carelab.networks import hidden_layers, split, width

__all__ = ["Chain", "fastest_chains", "multiply_all", "suffix_weights"]

BLOCKS = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
# What a candidate is tried on: so many rows, or so many multiplications of two numbers.
_TRIED_ROWS = 262_144
_TRIED_MULTIPLICATIONS = 2**31
_TRIES = 3
# Numbers of the widest layer in one block: beyond, no block was ever the fastest.
_MOST_NUMBERS = 2**24

Chain = tuple[int, Callable[[], None]]


def suffix_weights(model: nn.Module) -> list[tuple[int, list[Tensor]]]:
    """For each hidden layer, how many neurons it has and the weight matrices after it.

    Args:
        model: a fully connected network.
    """
    found = []
    for layer in hidden_layers(model):
        _, suffix = split(model, layer)
        weights = [
            module.weight.detach() for module in suffix.modules() if isinstance(module, nn.Linear)
        ]
        found.append((width(model, layer), weights))
    return found


def fastest_chains(
    suffixes: Sequence[tuple[int, Sequence[Tensor]]], *, generator: torch.Generator
) -> list[Chain]:
    """For each hidden layer, the fastest block size (rows) and its chain of multiplications.

    Args:
        suffixes: neurons and weight matrices of each layer.
        generator: draws the numbers that are multiplied.
    """
    fastest = []
    for _, weights in suffixes:
        widest = max(max(weight.shape) for weight in weights)
        each = sum(weight.numel() for weight in weights)
        tried = min(_TRIED_ROWS, _TRIED_MULTIPLICATIONS // each)
        chains = [
            (block, _chain(weights, block, samples_last, generator))
            for block in BLOCKS
            if block * widest <= _MOST_NUMBERS
            for samples_last in (False, True)
        ]
        fastest.append(min(chains, key=lambda chain: _seconds_a_row(chain, tried)))
    return fastest


def multiply_all(
    suffixes: Sequence[tuple[int, Sequence[Tensor]]], chains: Sequence[Chain], rows: int
) -> None:
    """Run every layer's chain on at least `rows` rows for each of its neurons.

    Args:
        suffixes: neurons and weight matrices of each layer.
        chains: block size and chain of each layer.
        rows: rows x probes x steps of one neuron.
    """
    for (neurons, _), (block, chain) in zip(suffixes, chains, strict=True):
        # Whole blocks only; over all neurons of a layer the surplus is less than one block.
        for _ in range(-(-neurons * rows // block)):
            chain()


def _chain(
    weights: Sequence[Tensor], block: int, samples_last: bool, generator: torch.Generator
) -> Callable[[], None]:
    """Multiplies a block through all the matrices, into outputs that are there already."""
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    shapes = [(wide, block) if samples_last else (block, wide) for wide in widths]
    buffers = [torch.rand(shape, generator=generator).to(weights[0]) for shape in shapes]
    turned = [weight if samples_last else weight.T.contiguous() for weight in weights]

    def run() -> None:
        for weight, (before, after) in zip(turned, pairwise(buffers), strict=True):
            if samples_last:
                torch.mm(weight, before, out=after)
            else:
                torch.mm(before, weight, out=after)

    return run


def _seconds_a_row(chain: Chain, rows: int) -> float:
    block, run = chain
    repeats = max(1, rows // block)
    # Of the processor, since other work on the machine must not choose.
    best = float("inf")
    for _ in range(_TRIES):
        start = time.process_time()
        for _ in range(repeats):
            run()
        best = min(best, time.process_time() - start)
    return best / (repeats * block)
