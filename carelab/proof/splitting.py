"""Where to cut a box that could not be decided: the input or the neuron that loosens the bound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from carelab.proof.bounds import HiddenBounds, LinearBounds

__all__ = ["halves", "relaxation_gaps", "split_choice"]


def relaxation_gaps(
    hidden: HiddenBounds, bounds: LinearBounds
) -> tuple[Float[Tensor, "boxes _neurons"], ...]:
    """How much the lines around each ReLU can cost a bound, at most, one entry for each layer.

    A neuron whose activation has coefficient c loses |c| times the widest distance between its
    ReLU and the line in use: the intercept of the upper line (c < 0), or min(-l, u) (c > 0).

    Args:
        hidden: bounds of the hidden layers over the boxes.
        bounds: linear bounds of one row for each of these boxes.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 1, generator=torch.Generator()))
        >>> low, high = torch.ones(1, 2).double(), torch.ones(1, 2).double()
        >>> hidden, row = proof.hidden_bounds(chain, low, high), torch.ones(1, 1, 1).double()
        >>> linear = proof.linear_bounds(chain, hidden, row, row[..., 0], low, high)
        >>> float(proof.relaxation_gaps(hidden, linear)[0].sum())
        0.0
    """
    gaps = []
    for layer, coefficients in enumerate(bounds.activations):
        row = coefficients[:, 0].detach()
        above = hidden.intercepts[layer] * hidden.unstable[layer]
        below = torch.minimum(-hidden.lower[layer], hidden.upper[layer]) * hidden.unstable[layer]
        gaps.append(row.clamp(min=0) * below - row.clamp(max=0) * above)
    return tuple(gaps)


def split_choice(
    hidden: HiddenBounds,
    bounds: LinearBounds,
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
    *,
    neurons: bool = True,
) -> Int[Tensor, " boxes"]:
    """What to cut each box on: an input feature, or features + the number of a neuron.

    Cutting input j in half shrinks the range of sum i by the share s_ij of it that comes from j,
    and the gap of neuron i with it: j scores the sum over i of gap_i s_ij. Cutting at the sign of
    sum i closes its gap: it scores gap_i itself, halved, since the rest of the box stays whole.

    Args:
        hidden: bounds of the hidden layers over the boxes.
        bounds: linear bounds of one row for each of these boxes.
        low: smallest value of each input feature.
        high: largest value of each input feature.
        neurons: neurons may be chosen; else inputs only, where their reach is known.

    Returns:
        The choice, or -1 where there is nothing to cut.

    Source: the sum over neurons follows the smear heuristic of interval Newton methods as used in
        Bunel et al., JMLR 2020, section 5, with relaxation gaps in the place of slopes.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 1, generator=torch.Generator()))
        >>> low, high = torch.ones(1, 2).double(), torch.ones(1, 2).double()
        >>> hidden, row = proof.hidden_bounds(chain, low, high), torch.ones(1, 1, 1).double()
        >>> linear = proof.linear_bounds(chain, hidden, row, row[..., 0], low, high)
        >>> proof.split_choice(hidden, linear, low, high).tolist()
        [-1]
    """
    gaps = relaxation_gaps(hidden, bounds)
    middle = low / 2 + high / 2
    width = (high - low) * ((low < middle) & (middle < high))
    inputs = _input_scores(hidden, gaps, width)
    if inputs is None:
        inputs = torch.zeros_like(width)
        neurons = True
    # Where no neuron is loose the bound is exact, and still too low: cut where it varies most.
    steepness = bounds.coefficients[:, 0].detach().abs() * width
    none = inputs.amax(dim=1, keepdim=True) <= 0
    scores = torch.where(none, steepness * 1e-9 + (width > 0) * 1e-290, inputs)
    if neurons:
        scores = torch.cat([scores, torch.cat(gaps, dim=1) / 2], dim=1)
    best, choice = scores.max(dim=1)
    return torch.where(best > 0, choice, -1)


def halves(
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
    phases: Int8[Tensor, "boxes neurons"] | None,
    choice: Int[Tensor, " boxes"],
) -> tuple[
    Float[Tensor, "halves features"],
    Float[Tensor, "halves features"],
    Int8[Tensor, "halves neurons"] | None,
    Float[Tensor, " boxes"],
]:
    """The two parts of each box, all first parts before all second ones, and where it was cut.

    The first part is the lower half of an input, or phase -1 of a neuron; both parts hold the
    border.

    Args:
        low: smallest value of each input feature.
        high: largest value of each input feature.
        phases: phases of the neurons, or None where none is ever cut.
        choice: what to cut, see `split_choice`.

    Returns:
        Low and high ends and phases of the parts, and the cut (0 for a neuron).

    Example:
        >>> import torch
        >>> from carelab.proof import halves
        >>> halves(torch.zeros(1, 2), torch.ones(1, 2), None, torch.tensor([1]))[1].tolist()
        [[1.0, 0.5], [1.0, 1.0]]
    """
    features = low.shape[1]
    is_input = choice < features
    axis = torch.where(is_input, choice, 0).unsqueeze(1)
    middle = (low.gather(1, axis) / 2 + high.gather(1, axis) / 2).squeeze(1)
    chosen = torch.zeros_like(low, dtype=torch.bool).scatter(1, axis, is_input.unsqueeze(1))
    cut = middle.unsqueeze(1)
    lows = torch.cat([low, torch.where(chosen, cut, low)])
    highs = torch.cat([torch.where(chosen, cut, high), high])
    if phases is not None:
        neuron = torch.where(is_input, 0, choice - features).unsqueeze(1)
        cut_here = torch.zeros_like(phases, dtype=torch.bool)
        cut_here = cut_here.scatter(1, neuron, ~is_input.unsqueeze(1))
        phases = torch.cat(
            [torch.where(cut_here, -1, phases), torch.where(cut_here, 1, phases)]
        ).to(torch.int8)
    return lows, highs, phases, torch.where(is_input, middle, torch.zeros_like(middle))


def _input_scores(hidden: HiddenBounds, gaps: Sequence[Tensor], width: Tensor) -> Tensor | None:
    """Sum over neurons of gap times the share of the sum's range that each input makes."""
    scores = torch.zeros_like(width)
    for layer, gap in enumerate(gaps):
        reach = hidden.reach[layer]
        if len(reach) != len(gap):
            return None
        span = (hidden.upper[layer] - hidden.lower[layer]).clamp(min=1e-12)
        scores = scores + ((gap / span).unsqueeze(1) @ reach).squeeze(1)
    return scores * width
