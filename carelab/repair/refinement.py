"""Property refinement: a box that is not proved is cut in two, and its worst corners are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from carelab.proof import AffineChain, Polytope, halves, representable
from carelab.repair.proxy_boxes import sound_bounds

__all__ = [
    "Refined",
    "SplitRule",
    "SubProperties",
    "random_side",
    "refine",
    "root_properties",
    "steepest_side",
    "widest_side",
]


@runtime_checkable
class SplitRule(Protocol):
    """A way to choose the input on which each box is cut.

    Example:
        >>> from carelab.repair import SplitRule, steepest_side
        >>> isinstance(steepest_side, SplitRule)
        True
    """

    def __call__(
        self,
        slopes: Float[Tensor, "boxes rows features"],
        low: Float[Tensor, "boxes features"],
        high: Float[Tensor, "boxes features"],
    ) -> Int[Tensor, " boxes"]:
        """The number of the input for each box."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SubProperties:
    """Parts of a safety property: the outputs for a box of inputs stay out of one polytope.

    Args:
        low: smallest value of each input feature (boxes, features), float64.
        high: largest value of each input feature (boxes, features), float64.
        polytope: number of the polytope (boxes).
    """

    low: Float[Tensor, "boxes features"]
    high: Float[Tensor, "boxes features"]
    polytope: Int[Tensor, " boxes"]

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self.polytope)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Refined:
    """What one round of refinement gave.

    Args:
        parts: the halves of the boxes that are not proved; those too small to be cut are left
            out.
        proved: how many boxes were proved.
        lowest: smallest over the boxes of the largest lower bound of a row, in outputs: what is
            certain of the whole property once all boxes are looked at.
        violating: corners of boxes at which the network violates the property, each once.
    """

    parts: SubProperties
    proved: int
    lowest: float
    violating: Float[Tensor, "points features"]


def root_properties(polytopes: Sequence[Polytope]) -> SubProperties:
    """The whole property, one part for each polytope.

    Args:
        polytopes: as `proof.polytopes` gives them, at least one.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> from carelab.properties import required_lowest
        >>> from carelab.repair.refinement import root_properties
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 3, generator=torch.Generator()))
        >>> prop = required_lowest([0], 3, low=torch.zeros(2), high=torch.ones(2))
        >>> root_properties(proof.polytopes(prop, chain)).polytope.tolist()
        [0, 1]
    """
    return SubProperties(
        low=torch.stack([part.low for part in polytopes]),
        high=torch.stack([part.high for part in polytopes]),
        polytope=torch.arange(len(polytopes), device=polytopes[0].low.device),
    )


def refine(
    chain: AffineChain,
    polytopes: Sequence[Polytope],
    parts: SubProperties,
    split_rule: SplitRule,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 1024,
) -> Refined:
    """Bound every box; try the lowest corners of those not proved; cut these in two.

    A box is proved where a row of its polytope is above its limit on all of it. Otherwise the
    corner at which each row's linear lower bound is smallest is tried as a counterexample.

    Args:
        chain: the network as it is now.
        polytopes: the polytopes of the property.
        parts: the boxes to look at, at least one.
        split_rule: chooses where a box is cut in half.
        dtype: number type of the network's inputs, in which counterexamples are exact.
        batch_size: boxes bounded at a time; bounds the memory.

    Returns:
        The halves, the counterexamples and what was proved.

    Source: ProRepair, section on property refinement. Departs: every row of a disjunction has a
        corner of its own, and bounds are rounded outwards.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> from carelab.properties import never_lowest
        >>> from carelab.repair.refinement import refine, root_properties, steepest_side
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 2, generator=torch.Generator()))
        >>> prop = never_lowest(0, 2, low=-torch.ones(2), high=torch.ones(2))
        >>> whole = proof.polytopes(prop, chain)
        >>> len(refine(chain, whole, root_properties(whole), steepest_side).parts)
        2
    """
    rounds = []
    for number, polytope in enumerate(polytopes):
        mine = (parts.polytope == number).nonzero().squeeze(1)
        for block in mine.split(batch_size) if len(mine) else ():
            low, high = parts.low[block], parts.high[block]
            rounds.append(_refined(chain, polytope, number, low, high, split_rule, dtype))
    return Refined(
        parts=SubProperties(
            low=torch.cat([one.parts.low for one in rounds]),
            high=torch.cat([one.parts.high for one in rounds]),
            polytope=torch.cat([one.parts.polytope for one in rounds]),
        ),
        proved=sum(one.proved for one in rounds),
        lowest=min(one.lowest for one in rounds),
        violating=torch.cat([one.violating for one in rounds]).unique(dim=0),
    )


def steepest_side(
    slopes: Float[Tensor, "boxes rows features"],
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
) -> Int[Tensor, " boxes"]:
    """The input along which the lower bounds of a box vary most: sum over rows |slope| x width.

    Args:
        slopes: slopes of the linear lower bounds (boxes, rows, features).
        low: smallest value of each input feature.
        high: largest value of each input feature.

    Source: ProRepair, section on property refinement.

    Example:
        >>> import torch
        >>> from carelab.repair import steepest_side
        >>> steepest_side(torch.tensor([[[1.0, -3.0]]]), torch.zeros(1, 2), torch.ones(1, 2))
        tensor([1])
    """
    return (slopes.abs().sum(dim=1) * (high - low)).argmax(dim=1)


def widest_side(
    slopes: Float[Tensor, "boxes rows features"],
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
) -> Int[Tensor, " boxes"]:
    """The input along which a box is widest, in units of the network's inputs.

    Args:
        slopes: slopes of the linear lower bounds, which do not count here.
        low: smallest value of each input feature.
        high: largest value of each input feature.

    Example:
        >>> import torch
        >>> from carelab.repair import widest_side
        >>> widest_side(torch.zeros(1, 1, 2), torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))
        tensor([1])
    """
    return (high - low).argmax(dim=1)


def random_side(
    slopes: Float[Tensor, "boxes rows features"],
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
    *,
    generator: torch.Generator,
) -> Int[Tensor, " boxes"]:
    """An input at random, of those along which a box has a width; bind the generator first.

    Args:
        slopes: slopes of the linear lower bounds, which do not count here.
        low: smallest value of each input feature.
        high: largest value of each input feature.
        generator: draws the inputs.

    Example:
        >>> import torch
        >>> from functools import partial
        >>> from carelab.repair import random_side
        >>> rule = partial(random_side, generator=torch.Generator().manual_seed(0))
        >>> rule(torch.zeros(1, 1, 2), torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]))
        tensor([1])
    """
    drawn = torch.rand(low.shape, generator=generator, dtype=torch.float64).to(low.device)
    return torch.where(high > low, drawn, -1.0).argmax(dim=1)


def _refined(
    chain: AffineChain,
    polytope: Polytope,
    number: int,
    low: Tensor,
    high: Tensor,
    split_rule: SplitRule,
    dtype: torch.dtype,
) -> Refined:
    """One round for boxes of one polytope."""
    matrix, limits = polytope.matrix, polytope.limits
    linear, lower = sound_bounds(
        chain, matrix.expand(len(low), -1, -1), limits.expand(len(low), -1), low, high
    )
    best = lower.amax(dim=1)
    left = (best <= 0).nonzero().squeeze(1)
    linear, low, high = linear.take(left), low[left], high[left]
    corners = linear.vertex(low, high).flatten(0, 1)
    corners = representable(corners, polytope.low, polytope.high, dtype)
    unsafe = (chain(corners) @ matrix.T - limits).amax(dim=1) <= 0
    side = split_rule(linear.coefficients, low, high)
    ends = [end.gather(1, side.unsqueeze(1)).squeeze(1) for end in (low, high)]
    middle = ends[0] / 2 + ends[1] / 2
    able = (ends[0] < middle) & (middle < ends[1])
    lows, highs, _, _ = halves(low[able], high[able], None, side[able])
    return Refined(
        parts=SubProperties(low=lows, high=highs, polytope=side.new_full((len(lows),), number)),
        proved=len(best) - len(left),
        lowest=float(best.min()),
        violating=corners[unsafe].unique(dim=0),
    )
