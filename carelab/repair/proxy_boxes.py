"""Proxy boxes: boxes of features that the classifier answers as it should, for certain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from carelab.networks import ordered_modules
from carelab.networks.layers import SILENT, assemble
from carelab.proof import AffineChain, LinearBounds, affine_chain, hidden_bounds, linear_bounds
from carelab.proof.rounding import magnitudes, rounding_factor
from carelab.repair.clauses import Clauses

__all__ = ["ProxyBoxes", "classifier_chain", "proxy_boxes", "sound_bounds"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ProxyBoxes:
    """Boxes of features, all of one size, one for each input.

    Args:
        centres: middle of each box (batch, neurons), float64.
        radius: half its width, the same in every coordinate, in units of the features.
        proved: boxes on which the classifier meets the input's clauses for certain.
        moves: how often the centre of each was moved.
        bounds: what is certain of each: every clause has a row that is above its limit by this
            much on the whole box, in outputs; above 0 where proved.
    """

    centres: Float[Tensor, "batch neurons"]
    radius: float
    proved: Bool[Tensor, " batch"]
    moves: Int[Tensor, " batch"]
    bounds: Float[Tensor, " batch"]

    def contain(self, features: Float[Tensor, "batch neurons"]) -> Bool[Tensor, " batch"]:
        """Which features lie in the box of their own row."""
        return ((features.to(self.centres) - self.centres).abs() <= self.radius).all(dim=1)


def proxy_boxes(
    classifier: nn.Module,
    features: Float[Tensor, "batch neurons"],
    clauses: Clauses,
    *,
    radius: float = 0.1,
    moves: int = 200,
) -> ProxyBoxes:
    """A box c +- radius near each feature h on which the classifier meets the clauses.

    At first c = h. Linear functions below row . y - limit are bounded over the box. A clause one
    of whose rows stays above 0 is proved; as long as one is not, c moves by

        radius * sign(sum of the slopes of the rows of all clauses that are not proved),

    which raises their lower bounds.

    Args:
        classifier: what follows the features: ``Linear`` and ``ReLU``, which may come first.
        features: a feature of each input (batch, neurons).
        clauses: what the outputs for each have to meet.
        radius: half the width of the boxes, in units of the features.
        moves: most moves of a centre, at least 0.

    Returns:
        The boxes. Those that no move helps, or not enough moves, are there with `proved` False.

    Raises:
        ValueError: a radius that is not positive, negative moves, or features and clauses that do
            not fit each other or the classifier.

    Source: ProRepair, section on preimage synthesis. Departs: bounds are rounded outwards; a
        centre that no slope moves is given up at once.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> head = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> wanted = repair.label_clauses(torch.tensor([0, 1]), 2)
        >>> repair.proxy_boxes(head, torch.zeros(2, 2), wanted).proved.tolist()
        [True, True]
    """
    if not 0 < radius < float("inf") or moves < 0:
        raise ValueError(
            f"radius, moves: got {radius}, {moves}; allowed: a positive number, and 0 or more"
        )
    if not len(features) == len(clauses) > 0 or not bool(features.isfinite().all()):
        raise ValueError(
            f"features: got {len(features)} for the clauses of {len(clauses)}, or one that is not "
            "finite; allowed: a finite one for each, at least one"
        )
    chain = classifier_chain(classifier, features.shape[1])
    centres = features.detach().to(chain.weights[0]).clone()
    bounds = torch.full_like(centres[:, 0], -torch.inf)
    moved = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
    active = torch.arange(len(centres), device=centres.device)
    for move in range(moves + 1):
        bounds[active], direction = _examined(chain, centres[active], clauses.take(active), radius)
        active, direction = _unproved(active, direction, bounds)
        if len(active) == 0 or move == moves:
            break
        centres[active] += radius * direction
        moved[active] += 1
    return ProxyBoxes(centres=centres, radius=radius, proved=bounds > 0, moves=moved, bounds=bounds)


def sound_bounds(
    chain: AffineChain,
    rows: Float[Tensor, "boxes rows outputs"],
    limits: Float[Tensor, "boxes rows"],
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
) -> tuple[LinearBounds, Float[Tensor, "boxes rows"]]:
    """Lower bounds of rows . y - limits over boxes, with what rounding can do taken off.

    Args:
        chain: the network.
        rows: rows of output coefficients of each box, float64.
        limits: number subtracted from each, float64; infinite ones are taken as they are.
        low: smallest value of each input of the chain.
        high: largest value of each input of the chain.

    Returns:
        The linear functions below, and their minima less twice the rounding error: those above 0
        are above 0 in exact arithmetic.

    Raises:
        ValueError: boxes that do not fit the chain, or an empty one.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> from carelab.repair.proxy_boxes import sound_bounds
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 1, generator=torch.Generator()))
        >>> low, one = torch.zeros(1, 2).double(), torch.ones(1, 1, 1).double()
        >>> linear, lower = sound_bounds(chain, one, one[0] - 9, low, low + 1)
        >>> bool(lower > 0)
        True
    """
    hidden = hidden_bounds(chain, low, high)
    linear = linear_bounds(chain, hidden, rows, limits, low, high)
    size = (rows.abs() @ magnitudes(chain, low, high)[-1].unsqueeze(2)).squeeze(2)
    size = size + torch.where(limits.isfinite(), limits.abs(), 0.0)
    return linear, linear.minimum - 2 * rounding_factor(chain) * size


def classifier_chain(classifier: nn.Module, neurons: int) -> AffineChain:
    """The part of a network behind its features as a chain, h_1 = h or relu(h) its first layer.

    Args:
        classifier: ``Linear`` and ``ReLU`` in a row, with flattening, dropout and identities.
        neurons: number of features.

    Raises:
        ValueError: a module of another kind, or another number of features than it takes.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.repair.proxy_boxes import classifier_chain
        >>> model = networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> classifier_chain(networks.split(model, "linear1")[1], 3).rectified
        (True,)
    """
    modules = [
        (name, module)
        for name, module in ordered_modules(classifier)
        if not isinstance(module, (nn.Flatten, *SILENT))
    ]
    rectified = bool(modules) and isinstance(modules[0][1], nn.ReLU)
    chain = affine_chain(assemble(modules[int(rectified) :]))
    if chain.features != neurons:
        raise ValueError(
            f"features: got {neurons} numbers each for a classifier of {chain.features}; allowed: "
            "as many as it takes"
        )
    like = chain.weights[0]
    return AffineChain(
        weights=(torch.eye(neurons, dtype=like.dtype, device=like.device), *chain.weights),
        biases=(like.new_zeros(neurons), *chain.biases),
        rectified=(rectified, *chain.rectified),
    )


def _examined(
    chain: AffineChain, centres: Tensor, clauses: Clauses, radius: float
) -> tuple[Tensor, Tensor]:
    """What is certain of each box, and the direction that raises the clauses not proved."""
    shape = clauses.limits.shape
    rows, limits = clauses.rows.flatten(1, 2).to(centres), clauses.limits.flatten(1).to(centres)
    linear, lower = sound_bounds(chain, rows, limits, centres - radius, centres + radius)
    best = lower.view(shape).amax(dim=2)
    # Filled up rows cannot be raised; their slopes are zero already.
    open_rows = (best <= 0).unsqueeze(2).expand(shape).flatten(1).unsqueeze(2)
    return best.amin(dim=1), (linear.coefficients * open_rows).sum(dim=1).sign()


def _unproved(active: Tensor, direction: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes among the active ones that are neither proved nor without a way to go."""
    going = (bounds[active] <= 0) & (direction != 0).any(dim=1)
    return active[going], direction[going]
