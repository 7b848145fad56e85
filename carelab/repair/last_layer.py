"""The last layer of a network as the unknown of a convex programme: least change, most kept."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import clarabel
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from carelab.networks import hidden_layers, logits, ordered_modules, split
from carelab.proof import (
    AffineChain,
    Polytope,
    affine_chain,
    polytopes,
)
from carelab.properties import OutputRegion, OutputRegions
from carelab.records import Neuron
from carelab.repair.score_moves import ScoreMove, advice_of, score_moves

__all__ = [
    "Constraints",
    "LastLayer",
    "last_layer",
    "least_change",
    "point_constraints",
]

# A score that is further from the advised one may move more: the weight of its change is
# 1 / (distance / spread + _NEAR)^2, so _NEAR is what counts as near.
_NEAR = 0.25
# Weight of the squared change of a weight beside that of the scores, in units of the mean square
# of the activations: what keeps the weights of silent neurons from growing without limit.
_RIDGE = 1e-3
_MOST_POINTS = 60  # the worst points of a polytope that become constraints at a time


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Constraints:
    """Linear constraints rows c >= limits on the free entries c of a change.

    Args:
        rows: coefficients (constraints, entries).
        limits: right-hand sides (constraints).
        age: for how many solutions in a row each has not been active (constraints).
    """

    rows: NDArray[np.float64]
    limits: NDArray[np.float64]
    age: NDArray[np.int64]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.limits)

    def with_more(self, other: Constraints) -> Constraints:
        """These and others."""
        return Constraints(
            rows=np.concatenate([self.rows, other.rows]),
            limits=np.concatenate([self.limits, other.limits]),
            age=np.concatenate([self.age, other.age]),
        )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LastLayer:
    """What a change of the last layer is judged by; features are activations before it, and a 1.

    A change C (classes, features) turns the scores W h into (W + C) h. Only the rows of some
    outputs and the columns of some neurons may change.

    Args:
        model: the network, in evaluation mode.
        weights: weights and bias W (classes, features), float64.
        parts: the unsafe polytopes with their box.
        moves: for each of them the output that is to leave it.
        outputs: the outputs whose rows may change, in order.
        columns: the features whose columns may change.
        body: what comes before the last layer, followed by an identity.
        domain: features of the inputs whose scores are to stay (batch, features).
        cost: Q of the cost 1/2 c' Q c of the free entries c of the change.
        spread: mean distance between the highest and the lowest score over those inputs.
        highest: the highest output is the answer, not the lowest.
    """

    model: nn.Module
    weights: Float[Tensor, "classes features"]
    parts: tuple[Polytope, ...]
    moves: tuple[ScoreMove, ...]
    outputs: tuple[int, ...]
    columns: Tensor
    body: AffineChain
    domain: Float[Tensor, "batch features"]
    cost: NDArray[np.float64]
    spread: float
    highest: bool

    def features(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch features"]:
        """Activations before the last layer, in the network's own arithmetic, and a 1."""
        prefix, _ = split(self.model, hidden_layers(self.model)[-1])
        weight = next(self.model.parameters())
        hidden = logits(prefix, inputs.to(weight)).flatten(1).double()
        return functional.pad(hidden, (0, 1), value=1.0)

    def change(self, free: NDArray[np.float64]) -> Float[Tensor, "classes features"]:
        """The change whose free entries are given."""
        change = torch.zeros_like(self.weights)
        rows = torch.tensor(self.outputs).unsqueeze(1)
        change[rows, self.columns] = torch.from_numpy(free).view(len(self.outputs), -1)
        return change

    def constraints(
        self,
        rows: Float[Tensor, "constraints classes"],
        limits: Float[Tensor, " constraints"],
        features: Float[Tensor, "constraints features"],
        margin: float,
    ) -> Constraints:
        """The constraints rows (W + C) features - limits >= margin on the free entries of C."""
        chosen = rows[:, self.outputs].unsqueeze(2) * features[:, self.columns].unsqueeze(1)
        given = ((rows @ self.weights) * features).sum(dim=1)
        return Constraints(
            rows=chosen.flatten(1).numpy(),
            limits=(margin + limits - given).numpy(),
            age=np.zeros(len(rows), dtype=np.int64),
        )

    def unconstrained(self) -> Constraints:
        """No constraint."""
        none = self.weights.new_zeros(0)
        return self.constraints(
            none.view(0, len(self.weights)), none, none.view(0, self.weights.shape[1]), 0.0
        )

    def network(self, change: Float[Tensor, "classes features"]) -> nn.Module:
        """A copy of the network with the change, rounded to its number type."""
        changed = deepcopy(self.model)
        head = ordered_modules(changed)[-1][1]
        assert isinstance(head, nn.Linear)
        weights = self.weights + change
        with torch.no_grad():
            head.weight.copy_(weights[:, :-1])
            head.bias.copy_(weights[:, -1])
        return changed


def last_layer(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    domain: Float[Tensor, "batch ..."],
    *,
    neurons: Sequence[Neuron] | None = None,
    highest: bool = False,
) -> LastLayer:
    """The programme of the least change of a network's last layer.

    cost(C) = mean over the domain of sum over outputs j of w_j(x) (C_j h(x))^2 + ridge |C|^2 with
    w_j(x) = 1 / (d_j(x) / spread + 1/4)^2, d_j the distance of the score from the advised one
    (of the advised one from the next): a change counts more where it could change the advice.

    Args:
        model: a sequential network of ``Linear`` and ``ReLU`` whose last layer has a bias.
        prop: the property, with a finite box.
        domain: inputs at which the scores are to stay as they are (batch, ...).
        neurons: neurons of the last hidden layer whose outgoing weights may change; all by
            default. The bias may always change.
        highest: the highest output is the answer; by default the lowest.

    Raises:
        ValueError: a network without hidden layer or without a bias at the end, a neuron of
            another layer, or a property that does not fit.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> from carelab.properties import never_lowest
        >>> model = networks.mlp(2, (5,), 3, generator=torch.Generator().manual_seed(0))
        >>> prop = never_lowest(0, 3, low=torch.zeros(2), high=torch.ones(2))
        >>> layer = repair.last_layer(model, prop, torch.rand(50, 2))
        >>> layer.weights.shape, len(layer.outputs)
        (torch.Size([3, 6]), 1)
    """
    chain = affine_chain(model)
    head = ordered_modules(model)[-1][1]
    if not chain.hidden or not isinstance(head, nn.Linear) or head.bias is None:
        raise ValueError("model: allowed: a hidden layer, then a Linear layer with a bias at last")
    regions = prop.regions if isinstance(prop, OutputRegions) else (prop,)
    weights = torch.cat([head.weight, head.bias.unsqueeze(1)], dim=1).detach().double()
    width = chain.hidden[-1]
    identity = torch.eye(width, dtype=torch.float64)
    empty = LastLayer(
        model=model,
        weights=weights,
        parts=polytopes(prop, chain),
        moves=(),
        outputs=(),
        columns=_columns(neurons, hidden_layers(model)[-1], width),
        body=AffineChain(
            weights=(*chain.weights[:-1], identity),
            biases=(*chain.biases[:-1], identity.new_zeros(width)),
            rectified=chain.rectified,
        ),
        domain=weights[:0],
        cost=np.zeros((0, 0)),
        spread=1.0,
        highest=highest,
    )
    features = empty.features(domain)
    scores = features @ weights.T
    moves = score_moves(scores, regions, highest=highest)
    layer = replace(
        empty,
        moves=moves,
        outputs=tuple(sorted({move.output for move in moves})),
        domain=features,
        spread=float((scores.amax(dim=1) - scores.amin(dim=1)).mean()),
    )
    return replace(layer, cost=_cost(layer, scores))


def point_constraints(
    layer: LastLayer,
    features: Float[Tensor, "points features"],
    change: Float[Tensor, "classes features"],
    margin: float,
) -> Constraints:
    """Constraints that put the worst points out of every polytope, by at least a margin.

    A point with features h leaves the polytope A y <= b by the constraint r that it misses most,
    among those that the polytope's move can break: a_r (W + C) h - b_r >= margin.

    Args:
        layer: the programme.
        features: features of points of the property's box.
        change: the change so far, which says which points are worst.
        margin: distance from the polytope, in scores; at least it.

    Returns:
        Up to 60 constraints for each polytope; none where all points are out by the margin.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> from carelab.properties import never_lowest
        >>> model = networks.mlp(2, (5,), 3, generator=torch.Generator().manual_seed(0))
        >>> prop = never_lowest(0, 3, low=torch.zeros(2), high=torch.ones(2))
        >>> layer = repair.last_layer(model, prop, torch.rand(50, 2))
        >>> points = layer.features(torch.rand(9, 2))
        >>> len(repair.point_constraints(layer, points, layer.weights * 0, 100.0))
        9
    """
    found = layer.unconstrained()
    for part, move in zip(layer.parts, layer.moves, strict=True):
        matrix, limits = part.matrix[move.rows], part.limits[move.rows]
        held_out, row = (features @ (layer.weights + change).T @ matrix.T - limits).max(dim=1)
        worst = held_out.argsort()[:_MOST_POINTS]
        worst = worst[held_out[worst] < margin]
        rows = matrix[row[worst]]
        found = found.with_more(
            layer.constraints(rows, limits[row[worst]], features[worst], margin)
        )
    return found


def least_change(
    layer: LastLayer, constraints: Constraints
) -> tuple[Float[Tensor, "classes features"], Constraints] | None:
    """The change of least cost that meets constraints, by Clarabel's interior point method.

    Args:
        layer: the programme.
        constraints: what must hold.

    Returns:
        The change, and the constraints without those that were not active three times in a row;
        None where they contradict each other.

    Source: Goulart and Chen, Clarabel, 2024.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> from carelab.properties import never_lowest
        >>> model = networks.mlp(2, (5,), 3, generator=torch.Generator().manual_seed(0))
        >>> prop = never_lowest(0, 3, low=torch.zeros(2), high=torch.ones(2))
        >>> layer, none = repair.last_layer(model, prop, torch.rand(50, 2)), torch.zeros(3, 6)
        >>> needs = repair.point_constraints(layer, layer.domain, none.double(), 100.0)
        >>> change, _ = repair.least_change(layer, needs)
    """
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    solution = clarabel.DefaultSolver(
        sparse.csc_matrix(np.triu(layer.cost)),
        np.zeros(len(layer.cost)),
        sparse.csc_matrix(-constraints.rows),
        -constraints.limits,
        [clarabel.NonnegativeConeT(len(constraints))],
        settings,
    ).solve()
    if str(solution.status) not in ("Solved", "AlmostSolved"):
        return None
    forces = np.array(solution.z)
    active = forces > 1e-8 * max(forces.max(initial=0.0), 1e-300)
    age = np.where(active, 0, constraints.age + 1)
    kept = age < 3
    return layer.change(np.array(solution.x)), Constraints(
        rows=constraints.rows[kept], limits=constraints.limits[kept], age=age[kept]
    )


def _columns(neurons: Sequence[Neuron] | None, layer: str, width: int) -> Tensor:
    if neurons is None:
        return torch.arange(width + 1)
    wrong = [str(one) for one in neurons if one.layer != layer or not 0 <= one.index < width]
    if wrong or not neurons:
        raise ValueError(
            f"neurons: got {wrong or 'none'}; allowed: at least one, all of {layer}, the last "
            f"hidden layer, with indices 0 to {width - 1}"
        )
    return torch.tensor([*sorted({neuron.index for neuron in neurons}), width])


def _cost(layer: LastLayer, scores: Tensor) -> NDArray[np.float64]:
    """Q of the cost, one block for each output that may change."""
    advice = advice_of(scores, highest=layer.highest)
    ordered = scores.sort(dim=1, descending=layer.highest).values
    distance = (scores - ordered[:, :1]).abs()
    distance.scatter_(1, advice.unsqueeze(1), (ordered[:, 1] - ordered[:, 0]).abs().unsqueeze(1))
    weight = 1 / (distance / layer.spread + _NEAR) ** 2
    features = layer.domain[:, layer.columns]
    ridge = torch.full_like(features[0], float((layer.domain[:, :-1] ** 2).mean()) * _RIDGE)
    blocks = [
        (features * weight[:, [output]]).T @ features / len(features) + ridge.diag()
        for output in layer.outputs
    ]
    cost = torch.block_diag(*blocks)
    return np.asarray((cost / cost.diagonal().mean()).numpy())
