"""ProRepair for given inputs: their features are pulled into boxes that are proved right."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm.auto import trange

from carelab.networks import check_evaluation_mode, hidden_layers, pre_activation, split
from carelab.proof import affine_chain
from carelab.repair.clauses import Clauses, certainly
from carelab.repair.proxy_boxes import ProxyBoxes, proxy_boxes

__all__ = [
    "PointRepair",
    "box_distance",
    "centre_distance",
    "feature_layer",
    "prorepair_points",
]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PointRepair:
    """A network repaired at given inputs, and what is certain of it there.

    Args:
        repaired: the repaired network, a copy.
        status: "proved" where every input is right in exact arithmetic and as the network is run,
            "refuted" where one is wrong, else "unknown".
        layer: the features are the outputs of this module; only what comes before it, and itself,
            was changed.
        boxes: the box that each feature was pulled to.
        proved: inputs that are right for certain.
        in_box: inputs whose feature ended in its box.
        history: loss before each step (steps).
        seconds_repair: wall time of the search.
        seconds_proof: wall time of the proof.
    """

    repaired: nn.Module
    status: str
    layer: str
    boxes: ProxyBoxes
    proved: Bool[Tensor, " batch"]
    in_box: Bool[Tensor, " batch"]
    history: Float[Tensor, " steps"]
    seconds_repair: float
    seconds_proof: float


def prorepair_points(
    model: nn.Module,
    inputs: Float[Tensor, "batch ..."],
    clauses: Clauses,
    *,
    layer: str | None = None,
    radius: float = 0.1,
    learning_rate: float = 5e-4,
    moves: int = 200,
    steps: int = 500,
    distance: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    keep: Float[Tensor, "kept ..."] | None = None,
    keep_weight: float = 1.0,
    progress: bool = False,
) -> PointRepair:
    """Weights of the feature extractor e for which every input meets its clauses, with a proof.

    The network is cut into an extractor e and a classifier, which stays as it is. Each input gets
    a proved box of features near its own, see `proxy_boxes`, and Adam moves the extractor's
    weights down

        mean over inputs of distance(e(x), centre) + keep_weight * mean over kept of |e(x) - e_0(x)|

    (e_0: the extractor given) until every input is right, so that none is changed where all are
    right already. Inputs for which no box was found do not pull.

    Args:
        model: a sequential network of ``Linear``, ``Conv2d`` and ``ReLU`` in evaluation mode; it
            is not changed.
        inputs: the inputs to be repaired (batch, ...).
        clauses: what the outputs for each have to meet.
        layer: the features are its outputs; by default the sums before the last activation. After
            an activation, features cannot follow a box to where it has no values.
        radius: half the width of a box, in units of the features.
        learning_rate: step size of Adam.
        moves: most moves of the centre of a box.
        steps: most steps of Adam.
        distance: from features (batch, neurons) to boxes of these centres and radius;
            `centre_distance` by default, `box_distance` pulls no further than needed.
        keep: inputs whose features should stay where they are, or None as published.
        keep_weight: how much they count.
        progress: show a bar.

    Raises:
        ValueError: a network, layer or number that this cannot take; no input; clauses that do not
            fit.

    Source: ProRepair, sections on preimage synthesis and on point-wise repair; `keep` and
        `box_distance` are additions. Departs: an input counts as right when its outputs are so in
        exact arithmetic as well.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> model = networks.mlp(2, (9, 9), 3, generator=torch.Generator().manual_seed(0))
        >>> points, wanted = torch.eye(2), repair.label_clauses(torch.tensor([0, 2]), 3)
        >>> repair.prorepair_points(model, points, wanted, learning_rate=0.02).status
        'proved'
    """
    _check(model, inputs, clauses, learning_rate, steps, keep_weight)
    started = perf_counter()
    layer = feature_layer(model) if layer is None else layer
    repaired = deepcopy(model)
    extractor, classifier = split(repaired, layer)
    with torch.no_grad():
        features = extractor(inputs).flatten(1)
        kept = None if keep is None else extractor(keep).flatten(1)
    boxes = proxy_boxes(classifier, features, clauses, radius=radius, moves=moves)
    pull = _pull_towards(boxes, distance or centre_distance)

    def loss(features: Tensor) -> Tensor:
        if keep is None or kept is None:
            return pull(features)
        drift = torch.linalg.vector_norm(extractor(keep).flatten(1) - kept, dim=1)
        return pull(features) + keep_weight * drift.mean()

    history = _descend(
        extractor,
        inputs,
        loss,
        lambda: _all_right(repaired, inputs, clauses),
        learning_rate,
        steps if bool(boxes.proved.any()) else 0,
        progress,
    )
    searched = perf_counter()
    proved, status = _answer(repaired, inputs, clauses)
    with torch.no_grad():
        in_box = boxes.contain(extractor(inputs).flatten(1))
    return PointRepair(
        repaired=repaired,
        status=status,
        layer=layer,
        boxes=boxes,
        proved=proved,
        in_box=in_box,
        history=torch.tensor(history, dtype=torch.float64),
        seconds_repair=searched - started,
        seconds_proof=perf_counter() - searched,
    )


def feature_layer(model: nn.Module) -> str:
    """Name of the layer whose sums ProRepair takes as features: the last hidden one's.

    Args:
        model: a sequential network.

    Raises:
        ValueError: a network without a hidden layer.

    Source: as ProRepair's published code cuts the networks of ACAS Xu.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> model = networks.mlp(2, (9, 9), 3, generator=torch.Generator().manual_seed(0))
        >>> repair.feature_layer(model)
        'linear2'
    """
    layers = hidden_layers(model)
    if not layers:
        raise ValueError("model: has no hidden layer; allowed: a network with at least one")
    return pre_activation(model, layers[-1])


def centre_distance(
    features: Float[Tensor, "batch neurons"], centres: Float[Tensor, "batch neurons"], radius: float
) -> Float[Tensor, " batch"]:
    """Euclidean distance of each feature from the centre of its box.

    Args:
        features: the features.
        centres: the middle of the box of each.
        radius: half the width of the boxes, which does not count here.

    Source: ProRepair, section on point-wise repair.

    Example:
        >>> import torch
        >>> from carelab.repair import centre_distance
        >>> centre_distance(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), 1.0).item()
        5.0
    """
    return torch.linalg.vector_norm(features - centres, dim=1)


def box_distance(
    features: Float[Tensor, "batch neurons"], centres: Float[Tensor, "batch neurons"], radius: float
) -> Float[Tensor, " batch"]:
    """Euclidean distance of each feature from its box; 0 inside.

    Args:
        features: the features.
        centres: the middle of the box of each.
        radius: half the width of the boxes.

    Example:
        >>> import torch
        >>> from carelab.repair import box_distance
        >>> box_distance(torch.tensor([[4.0, 0.5]]), torch.zeros(1, 2), 1.0).item()
        3.0
    """
    outside = ((features - centres).abs() - radius).clamp(min=0)
    return torch.linalg.vector_norm(outside, dim=1)


def _check(
    model: nn.Module,
    inputs: Tensor,
    clauses: Clauses,
    learning_rate: float,
    steps: int,
    keep_weight: float,
) -> None:
    check_evaluation_mode(model)
    if not len(inputs) == len(clauses) > 0 or not bool(inputs.isfinite().all()):
        raise ValueError(
            f"inputs: got {len(inputs)} for the clauses of {len(clauses)}, or one that is not "
            "finite; allowed: a finite one for each, at least one"
        )
    if not learning_rate > 0 or steps < 0 or not keep_weight >= 0:
        raise ValueError(
            f"learning_rate, steps, keep_weight: got {learning_rate}, {steps}, {keep_weight}; "
            "allowed: a positive number, and two that are not negative"
        )


def _pull_towards(
    boxes: ProxyBoxes, distance: Callable[[Tensor, Tensor, float], Tensor]
) -> Callable[[Tensor], Tensor]:
    """Mean distance of features from those of the boxes that are proved."""
    chosen = boxes.proved.nonzero().squeeze(1)

    def pull(features: Tensor) -> Tensor:
        centres = boxes.centres[chosen].to(features)
        # A sum over none is 0, where a mean would be undefined.
        return distance(features[chosen], centres, boxes.radius).sum() / max(1, len(chosen))

    return pull


def _descend(
    extractor: nn.Module,
    inputs: Tensor,
    loss: Callable[[Tensor], Tensor],
    is_done: Callable[[], bool],
    learning_rate: float,
    steps: int,
    progress: bool,
) -> list[float]:
    """Steps of Adam on the extractor's weights until it is done; the loss before each."""
    parameters = list(extractor.parameters())
    if not parameters:
        raise ValueError("layer: comes before every weight; allowed: one with weights before it")
    trainable = [parameter.requires_grad for parameter in parameters]
    history: list[float] = []
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    with torch.enable_grad():
        extractor.requires_grad_(True)
        for _ in trange(steps, desc="repair", disable=not progress, leave=False):
            if is_done():
                break
            value = loss(extractor(inputs).flatten(1))
            history.append(float(value.detach()))
            if history[-1] == 0:  # nothing pulls any more: what is wrong has no box
                break
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    for parameter, before in zip(parameters, trainable, strict=True):
        parameter.grad = None
        parameter.requires_grad_(before)
    return history


def _all_right(model: nn.Module, inputs: Tensor, clauses: Clauses) -> bool:
    """Whether every input is right as the network is run, and then for certain."""
    with torch.no_grad():
        right = bool((clauses.margin(model(inputs)) > 0).all())
    return right and bool(_certainly(model, inputs, clauses)[0].all())


def _answer(model: nn.Module, inputs: Tensor, clauses: Clauses) -> tuple[Tensor, str]:
    """Inputs that are right for certain and as the network is run, and the status of all."""
    right, wrong = _certainly(model, inputs, clauses)
    with torch.no_grad():
        as_run = clauses.margin(model(inputs)) > 0
    proved = right & as_run
    if bool(proved.all()):
        return proved, "proved"
    return proved, "refuted" if bool((wrong | ~as_run).any()) else "unknown"


def _certainly(model: nn.Module, inputs: Tensor, clauses: Clauses) -> tuple[Tensor, Tensor]:
    shape = tuple(inputs.shape[1:]) if inputs.ndim > 2 else None
    return certainly(affine_chain(model, shape=shape), inputs.flatten(1), clauses)
