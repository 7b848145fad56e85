"""The unsafe polytopes of a safety property, in float64 and with their boxes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from carelab.proof.chains import AffineChain
from carelab.properties import OutputRegion, OutputRegions

__all__ = ["Polytope", "polytopes"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Polytope:
    """For every input of the box low to high, the outputs y must not satisfy matrix y <= limits.

    Args:
        matrix: one constraint a row, float64.
        limits: its right-hand sides, float64.
        low: smallest value of each input feature, float64.
        high: largest value of each input feature, float64.
    """

    matrix: Float[Tensor, "rows outputs"]
    limits: Float[Tensor, " rows"]
    low: Float[Tensor, " features"]
    high: Float[Tensor, " features"]


def polytopes(prop: OutputRegion | OutputRegions, chain: AffineChain) -> tuple[Polytope, ...]:
    """The polytopes of a property, checked against the network that it is about.

    Args:
        prop: the property, with a finite box.
        chain: the network.

    Returns:
        One entry for each polytope, on the network's device.

    Raises:
        ValueError: a box that is unbounded or has no end, numbers that are not finite, or sizes
            that do not fit the network.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> from carelab.properties import never_lowest
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 2, generator=torch.Generator()))
        >>> box = {"low": -torch.ones(2), "high": torch.ones(2)}
        >>> [part.matrix.tolist() for part in proof.polytopes(never_lowest(0, 2, **box), chain)]
        [[[1.0, -1.0]]]
    """
    regions = prop.regions if isinstance(prop, OutputRegions) else (prop,)
    return tuple(_polytope(region, chain) for region in regions)


def _polytope(region: OutputRegion, chain: AffineChain) -> Polytope:
    if region.low is None or region.high is None:
        raise ValueError(
            f"prop: {region.name} has an unbounded box; allowed: low and high of every feature"
        )
    like = chain.weights[0]
    part = Polytope(
        matrix=region.matrix.to(like),
        limits=region.limits.to(like),
        low=region.low.to(like),
        high=region.high.to(like),
    )
    if not all(bool(getattr(part, name).isfinite().all()) for name in Polytope.__slots__):
        raise ValueError(f"prop: {region.name} holds a number that is not finite; allowed: finite")
    if len(part.low) != chain.features or part.matrix.shape[1] != chain.outputs:
        raise ValueError(
            f"prop: {region.name} is about {len(part.low)} inputs and {part.matrix.shape[1]} "
            f"outputs; the network has {chain.features} and {chain.outputs}"
        )
    return part
